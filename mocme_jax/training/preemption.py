"""The handling of SIGTERM, SIGINT and SIGUSR1: the first ends the run after its state is saved, the second at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from typing import Any

# SLURM sends SIGUSR1 before the time limit; see launch/slurm.sh.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

# Ctrl-C may arrive twice, from the terminal and from a script that forwards it.
_ECHO_SECONDS = 0.5


class Stopped(BaseException):
    """A signal has ended the run after its state was saved. The text says how to resume, and is empty for no message.

    Like KeyboardInterrupt, it is not an ``Exception``, because it may be raised anywhere and must not be swallowed.
    """


class Preemption:
    """A context manager that handles ``SIGNALS``, and prints the message of the ``Stopped`` that leaves it.

    Afterwards, ``status`` is the exit status of the command: 0, or ``stopped_status`` after a ``Stopped``.

    While there is nothing to save (from the start, and after ``nothing_to_save``), the first signal ends the process
    with a message and ``stopped_status``. After ``something_to_save``, the first signal sets ``requested``, and a
    message says that the run stops. A second signal ends the process with 128 plus its number: 130 for SIGINT, 143 for
    SIGTERM. This happens at once, even during a long compiled call: a thread handles it, because Python's own handlers
    wait for the main thread, and what they raise may be lost there.

    Without ``with``, no signals are handled. Whoever handles them sets ``requested``, and gets the ``Stopped``.

    Signals that were ignored when the process started stay ignored. Outside the main thread, no signals are handled.

    Args:
      stopped_status: the exit status of a run that a signal has stopped before it was finished.
      alone: False if other processes take part in the run. They must agree before one of them leaves, so the first
        signal never ends the process by itself.
    """

    def __init__(self, stopped_status: int = 75, *, alone: bool = True):
        self.requested = False
        self.status = 0
        self._stopped_status, self._alone = stopped_status, alone
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
        self.status = self._stopped_status
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
                os._exit(self._stopped_status)
            elif first is None:
                first = time.monotonic()
                print("stopping after this step; a second signal stops it at once\n", end="", flush=True)
            elif time.monotonic() - first > _ECHO_SECONDS:
                os._exit(128 + number[0])
        os.close(pipe)
