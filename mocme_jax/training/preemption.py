"""SIGTERM and SIGINT: end in good order at the first, at once at the second."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)

# One Ctrl-C may arrive twice, from the terminal and from a script that passes it on.
_ECHO_SECONDS = 0.5


class Stopped(BaseException):
    """A signal has ended the run in good order; the text is the line that says how to go on, empty for none.

    Like KeyboardInterrupt no ``Exception``: it may be raised anywhere, and is nobody's to swallow.
    """


class Preemption:
    """A context manager that takes SIGTERM and SIGINT, and prints the line of the `Stopped` that leaves it.

    While there is nothing to save (from the start on, and after `nothing_to_save`), the first signal ends the process
    with a line and status 0. After `something_to_save` it sets `requested`, and a line says that the run stops. A
    second signal ends the process with status 130 (SIGINT) or 143 (SIGTERM). All of this happens at once, also in the
    middle of a long compiled call: a thread sees to it, since Python's own handlers wait for the main thread to come
    back, and what they raise may be lost there.

    Signals that the process was started with as ignored stay so. Outside of the main thread nothing is taken.

    Args:
      alone: False where other processes take part in the run. These must agree before one of them leaves, so that the
        first signal never ends anything by itself.
    """

    def __init__(self, *, alone: bool = True):
        self.requested = False
        self._alone = alone
        self._line: str | None = "stopped before training began; the same command begins it"
        self._undo = contextlib.ExitStack()

    def nothing_to_save(self, line: str) -> None:
        """From now on a signal ends the run at once, with this line.

        Raises:
          Stopped: there was one already.
        """
        if self._alone and self.requested:
            raise Stopped(line)
        self._line = line

    def something_to_save(self) -> None:
        """From now on a signal is a request, and whoever has something to save looks at it."""
        self._line = None

    def __enter__(self) -> Preemption:
        if threading.current_thread() is not threading.main_thread():
            return self
        read, write = os.pipe()
        os.set_blocking(write, False)
        threading.Thread(target=self._watch, args=(read,), daemon=True).start()
        self._undo.callback(os.close, write)
        self._undo.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(write, warn_on_full_buffer=False))
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before = signal.signal(number, self._arrived)
                self._undo.callback(signal.signal, number, signal.SIG_DFL if before is None else before)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> bool:
        self._line = None
        self._undo.close()
        if not isinstance(error, Stopped):
            return False
        if str(error):
            print(error, flush=True)
        return True

    def _arrived(self, *_: Any) -> None:
        self.requested = True

    def _watch(self, pipe: int) -> None:
        """Reads the numbers of arriving signals until the pipe's other end is closed."""
        first = None
        while number := os.read(pipe, 1):
            if number[0] not in SIGNALS:
                continue
            line = self._line
            if first is None and self._alone and line is not None:
                # In one piece: other threads may be printing.
                print(f"{line}\n", end="", flush=True)
                os._exit(0)
            elif first is None:
                first = time.monotonic()
                print("stopping after this step; a second signal ends it at once\n", end="", flush=True)
            elif time.monotonic() - first > _ECHO_SECONDS:
                os._exit(128 + number[0])
        os.close(pipe)
