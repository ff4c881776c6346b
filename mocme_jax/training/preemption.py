"""The handling of SIGTERM and SIGINT: the first ends the run after its state is saved, the second at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)

# Ctrl-C may arrive twice, from the terminal and from a script that forwards it.
_ECHO_SECONDS = 0.5


class Stopped(BaseException):
    """A signal has ended the run after its state was saved. The text says how to resume, and is empty for no message.

    Like KeyboardInterrupt, it is not an ``Exception``, because it may be raised anywhere and must not be swallowed.
    """


class Preemption:
    """A context manager that handles SIGTERM and SIGINT, and prints the message of the ``Stopped`` that leaves it.

    While there is nothing to save (from the start, and after ``nothing_to_save``), the first signal ends the process
    with a message and status 0. After ``something_to_save``, the first signal sets ``requested``, and a message says
    that the run stops. A second signal ends the process with status 130 (SIGINT) or 143 (SIGTERM). This happens at
    once, even during a long compiled call: a thread handles it, because Python's own handlers wait for the main thread,
    and what they raise may be lost there.

    Signals that were ignored when the process started stay ignored. Outside the main thread, no signals are handled.

    Args:
      alone: False if other processes take part in the run. They must agree before one of them leaves, so the first
        signal never ends the process by itself.
    """

    def __init__(self, *, alone: bool = True):
        self.requested = False
        self._alone = alone
        self._line: str | None = "stopped before training began; rerun the same command to start it"
        self._undo = contextlib.ExitStack()

    def nothing_to_save(self, line: str) -> None:
        """From now on, a signal ends the run at once, with this line.

        Raises:
          Stopped: a signal has arrived already.
        """
        if self._alone and self.requested:
            raise Stopped(line)
        self._line = line

    def something_to_save(self) -> None:
        """From now on, a signal sets ``requested``, which the code that has something to save must check."""
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
        """Read the numbers of arriving signals until the other end of the pipe is closed."""
        first = None
        while number := os.read(pipe, 1):
            if number[0] not in SIGNALS:
                continue
            line = self._line
            if first is None and self._alone and line is not None:
                # In one call, because other threads may be printing.
                print(f"{line}\n", end="", flush=True)
                os._exit(0)
            elif first is None:
                first = time.monotonic()
                print("stopping after this step; a second signal stops it at once\n", end="", flush=True)
            elif time.monotonic() - first > _ECHO_SECONDS:
                os._exit(128 + number[0])
        os.close(pipe)
