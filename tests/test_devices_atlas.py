"""Real training in float32: devices, mappers and split tables give the losses of one device."""

import jax
import numpy as np
import pytest

from mocme_jax.config import load_config
from mocme_jax.parallel.mesh import WHOLE, Mapper
from mocme_jax.training.setup import builders

# A model leaves its start, where all entities are alike, by doubling differences again and again, those of rounding
# among them; so the steps that are compared begin behind that.
WARM, STEPS = 300, 50


@pytest.fixture(scope="module")
def prepared(compiled_as_for_users):
    """Config, dataset, and one device's state and losses."""
    config, _ = load_config("atlas")
    config.data.modalities = ("text",)
    config.model.width, config.model.experts, config.negatives.pool = 64, 2, 256
    # No step may have a jump: of the weight of a negative on a class's bound, or of the pool at its last place.
    # There a rounding, which is each processor's own, would move a loss by 1e-4. That classes and pools are the same on
    # several devices is for test_entropy.py and test_candidates.py to say.
    config.negatives.class_weights, config.negatives.many = (1.0, 1.0, 1.0), 0
    config.negatives.sampling = "uniform"
    dataset = builders.load_dataset(config)
    mapper = Mapper("pmap", 1)
    training = training_on(config, dataset, mapper, False)
    state, _ = training.program(training.plan.create(), training.data, mapper.place(np.int32(WARM), WHOLE))
    warm = jax.device_get(mapper.whole_tables(state, training.plan.spec))
    return config, dataset, warm, losses(training, warm)


def training_on(config, dataset, mapper, split):
    config.parallel.shard_entities = split
    return builders.build_training(config, builders.build_model(config, dataset.graph), dataset.graph, mapper)


def losses(training, start):
    """Of each step, and the table afterwards."""
    mapper, found = training.mapper, []
    state, one = mapper.place(start, training.plan.spec), mapper.place(np.int32(1), WHOLE)
    for _ in range(STEPS):
        state, metrics = training.program(state, training.data, one)
        found.append(float(metrics["loss/total"]))
    return np.array(found), np.asarray(mapper.whole_tables(state, training.plan.spec).params.structure)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "count", "split"), [("pmap", 2, False), ("shard_map", 8, True)])
def test_fifty_steps_have_the_losses_of_one_device(prepared, kind, count, split):
    config, dataset, warm, (expected, table) = prepared
    found, other = losses(training_on(config, dataset, Mapper(kind, count), split), warm)
    # At the start, each of the three experts and the fit of their weights has the log of all candidates.
    assert expected[-1] < 0.8 * 4 * 7.2, "still at its start"
    # A rounding grows from step to step.
    np.testing.assert_allclose(found[:40], expected[:40], rtol=1e-5)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    # Of the table as a whole: an entity's first update is the sign of a gradient, which may be a rounding error.
    apart = np.linalg.norm(other[: len(table)] - table) / np.linalg.norm(table)
    assert apart < 1e-4
    assert not np.array_equal(found, expected[::-1])
