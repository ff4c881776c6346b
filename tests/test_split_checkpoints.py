"""A state saved on some devices, whole or split, is the same state on others."""

import functools

import jax
import numpy as np
import pytest
from tiny_model import tiny_model

from mocme_jax.parallel.mesh import Mapper
from mocme_jax.training.checkpoints.checkpoint_files import Unreadable
from mocme_jax.training.checkpoints.orbax_store import open_checkpoints
from mocme_jax.training.checkpoints.run_position import Position, identity_of
from mocme_jax.training.checkpoints.sealed_checkpoints import Saves
from mocme_jax.training.optimizers import create_optimizers
from mocme_jax.training.train_state import plan_train_state

pytestmark = pytest.mark.slow
# Eight does not divide them, and neither does one.
ENTITIES = 21
# Whole and split on 1, 2 and 8 devices, by all three mappers.
PLACES = [("pmap", 1, False), ("shard_map", 2, False), ("pmap", 8, False)]
PLACES += [("none", 1, True), ("pmap", 2, True), ("shard_map", 8, True)]


@functools.cache
def plan(kind, count, split, seed, entities=ENTITIES):
    mapper = Mapper(kind, count)
    model = tiny_model(widths=(5,))
    sizes = dict(entities=entities, mapper=mapper, split=split, seeds=[seed])
    kept = dict(averages=True, guided=True, metrics=("loss",))
    return mapper, plan_train_state(model, create_optimizers(0.1, 0.1), **sizes, **kept)


def whole(mapper, spec, state):
    """The state on the host, without the rows that fill tables up."""
    state = jax.device_get(mapper.whole_tables(state, spec))
    return jax.tree.map(lambda x: x[:ENTITIES] if x.ndim > 1 and len(x) >= ENTITIES else x, state)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders of a state saved in each place, and the state on the host."""
    found = {}
    for place in PLACES:
        folder = tmp_path_factory.mktemp("saved")
        mapper, made = plan(*place, seed=3)
        state = made.create()
        with open_checkpoints(folder) as checkpoints:
            saves = Saves(checkpoints, identity_of({}, {}, "f"), ENTITIES, pytest.fail)
            saves.save("last", Position(step=1), mapper.whole_tables(state, made.spec))
        found[place] = folder, whole(mapper, made.spec, state)
    return found


# From every place to three others, and back.
PAIRS = [(here, PLACES[(i + step) % len(PLACES)]) for i, here in enumerate(PLACES) for step in (1, 3, 5)]


@pytest.mark.parametrize(("here", "there"), PAIRS, ids=str)
def test_saved_here_restored_there(here, there, saved):
    """Every array bit for bit, by its checksums too, and laid out as the programs take it."""
    folder, expected = saved[here]
    mapper, made = plan(*there, seed=9)
    with open_checkpoints(folder, create=False) as checkpoints:
        found = Saves(checkpoints, None, ENTITIES, pytest.fail).newest("last", made.shapes)
    again = mapper.place(found.arrays, made.spec)
    got = whole(mapper, made.spec, again)
    assert jax.tree.structure(expected) == jax.tree.structure(got)
    for x, y in zip(jax.tree.leaves(expected), jax.tree.leaves(got), strict=True):
        np.testing.assert_array_equal(x, y)
    shapes = [(x.shape, x.sharding) for x in jax.tree.leaves(first_state(*there))]
    assert shapes == [(x.shape, x.sharding) for x in jax.tree.leaves(again)], "as the programs take it"


@functools.cache
def first_state(*place):
    return plan(*place, seed=9)[1].create()


def test_the_first_state_does_not_depend_on_where_it_is_made(saved):
    first, *others = (state for _, state in saved.values())
    for state in others:
        for x, y in zip(jax.tree.leaves(first), jax.tree.leaves(state), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-8)


def test_a_table_of_fewer_entities_is_another_model(tmp_path):
    mapper, small = plan("pmap", 1, False, 0, entities=12)
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save("last", 1, mapper.whole_tables(small.create(), small.spec), {})
        checkpoints.wait()
        _, large = plan("pmap", 8, True, 0)
        with pytest.raises(Unreadable, match=r"structure is float32\[12, 16\] in it and float32\[24, 16\]"):
            checkpoints.restore("last", 1, large.shapes, ("structure", ENTITIES))
