"""Checkpoints: what is saved comes back, and what does not fit is said in one line."""

import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mocme_jax.errors import UserError
from mocme_jax.training.checkpoints import orbax_store
from mocme_jax.training.checkpoints.checkpoint_files import Unreadable
from mocme_jax.training.checkpoints.orbax_store import first_difference, open_checkpoints

OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))


def make_state(seed, width=4):
    key = jax.random.key(seed)
    params = {"table": jax.random.normal(key, (3, width)), "layers": [jnp.full(2, seed), jnp.ones((2, 1))]}
    return {
        "params": params,
        "opt_state": OPTIMIZER.init(params),
        "step": jnp.int32(seed),
        "key": jax.random.key_data(key),
    }


def shapes(state):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state)


def assert_same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    jax.tree.map(np.testing.assert_array_equal, left, right)


def test_last_and_best_come_back_as_they_were_and_two_of_each_stay(tmp_path):
    with open_checkpoints(tmp_path) as checkpoints:
        assert checkpoints.numbers("last") == []
        for number in (1, 2, 3):
            checkpoints.save("last", number, make_state(number), {"epoch": number, "best": None})
        checkpoints.save("best", 2, make_state(2), {"epoch": 2, "config": {"width": [4]}})
    with open_checkpoints(tmp_path, create=False) as checkpoints:
        assert checkpoints.numbers("last") == [2, 3]
        assert checkpoints.numbers("best") == [2]
        assert checkpoints.read_meta("best", 2) == {"epoch": 2, "config": {"width": [4]}}
        for which, number in (("last", 3), ("last", 2), ("best", 2)):
            assert_same(checkpoints.restore(which, number, shapes(make_state(0))), make_state(number))
            assert checkpoints.read_meta(which, number)["epoch"] == number
    kept = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("*/*"))
    assert kept == ["best/2", "last/2", "last/3"]


def test_relative_folders_are_taken_from_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open_checkpoints("runs/one") as checkpoints:
        checkpoints.save("last", 1, make_state(1), {})
    assert (tmp_path / "runs/one/last/1").is_dir()


def test_a_state_may_be_donated_while_it_is_saved(tmp_path):
    advance = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + leaf, state), donate_argnums=0)
    state = {"table": jnp.arange(200_000.0)}
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save("last", 1, state, {})
        advance(state)
        checkpoints.wait()
        restored = checkpoints.restore("last", 1, {"table": jnp.zeros(200_000)})
    np.testing.assert_array_equal(restored["table"], np.arange(200_000.0))


def test_later_ones_are_deleted_before_they_are_made_again(tmp_path):
    """Damaged or not; what was cut off by a kill is removed."""
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save("last", 4, make_state(1), {"try": 1})
        checkpoints.save("last", 5, make_state(1), {"try": 1})
    (tmp_path / "last" / "6.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    for path in (tmp_path / "last" / "5").rglob("*"):
        path.is_dir() or path.write_bytes(b"")
    with open_checkpoints(tmp_path) as checkpoints:
        assert checkpoints.numbers("last") == [4, 5]
        checkpoints.delete("last", 5)
        checkpoints.save("last", 5, make_state(2), {"try": 2})
        assert checkpoints.numbers("last") == [4, 5]
        assert_same(checkpoints.restore("last", 5, shapes(make_state(0))), make_state(2))
    assert sorted(path.name for path in (tmp_path / "last").iterdir()) == ["4", "5"]


def test_another_model_is_told_in_one_line(tmp_path):
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save("last", 1, make_state(1), {})
        checkpoints.wait()
        message = r"params/table is float32\[3, 4\] in it and float32\[3, 6\]"
        target = make_state(0)
        target["params"]["table"] = jnp.zeros((3, 6))
        with pytest.raises(Unreadable, match=message) as raised:
            checkpoints.restore("last", 1, target)
        assert "\n" not in str(raised.value)
        with pytest.raises(Unreadable, match="it has no extra"):
            checkpoints.restore("last", 1, make_state(0) | {"extra": jnp.zeros(1)})
        with pytest.raises(Unreadable, match="it has key, which the model lacks"):
            checkpoints.restore("last", 1, {k: v for k, v in make_state(0).items() if k != "key"})


def test_a_number_type_is_compared_too():
    assert first_difference({"a": jnp.zeros(2)}, {"a": jnp.zeros(2)}) is None
    assert "int32" in first_difference({"a": jnp.zeros(2)}, {"a": jnp.zeros(2, jnp.int32)})


def test_only_the_named_table_may_differ_in_its_rows():
    """An array of another kind, though it has as many rows, is another model's."""
    saved = {"structure": jnp.zeros((24, 3)), "project": jnp.zeros((30, 3))}
    more = {"structure": jnp.zeros((32, 3)), "project": jnp.zeros((30, 3))}
    assert "structure is" in first_difference(saved, more)
    assert first_difference(saved, more, ("structure", 21)) is None
    assert "structure is" in first_difference(saved, more, ("structure", 25))
    wider = more | {"project": jnp.zeros((40, 3))}
    assert "project is float32[30, 3] in it" in first_difference(saved, wider, ("structure", 21))
    assert "structure is" in first_difference(saved, more | {"structure": jnp.zeros((32, 4))}, ("structure", 21))


def test_missing_checkpoints_are_named_and_nothing_is_made(tmp_path):
    with pytest.raises(UserError, match="contains no checkpoint"):
        open_checkpoints(tmp_path / "none", create=False)
    assert not (tmp_path / "none").exists()
    with open_checkpoints(tmp_path / "run") as checkpoints:
        checkpoints.save("last", 1, make_state(1), {})
    with open_checkpoints(tmp_path / "run", create=False) as checkpoints:
        assert checkpoints.numbers("best") == []
        with pytest.raises(ValueError, match="reading only"):
            checkpoints.save("best", 1, make_state(1), {})
    assert not (tmp_path / "run" / "best").exists()


@pytest.mark.parametrize(
    ("file", "told"), [("/lib/orbax/checkpoint/read.py", []), ("/lib/other/read.py", ["given up"])]
)
def test_only_orbax_s_abandoned_reads_say_nothing(file, told, monkeypatch):
    """They complain when they are collected, which is after the one line about a damaged checkpoint, or never."""
    heard = []
    monkeypatch.setattr(sys, "unraisablehook", lambda one: heard.append(str(one.exc_value)))
    orbax_store._silence.__wrapped__()
    names = {"wait": types.coroutine(lambda: (yield))}
    text = "async def read():\n  try: await wait()\n  except GeneratorExit: raise OSError('given up')\n"
    exec(compile(text, file, "exec"), names)
    reading = names["read"]()
    reading.send(None)
    del reading
    assert heard == told
