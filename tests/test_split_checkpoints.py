"""A state saved on some devices, whole or split, is the same state on others."""

import itertools

import jax
import numpy as np
import pytest
from tiny_model import tiny_model

from mocme_jax.errors import UserError
from mocme_jax.parallel.mapping import Mapper
from mocme_jax.training.checkpoints import open_checkpoints
from mocme_jax.training.optimizers import create_optimizers
from mocme_jax.training.results import restore_placed
from mocme_jax.training.state import plan_train_state

# Eight does not divide them, and neither does one.
ENTITIES = 21
PLACES = [("pmap", 1, False), ("pmap", 8, True), ("shard_map", 8, True), ("pmap", 4, True), ("shard_map", 1, True)]
PLACES += [("none", 1, True), ("pmap", 2, False)]


def plan(kind, count, split, seed, entities=ENTITIES):
    mapper = Mapper(kind, count)
    model = tiny_model(widths=(5,))
    sizes = dict(entities=entities, averages=True, mapper=mapper, split=split, seed=seed)
    return mapper, plan_train_state(model, create_optimizers(0.1, 0.1), **sizes)


def whole(mapper, spec, state):
    """The state on the host, without the rows that fill tables up."""
    state = jax.device_get(mapper.whole_tables(state, spec))
    return jax.tree.map(lambda x: x[:ENTITIES] if x.ndim > 1 and len(x) >= ENTITIES else x, state)


@pytest.mark.parametrize("saved,restored", list(itertools.permutations(PLACES, 2))[::7])
def test_saved_here_restored_there(saved, restored, tmp_path):
    mapper, first = plan(*saved, seed=3)
    state = first.create()
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save_last(1, mapper.whole_tables(state, first.spec), {})
        checkpoints.wait()
        other, second = plan(*restored, seed=9)
        again = restore_placed(checkpoints, "last", second.shapes, second.spec, other, ENTITIES)
    expected, got = whole(mapper, first.spec, state), whole(other, second.spec, again)
    assert jax.tree.structure(expected) == jax.tree.structure(got)
    for x, y in zip(jax.tree.leaves(expected), jax.tree.leaves(got), strict=True):
        np.testing.assert_array_equal(x, y)
    fresh = second.create()
    shapes = [(x.shape, x.sharding) for x in jax.tree.leaves(fresh)]
    assert shapes == [(x.shape, x.sharding) for x in jax.tree.leaves(again)], "as the programs take it"


def test_the_first_state_does_not_depend_on_where_it_is_made():
    states = [whole(mapper, made.spec, made.create()) for mapper, made in (plan(*place, seed=5) for place in PLACES)]
    for state in states[1:]:
        for x, y in zip(jax.tree.leaves(states[0]), jax.tree.leaves(state), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-8)


def test_a_table_of_fewer_entities_is_another_model(tmp_path):
    mapper, small = plan("pmap", 1, False, 0, entities=12)
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save_last(1, mapper.whole_tables(small.create(), small.spec), {})
        checkpoints.wait()
        other, large = plan("pmap", 8, True, 0)
        with pytest.raises(UserError, match=r"structure is float32\[12, 8\] in it and float32\[24, 8\]"):
            restore_placed(checkpoints, "last", large.shapes, large.spec, other, ENTITIES)
