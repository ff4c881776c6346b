"""When a run is evaluated, and how long its calls are: against loops."""

import pytest

from mocme_jax.config import load_config
from mocme_jax.training.schedule import CALL_SECONDS, Pace, Schedule
from mocme_jax.training.setup.settings import schedule_of, with_batch_that_fits, with_fields


@pytest.mark.parametrize(("steps", "epochs", "every"), [(4, 6, 2), (3, 7, 3), (1, 1, 1), (5, 2, 4)])
def test_steps_that_are_evaluated(steps, epochs, every):
    schedule = Schedule(steps, epochs, every, 0, 1.0)
    expected = {epoch * steps for epoch in range(1, epochs + 1) if epoch % every == 0 or epoch == epochs}
    last = steps * epochs
    assert schedule.end == last
    assert {step for step in range(last + 1) if schedule.evaluates(step)} == expected
    for step in range(1, last + 1):
        assert schedule.next_evaluation(step) == min(found for found in expected if found >= step)


@pytest.mark.parametrize(
    ("epochs", "rate", "overlap"),
    # 600 steps per epoch and a save every 5 minutes: at 2 steps per second, an epoch takes exactly as long.
    [(1, 2.1, False), (1, 1.9, True), (2, 4.1, False), (3, 1000.0, True), (1, None, True)],
)
def test_saves_overlap_with_training_after_an_evaluation_or_in_a_long_epoch(epochs, rate, overlap):
    assert Schedule(600, epochs, 2, 0, 5.0).saves_while_training(rate) == overlap


@pytest.mark.parametrize(
    ("wanted", "triples", "devices", "batch"),
    [(512, 100, 1, 100), (512, 100, 3, 99), (512, 3, 4, 4), (100, 100, 3, 100), (4, 3, 4, 4), (64, 100, 2, 64)],
)
def test_a_batch_is_no_larger_than_the_graph(wanted, triples, devices, batch):
    config, told = with_fields(load_config("atlas")[0], {"train.batch_size": wanted}), []
    found = with_batch_that_fits(config, triples, devices, told.append)
    assert found.train.batch_size == batch
    assert config.train.batch_size == wanted
    # A step an epoch, and no more than the config names is changed.
    assert schedule_of(found, triples).end == found.train.epochs * -(-triples // batch)
    assert with_fields(found, {"train.batch_size": wanted}) == config
    assert told == (
        [f"train.batch_size is {batch}, not 512: the graph has {triples} training triples"] * (wanted > batch)
    )


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
