"""Where a run begins again, whatever is wrong with its checkpoints: by content, with a line for each not used."""

import functools
import json
import shutil

import jax
import numpy as np
import pytest
from command_runner import contents
from tiny_model import tiny_model

from mocme_jax.config_fields import FIELDS
from mocme_jax.errors import UserError
from mocme_jax.parallel.mesh import Mapper
from mocme_jax.training.checkpoints.orbax_store import open_checkpoints
from mocme_jax.training.checkpoints.run_position import Position, identity_of
from mocme_jax.training.checkpoints.sealed_checkpoints import Saves, opened, sealed
from mocme_jax.training.lanes import resume
from mocme_jax.training.optimizers import create_optimizers
from mocme_jax.training.train_state import plan_train_state

ENTITIES = 12
MAPPER = Mapper("pmap", 1)
CONFIG = {"seed": 0, "model": {"width": 8}, "train": {"epochs": 5}, "parallel": {"devices": 0}}
PARTS = {"names of entities": "a", "train triples": "b", "modality text": "c"}
IDENTITY = identity_of(CONFIG, PARTS, "f")


@functools.cache
def plan():
    sizes = dict(entities=ENTITIES, mapper=MAPPER, split=False, seeds=[1])
    kept = dict(averages=False, guided=False, metrics=("loss",))
    return plan_train_state(tiny_model(widths=()), create_optimizers(0.1, 0.1), **sizes, **kept)


def state_of(step: int):
    """A state that tells which step it is of."""
    state = plan().create()
    state = state._replace(params=jax.tree.map(lambda x: x + step, state.params), step=state.step + step)
    return MAPPER.whole_tables(state, plan().spec)


def position_of(step: int, best: int | None = None, evaluated: bool = True) -> Position:
    best = step if best is None else best
    return Position(step=step, epoch=step, evaluated=evaluated, best_epoch=best, best_step=best, best_mrr=best / 100)


def save(folder, last=(), best=(), identity=IDENTITY):
    with open_checkpoints(folder) as checkpoints:
        saves = Saves(checkpoints, identity, ENTITIES, pytest.fail)
        for position in best:
            saves.save("best", position, state_of(position.step).evaluated)
        for position in last:
            saves.save("last", position, state_of(position.step))


def go_on(folder, identity=IDENTITY, more=None):
    """The step, the position, the lines, and which checkpoints are left, after one more save."""
    lines = []
    with open_checkpoints(folder) as checkpoints:
        saves = Saves(checkpoints, identity, ENTITIES, lines.append)
        state, position = resume(saves, plan(), MAPPER, folder)
        expected = plan().create() if not position.step else MAPPER.place(state_of(position.step), plan().spec)
        for x, y in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True):
            np.testing.assert_array_equal(x, y)
        if more is not None:
            saves.save("last", more, state_of(more.step))
        checkpoints.wait()
        kept = {which: checkpoints.numbers(which) for which in ("last", "best")}
    return position, lines, kept


def damage(folder, which, number):
    """Flips a bit in the arrays' data: of the whole save, since its parts hold what nothing refers to any more."""
    data = max((folder / which / str(number) / "state" / "d").iterdir(), key=lambda path: path.stat().st_size)
    data.write_bytes(flipped(data.read_bytes(), data.stat().st_size // 2))


def flipped(data: bytes, place: int) -> bytes:
    changed = bytearray(data)
    changed[place] ^= 1 << place % 8
    return bytes(changed)


def test_a_new_run_begins_anew_and_a_saved_one_where_it_was(tmp_path):
    position, lines, kept = go_on(tmp_path / "new")
    assert (position, lines, kept) == (Position(), [], {"last": [], "best": []})
    save(tmp_path / "old", last=[position_of(2), position_of(3, best=2)], best=[position_of(2)])
    position, lines, kept = go_on(tmp_path / "old")
    assert position == position_of(3, best=2)
    assert kept == {"last": [5, 7], "best": [5]}
    assert lines == []


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A run with a checkpoint of step 2 and one of step 3."""
    folder = tmp_path_factory.mktemp("two")
    save(folder, last=[position_of(2), position_of(3, best=2)], best=[position_of(2)])
    return folder


@pytest.mark.slow
def test_any_damage_is_found_and_costs_one_checkpoint(two, tmp_path):
    """A bit in the middle or at the end of every file, half of it, all of it.

    What is read is what was saved, or the checkpoint before; nothing on the disk is touched.
    """
    files = [path.relative_to(two) for path in sorted((two / "last" / "7").rglob("*")) if path.is_file()]
    assert len(files) > 8
    found = {"used": 0, "damaged": 0}
    for name in files:
        data = (two / name).read_bytes()
        if not data:
            continue
        for kind, changed in {
            "middle": flipped(data, len(data) // 2),
            "end": flipped(data, len(data) - 1),
            "half": data[: len(data) // 2],
            "gone": None,
        }.items():
            folder = tmp_path / "run"
            shutil.copytree(two, folder)
            (folder / name).unlink() if changed is None else (folder / name).write_bytes(changed)
            before, lines = contents(folder), []
            with open_checkpoints(folder, create=False) as checkpoints:
                saved = Saves(checkpoints, None, ENTITIES, lines.append).newest("last", plan().shapes)
            assert contents(folder) == before
            step = saved.meta["position"]["step"]
            for x, y in zip(jax.tree.leaves(saved.arrays), jax.tree.leaves(state_of(step)), strict=True):
                np.testing.assert_array_equal(x, y)
            assert len(lines) == (step == 2), (name, kind, lines)
            for line in lines:
                assert line.startswith(f"{folder / 'last' / '7'}: is damaged (")
                assert "\n" not in line
            found["damaged" if lines else "used"] += 1
            shutil.rmtree(folder)
    # Some files hold nothing that is read, such as times; others are there twice.
    assert min(found.values()) > 15, found


def test_a_bit_that_only_the_checksum_sees(two, tmp_path, monkeypatch):
    """The storage checks itself, so the damage is done behind it."""
    from mocme_jax.training.checkpoints import orbax_store as module

    restore = module.Checkpoints.restore

    def damaged(self, which, number, target, table=None):
        state = restore(self, which, number, target, table)
        if number != 7:
            return state
        words = np.asarray(state.params.structure).view(np.uint32).copy()
        words[3, 2] ^= 1
        structure = jax.device_put(words.view(np.float32), state.params.structure.sharding)
        return state._replace(params=state.params._replace(structure=structure))

    monkeypatch.setattr(module.Checkpoints, "restore", damaged)
    shutil.copytree(two, tmp_path / "run")
    position, lines, _ = go_on(tmp_path / "run")
    assert position.step == 2
    assert "params/structure has a different checksum than when it was saved" in lines[0]


def test_meta_that_was_changed_is_no_meta(two, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(two, folder)
    path = folder / "last" / "7" / "meta" / "metadata"
    meta = json.loads(path.read_text())
    meta["content"]["position"]["best_mrr"] = 0.9
    path.write_text(json.dumps(meta))
    position, lines, _ = go_on(folder)
    assert position.step == 2
    assert "meta has a different digest" in lines[0]
    assert opened(sealed({"a": (1, 2.5, None)})) == {"a": (1, 2.5, None)}


def test_what_is_damaged_is_replaced_by_the_run_that_goes_on(tmp_path):
    save(tmp_path, last=[position_of(2), position_of(3, best=2)], best=[position_of(2)])
    damage(tmp_path, "last", 7)
    position, lines, kept = go_on(tmp_path, more=position_of(3, best=2))
    assert position.step == 2
    assert ": is damaged (" in lines[0]
    assert kept == {"last": [5, 7], "best": [5]}
    assert go_on(tmp_path)[0].step == 3


def test_nothing_is_changed_where_all_are_damaged(tmp_path):
    save(tmp_path, last=[position_of(2), position_of(3, best=2)], best=[position_of(2)])
    damage(tmp_path, "last", 7)
    damage(tmp_path, "last", 5)
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"last/5: is damaged \(.*\), and no earlier one exists") as raised:
        go_on(tmp_path)
    assert "\n" not in str(raised.value)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_the_best_is_made_anew_from_the_state_that_it_is_of(how, tmp_path):
    """As when a kill came between the two saves."""
    save(tmp_path, last=[position_of(3)], best=[position_of(2), position_of(3)])
    if how == "missing":
        shutil.rmtree(tmp_path / "best" / "7")
    else:
        damage(tmp_path, "best", 7)
    position, _, kept = go_on(tmp_path)
    assert position == position_of(3)
    assert kept["best"] == [5, 7]
    with open_checkpoints(tmp_path) as checkpoints:
        best = Saves(checkpoints, None, ENTITIES, pytest.fail).newest("best", plan().shapes.params)
    np.testing.assert_array_equal(best.arrays.structure, state_of(3).params.structure)


def test_a_best_that_is_lost_is_not_pretended(tmp_path):
    save(tmp_path, last=[position_of(4, best=3)], best=[position_of(2), position_of(3)])
    damage(tmp_path, "best", 7)
    position, lines, kept = go_on(tmp_path)
    assert (position.step, position.best_step, position.best_mrr) == (4, 2, 0.02)
    assert kept["best"] == [5]
    assert "best/7: is damaged" in lines[0]
    assert "the best remaining checkpoint is from epoch 2" in lines[1]
    damage(tmp_path, "best", 5)
    position, lines, kept = go_on(tmp_path)
    assert (position.best_step, position.best_mrr) == (0, -1.0)
    assert kept["best"] == []


@pytest.mark.parametrize("last", [[position_of(2), position_of(3, best=2, evaluated=False)], []], ids=["old", "none"])
def test_a_best_after_the_position_is_forgotten(last, tmp_path):
    """A kill came after it was saved, and before the state was."""
    save(tmp_path, last=last, best=[position_of(2), position_of(3)])
    position, _, kept = go_on(tmp_path)
    assert kept["best"] == ([5] if last else [])
    assert position.best_step == (2 if last else 0)


def test_a_step_is_saved_before_and_after_its_evaluation(tmp_path):
    save(tmp_path, last=[position_of(3, best=2, evaluated=False)], best=[position_of(2)])
    position, _, kept = go_on(tmp_path, more=position_of(3, best=2))
    assert not position.evaluated
    assert kept["last"] == [6, 7]
    assert go_on(tmp_path)[0].evaluated


def test_what_is_not_finite_is_not_saved(tmp_path):
    save(tmp_path, last=[position_of(2)], best=[position_of(2)])
    with open_checkpoints(tmp_path) as checkpoints:
        state = state_of(3)
        state = state._replace(params=state.params._replace(structure=state.params.structure.at[3, 1].set(np.nan)))
        with pytest.raises(FloatingPointError, match="step 3"):
            Saves(checkpoints, IDENTITY, ENTITIES, pytest.fail).save("last", position_of(3), state)
    assert go_on(tmp_path)[0].step == 2


OTHERS = {
    "names of entities differs": dict(parts=PARTS | {"names of entities": "x"}),
    "train triples, modality text differ": dict(parts=PARTS | {"train triples": "x", "modality text": "y"}),
    "modality text, modality image differ": dict(
        parts={k: v for k, v in PARTS.items() if k != "modality text"} | {"modality image": "d"}
    ),
    "config differs in seed (0 there, 7 now), model.width (8 there, 16 now)": dict(
        config=CONFIG | {"seed": 7, "model": {"width": 16}}
    ),
}


@pytest.mark.parametrize("left", ["last", "best"])
@pytest.mark.parametrize("words", OTHERS)
def test_another_run_is_refused_with_what_differs(words, left, two, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(two, folder)
    if left == "best":
        shutil.rmtree(folder / "last")
        (folder / "last").mkdir()
    before = contents(folder)
    changed = dict(config=CONFIG, parts=PARTS, fingerprint="f") | OTHERS[words]
    with pytest.raises(UserError) as raised:
        go_on(folder, identity_of(**changed))
    assert words in str(raised.value)
    assert "--workdir" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert contents(folder) == before


@pytest.mark.parametrize(("value", "goes_on"), [(FIELDS["train.table_learning_rate"].default, True), (7, False)])
def test_a_field_that_a_run_does_not_have_yet_is_at_its_default(value, goes_on, two, tmp_path):
    shutil.copytree(two, tmp_path / "run")
    now = identity_of(CONFIG | {"train": {"epochs": 5, "table_learning_rate": value}}, PARTS, "f")
    if goes_on:
        assert go_on(tmp_path / "run", now)[0].step == 3
    else:
        with pytest.raises(UserError, match=r"config differs in train\.table_learning_rate"):
            go_on(tmp_path / "run", now)


def test_how_long_and_where_may_change_and_other_versions_are_told(two, tmp_path):
    free = CONFIG | {"train": {"epochs": 9}, "parallel": {"devices": 4}}
    shutil.copytree(two, tmp_path / "run")
    assert go_on(tmp_path / "run", identity_of(free, PARTS, "f"))[0].step == 3
    save(tmp_path / "old", last=[position_of(2)], identity=IDENTITY | {"format": 1, "version": "0.1"})
    with pytest.raises(
        UserError, match=r"contains a run of mocme_jax 0\.1 in format 1, but this version .* reads format 6"
    ):
        go_on(tmp_path / "old")
