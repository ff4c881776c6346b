"""The schedule of evaluations, saves and the end of a run, and the number of steps per call."""

import dataclasses

# Long enough that the overhead of a call is negligible, short enough for a quick reaction to signals.
CALL_SECONDS = 2.0


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The schedule of a run. The last epoch is always evaluated.

    Attributes:
      steps_per_epoch: steps.
      epochs: ``train.epochs``.
      eval_every: ``train.eval_every``, in epochs.
      patience: ``train.patience``, in evaluations; 0: no early stopping.
      save_minutes: ``train.save_minutes``.
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
        """Return the first step at or after this one (and after 0) that is evaluated; at most the last step."""
        period = self.eval_every * self.steps_per_epoch
        return min(max(1, -(-step // period)) * period, self.end)

    def evaluates(self, step: int) -> bool:
        """Return whether the state after this step is evaluated."""
        return step > 0 and self.next_evaluation(step) == step

    def saves_while_training(self, steps_a_second: float | None) -> bool:
        """Return whether saves overlap with training steps; True if the speed is unknown and decides it.

        Every evaluation saves. After each but the last, training continues during the save.
        """
        if self.epochs > self.eval_every or steps_a_second is None:
            return True
        return self.end / steps_a_second > 60 * self.save_minutes


class Pace:
    """Chooses the number of steps per call from the duration of the last calls, and measures the rate.

    The first call is not timed, because it compiles.
    """

    def __init__(self) -> None:
        self._calls = 0
        self._step_seconds: float | None = None
        self._steps, self._seconds = 0, 0.0

    def length(self, limit: int) -> int:
        """Return the number of steps of the next call, from 1 to ``limit``; 1 until a call has been timed."""
        if self._step_seconds is None:
            return 1
        return max(1, min(limit, int(CALL_SECONDS / max(self._step_seconds, 1e-9))))

    def took(self, steps: int, seconds: float) -> None:
        """Record the duration of a call."""
        self._calls += 1
        if self._calls == 1:
            return
        self._step_seconds = seconds / steps
        self._steps += steps
        self._seconds += seconds

    def steps_a_second(self) -> float | None:
        """Return the steps per second since the last call of this method; None if no call was timed."""
        rate = self._steps / self._seconds if self._seconds else None
        self._steps, self._seconds = 0, 0.0
        return rate
