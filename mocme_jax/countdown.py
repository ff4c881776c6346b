"""Lines on work that takes long: how far it is, how fast it goes, how long it will take."""

import time
from collections.abc import Callable

# Between two lines.
TOLD_SECONDS = 5.0


class Countdown:
    """Tells in a line now and then how far some work is, how fast it goes and how long it will take.

    Args:
      what: it is counted in, such as ``queries``.
      notify: told the line.
    """

    def __init__(self, what: str, notify: Callable[[str], None]):
        self._what, self._notify = what, notify
        self._told, self._done = time.perf_counter(), 0
        # The rate is taken from the end of the first part, which may have compiled.
        self._began, self._first = 0.0, 0

    def __call__(self, done: int, total: int) -> None:
        """Takes how many are done; fewer than before begin another pass."""
        now = time.perf_counter()
        if done < self._done or not self._done:
            self._began, self._first = now, done
        self._done = done
        if now - self._told < TOLD_SECONDS or done <= self._first:
            return
        self._told, rate = now, (done - self._first) / (now - self._began)
        fast, left = f"{rate:,.{0 if rate >= 10 else 1}f}", _duration((total - done) / rate)
        self._notify(f"{done:,} of {total:,} {self._what}, {fast} per second, about {left} left")


def _duration(seconds: float) -> str:
    for size, word in ((3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {word}"
    return f"{seconds:.0f} s"
