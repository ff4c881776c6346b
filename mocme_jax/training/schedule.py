"""When a run is evaluated, saved and over, and how many steps are taken in one call."""

from __future__ import annotations

import dataclasses

# Long enough that a trip to the host costs nothing, short enough that a signal is answered at once.
CALL_SECONDS = 2.0


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The plan of a run: ``steps_per_epoch``, and the fields of ``config.train`` of the other names.

    The last epoch is evaluated in any case.
    """

    steps_per_epoch: int
    epochs: int
    eval_every: int
    patience: int
    save_minutes: float

    @property
    def end(self) -> int:
        """The last step."""
        return self.epochs * self.steps_per_epoch

    def next_evaluation(self, step: int) -> int:
        """The first step at or after this one, itself above 0, that is evaluated; at most the last step."""
        period = self.eval_every * self.steps_per_epoch
        return min(max(1, -(-step // period)) * period, self.end)

    def evaluates(self, step: int) -> bool:
        """Whether the state after this step is evaluated."""
        return step > 0 and self.next_evaluation(step) == step


class Pace:
    """How many steps to take in a call, by how long the last ones took; and the rate since it was asked for.

    The first call compiles, which says nothing of a step's time.
    """

    def __init__(self):
        self._calls = 0
        self._step_seconds: float | None = None
        self._steps, self._seconds = 0, 0.0

    def length(self, limit: int) -> int:
        """Steps of the next call, from 1 to ``limit``; one while no step has been timed."""
        if self._step_seconds is None:
            return 1
        return max(1, min(limit, int(CALL_SECONDS / max(self._step_seconds, 1e-9))))

    def took(self, steps: int, seconds: float) -> None:
        """Notes a call."""
        self._calls += 1
        if self._calls == 1:
            return
        self._step_seconds = seconds / steps
        self._steps += steps
        self._seconds += seconds

    def steps_a_second(self) -> float | None:
        """Since the last time it was asked for; None where no call was timed."""
        rate = self._steps / self._seconds if self._seconds else None
        self._steps, self._seconds = 0, 0.0
        return rate
