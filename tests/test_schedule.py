"""When a run is evaluated, and how long its calls are: against loops."""

import pytest

from mocme_jax.training.schedule import CALL_SECONDS, Pace, Schedule


@pytest.mark.parametrize(("steps", "epochs", "every"), [(4, 6, 2), (3, 7, 3), (1, 1, 1), (5, 2, 4)])
def test_steps_that_are_evaluated(steps, epochs, every):
    schedule = Schedule(steps, epochs, every, 0, 1.0)
    expected = {epoch * steps for epoch in range(1, epochs + 1) if epoch % every == 0 or epoch == epochs}
    last = steps * epochs
    assert schedule.end == last
    assert {step for step in range(last + 1) if schedule.evaluates(step)} == expected
    for step in range(1, last + 1):
        assert schedule.next_evaluation(step) == min(found for found in expected if found >= step)


def test_calls_are_one_step_until_one_was_timed_and_then_as_long_as_wanted():
    pace = Pace()
    assert pace.length(100) == 1
    pace.took(1, 60.0)
    assert pace.length(100) == 1, "the first call compiles"
    assert pace.steps_a_second() is None
    pace.took(1, CALL_SECONDS / 40)
    assert pace.length(100) in (39, 40)
    assert pace.length(7) == 7
    pace.took(40, 400 * CALL_SECONDS)
    assert pace.length(100) == 1, "never none"
    assert pace.steps_a_second() == pytest.approx(41 / (CALL_SECONDS * (400 + 1 / 40)))
    assert pace.steps_a_second() is None
