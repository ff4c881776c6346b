"""Checkpoints of strangers: what is no file is not opened, and what they say of themselves is checked before use."""

import copy
import json
import os
import re
import shutil
import socket

import jax
import jax.numpy as jnp
import pytest
from command_runner import contents

from mocme_jax.errors import UserError
from mocme_jax.training.checkpoints import checkpoint_files
from mocme_jax.training.checkpoints.checkpoint_files import Unreadable
from mocme_jax.training.checkpoints.orbax_store import open_checkpoints
from mocme_jax.training.checkpoints.run_position import Position, identity_of
from mocme_jax.training.checkpoints.sealed_checkpoints import Saves, checked, digest_of, opened

STATE = {"structure": jnp.arange(12.0).reshape(4, 3), "scale": jnp.ones(2)}
SHAPES = jax.eval_shape(lambda: STATE)
CONFIG = {"seed": 0, "model": {"width": 8, "score": "complex", "class_weights": [0.5, 1.0]}, "data": {"dir": None}}
IDENTITY = identity_of(CONFIG, {"train triples": "b"}, "f") | {"places": {"data.dir": "/graph"}}
POSITION = Position(step=4, epoch=2, evaluated=True, best_epoch=1, best_step=2, best_mrr=0.5, minutes=3.0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder of two checkpoints of last/."""
    folder = tmp_path_factory.mktemp("whole")
    with open_checkpoints(folder) as checkpoints:
        saves = Saves(checkpoints, IDENTITY, None, pytest.fail)
        for step in (3, 4):
            saves.save("last", Position(step=step, epoch=2), STATE)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    """A copy of it, to be changed."""
    return shutil.copytree(whole, tmp_path / "run")


def newest(folder, lines, target=SHAPES):
    with open_checkpoints(folder, create=False) as checkpoints:
        return Saves(checkpoints, None, None, lines.append).newest("last", target)


def bind(path):
    # A socket's name has at most 108 bytes.
    here = os.getcwd()
    os.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path.name)
    os.chdir(here)


KINDS = {
    "a pipe": os.mkfifo,
    "a pipe, a socket": bind,
    "a link": lambda path: path.symlink_to("/dev/zero"),
    "68,719,476,736 bytes": lambda path: (path.touch(), os.truncate(path, 64 << 30)),
}
PARTS = ("meta/metadata", "_CHECKPOINT_METADATA", "state/_METADATA", "state/_sharding", "state/manifest.ocdbt")


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize("part", [*PARTS, "state/ocdbt.process_0/more", "more/more"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_of_a_checkpoint_is_not_opened(kind, part, create, folder):
    place = folder / "last" / "8" / part
    place.parent.mkdir(exist_ok=True)
    place.unlink(missing_ok=True)
    KINDS[kind](place)
    before = sorted(folder.rglob("*"))
    with pytest.raises(
        UserError, match=rf"{re.escape(str(place))}: expected .*found {kind}.*delete .*/last/8 to use"
    ) as raised:
        open_checkpoints(folder, create=create)
    assert "\n" not in str(raised.value)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("name", ["a pipe", "a link"])
def test_a_folder_of_checkpoints_is_a_folder(name, folder, tmp_path):
    shutil.rmtree(folder / "last")
    KINDS[name](folder / "last")
    with pytest.raises(UserError, match=f"{folder / 'last'}: is (a link|not a folder)"):
        open_checkpoints(folder, create=False)


@pytest.mark.parametrize("limit", ["MOST_FILES", "DEEPEST"])
def test_no_more_files_are_looked_at_than_a_run_makes(limit, folder, monkeypatch):
    monkeypatch.setattr(checkpoint_files, limit, 4)
    with pytest.raises(UserError, match=r"one of more than .* files, or deeper than"):
        open_checkpoints(folder, create=False)


def test_links_to_the_folder_itself_are_the_users_own(folder, tmp_path):
    (tmp_path / "linked").symlink_to(folder)
    assert newest(tmp_path / "linked", []).number == 8


def test_arrays_files_of_another_size_cost_a_line(folder):
    """Longer than the arrays of the config, or so short that a few bytes stand for gigabytes."""
    path = next((folder / "last" / "8" / "state" / "d").iterdir())
    os.truncate(path, 1 << 40)
    lines = []
    assert newest(folder, lines).number == 6
    assert re.search(r"last/8: is damaged \(its files contain 1,099,5\d\d,\d{3},\d{3} bytes, but the arrays", lines[0])


def test_a_claim_without_bytes_is_not_believed(tmp_path):
    state = {"structure": jnp.zeros(1 << 25)}
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save("last", 1, state, {})
        checkpoints.wait()
        with pytest.raises(Unreadable, match=r"its files contain [\d,]{5,7} bytes, but .* take 134,217,728"):
            checkpoints.restore("last", 1, jax.eval_shape(lambda: state))


def test_an_array_in_pieces_larger_than_itself_is_not_read(folder):
    tensorstore = pytest.importorskip("tensorstore")
    base = f"file://{folder}/last/8/state/"
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()
    stored = json.loads(store["structure/.zarray"])
    store["structure/.zarray"] = json.dumps(stored | {"chunks": [1 << 40, 3]}).encode()
    lines = []
    assert newest(folder, lines).number == 6
    assert "structure is [4, 3] in chunks of [1099511627776, 3]" in lines[0]


def sound():
    return json.loads(json.dumps(IDENTITY | {"position": vars(POSITION), "lanes": None, "checksums": {"scale": 7}}))


def test_a_sound_meta_is_as_it_was():
    assert checked(sound(), POSITION.number) == sound()
    lanes = sound() | {"lanes": [vars(POSITION), vars(Position())]}
    assert checked(lanes, POSITION.number) == lanes


WRONG = {
    "config": [None, [], "a", {"model": [[1]]}, {"model": {"width": {}}}, {"seed": float("nan")}, {"a": {"b": "\0"}}],
    "parts": [None, [], {"train triples": 7}, {"train triples": "x" * 5000}],
    "fingerprint": [None, 7, ["f"]],
    "version": [{}, 3],
    "places": [[], {"data.dir": 7}, {"data.dir": "/a\0b"}],
    "checksums": [None, [], {"scale": "7"}, {"scale": -1}, {"scale": 1 << 32}, {"scale": True}],
    "lanes": [{}, "a", [{}], [1]],
    "position": [
        None,
        [],
        {},
        *(
            vars(POSITION) | change
            for change in (
                {"odd": 1},
                {"step": "4"},
                {"step": 5},
                {"step": -4},
                {"step": 1 << 40},
                {"epoch": 1.5},
                {"epoch": -1},
                {"evaluated": 1},
                {"best_step": 5},
                {"best_epoch": 3},
                {"best_mrr": float("nan")},
                {"best_mrr": 1.5},
                {"best_mrr": "0.5"},
                {"minutes": float("inf")},
                {"minutes": -1.0},
                {"stale": True},
                {"diverged": 9},
            )
        ),
    ],
}


@pytest.mark.parametrize(("part", "value"), [(part, value) for part, values in WRONG.items() for value in values])
def test_a_meta_with_a_part_that_no_run_saves_is_unreadable(part, value):
    with pytest.raises(Unreadable, match=f"its meta is not valid: .*{part}"):
        checked(sound() | {part: value}, POSITION.number)


@pytest.mark.parametrize("meta", [[], None, "a", 7])
def test_a_meta_is_a_mapping(meta):
    with pytest.raises(Unreadable, match="expected a mapping"):
        checked(meta, 9)


def test_of_another_format_no_more_is_read_than_which():
    meta = sound() | {"format": ["x" * 99], "version": {"a": "b" * 99}, "config": 7}
    assert checked(meta, 9) == {"format": "['" + "x" * 38, "version": "{'a': '" + "b" * 33}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_meta_that_json_can_not_hold_is_unreadable(value):
    with pytest.raises(Unreadable, match="a different digest"):
        opened({"content": {"a": value}, "digest": digest_of({})})


def test_a_meta_without_a_seal_is_not_of_this_format():
    with pytest.raises(Unreadable, match="a different digest"):
        opened(sound())
    assert opened(sound() | {"format": 3})["format"] == 3


def test_arrays_of_another_format_are_not_read(folder):
    path = folder / "last" / "8" / "meta" / "metadata"
    content = json.loads(path.read_text())["content"] | {"format": 5}
    path.write_text(json.dumps({"content": content, "digest": digest_of(content)}))
    lines = []
    assert newest(folder, lines).number == 6
    assert "it is of format 5, and this version reads format 6" in lines[0]


def test_a_forged_meta_costs_a_line_and_nothing_is_changed(folder):
    path = folder / "last" / "8" / "meta" / "metadata"
    content = copy.deepcopy(json.loads(path.read_text())["content"])
    content["position"]["epoch"] = -1
    path.write_text(json.dumps({"content": content, "digest": digest_of(content)}))
    before, lines = contents(folder), []
    assert newest(folder, lines).number == 6
    assert "last/8: is damaged (its meta is not valid: position is not possible); the previous one" in lines[0]
    assert contents(folder) == before
