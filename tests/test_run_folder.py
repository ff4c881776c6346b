"""A run's folder that holds what a run did not make: nothing of it is deleted or overwritten, no link followed."""

import contextlib
import json
import os
import resource
import shutil
import stat

import numpy as np
import pytest
from command_runner import assert_one_error, contents, run_here
from fuzz import bombs
from tiny_graph import tiny_flags, write_tiny_graph

from mocme_jax.additions import lending as additions_lending
from mocme_jax.additions.lending import Lending, read_lenders
from mocme_jax.data.whole_files import write_atomically
from mocme_jax.errors import UserError
from mocme_jax.serving.answer_files import RowFile
from mocme_jax.serving.calibration import read_calibration, write_calibration
from mocme_jax.training.checkpoints.orbax_store import open_checkpoints
from mocme_jax.training.checkpoints.run_folder import locked, write_whole
from mocme_jax.training.checkpoints.sealed_checkpoints import digest_of
from mocme_jax.training.logs.metrics_log import MetricsLog


@pytest.fixture
def theirs(tmp_path):
    """A folder of somebody's: years of photos, and a note."""
    folder = tmp_path / "theirs"
    for year in ("2019", "2020", "2021"):
        (folder / year).mkdir(parents=True)
        (folder / year / "beach.jpg").write_bytes(b"sea")
    (folder / "note.txt").write_text("mine")
    return folder


@pytest.mark.parametrize("how", ["best is a link", "last is a link", "numbers in best", "numbers in last"])
def test_what_somebody_else_put_there_is_not_deleted(how, theirs, tmp_path, monkeypatch, capsys):
    run, name = tmp_path / "run", how.split()[-1] if how.startswith("numbers") else how.split()[0]
    run.mkdir()
    if how.startswith("numbers"):
        shutil.copytree(theirs, run / name)
    else:
        (run / name).symlink_to(theirs)
    before = contents(tmp_path)
    graph = write_tiny_graph(tmp_path / "graph")
    status = run_here("train", *tiny_flags(graph, run, train__epochs=2), monkeypatch=monkeypatch)
    words = ("is not a checkpoint of this program", "2019") if how.startswith("numbers") else ("is a link",)
    assert_one_error(status, capsys.readouterr().err, name, *words)
    after = contents(tmp_path)
    assert {path: after[path] for path in before} == before


def test_a_checkpoint_that_lacks_parts_is_still_the_runs_own(tmp_path):
    for part in ("meta", "state"):
        (tmp_path / "last" / "7" / part).mkdir(parents=True)
    shutil.rmtree(tmp_path / "last" / "7" / "meta")
    with open_checkpoints(tmp_path) as checkpoints:
        assert checkpoints.numbers("last") in ([], [7])


def test_the_empty_folder_of_a_deletion_that_was_cut_off_is_in_nobodys_way(theirs, tmp_path):
    (tmp_path / "last" / "7").mkdir(parents=True)
    with open_checkpoints(tmp_path) as checkpoints:
        assert checkpoints.numbers("last") == []
    # Not where something else is in the way: then nothing changes.
    (tmp_path / "last" / "7").mkdir()
    shutil.copytree(theirs, tmp_path / "best")
    before = contents(tmp_path)
    with pytest.raises(UserError, match="is not a checkpoint"):
        open_checkpoints(tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["results.json", "metrics.jsonl", "MODEL_CARD.md"])
def test_a_link_at_a_files_place_is_replaced(name, theirs, tmp_path):
    (tmp_path / "run").mkdir()
    place = tmp_path / "run" / name
    place.symlink_to(theirs / "note.txt")
    write_whole(place, "new")
    assert (theirs / "note.txt").read_text() == "mine"
    assert (place.read_text(), place.is_symlink()) == ("new", False)
    assert stat.S_IMODE(place.stat().st_mode) == 0o666 & ~_umask()


def test_links_at_temporary_names_are_not_followed(theirs, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("results.tmp", "metrics.tmp", "results.json.tmp", ".results.json.part", "results.part"):
        (run / name).symlink_to(theirs / "note.txt")
    write_whole(run / "results.json", "new")
    with MetricsLog(run, tensorboard=False) as log:
        log.write({"epoch": 1})
    with MetricsLog(run, keep_until_step=0, tensorboard=False):
        pass
    assert (theirs / "note.txt").read_text() == "mine"


def test_a_linked_lock_or_tensorboard_is_refused(theirs, tmp_path):
    pytest.importorskip("tensorboardX")
    (tmp_path / "lock").symlink_to(theirs / "new")
    with pytest.raises(UserError, match="cannot be written"), locked(tmp_path):
        pass
    (tmp_path / "metrics.jsonl").write_text('{"test": 1}\n')
    (tmp_path / "tensorboard").symlink_to(theirs)
    with pytest.raises(UserError, match="tensorboard: is a link"):
        MetricsLog(tmp_path, keep_until_step=1)
    (tmp_path / "tensorboard").unlink()
    (tmp_path / "tensorboard").touch()
    with pytest.raises(UserError, match="tensorboard: is no folder"):
        MetricsLog(tmp_path, keep_until_step=1)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"test": 1}\n'
    assert sorted(path.name for path in theirs.iterdir()) == ["2019", "2020", "2021", "note.txt"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "a").write_text("old")

    def write(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_atomically(tmp_path / "a", write)
    assert contents(tmp_path).keys() == {"a"}
    assert (tmp_path / "a").read_text() == "old"


def test_a_new_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    done = []
    for name in ("fsync", "replace"):
        call = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *given, call=call, name=name: (done.append(name), call(*given))[1])
    write_atomically(tmp_path / "a", lambda file: file.write(b"x"))
    assert done == ["fsync", "replace", "fsync"]


ROWS = [[(number, "h", "r", "t", rank) for rank in range(2)] for number in range(1, 4)]
COLUMNS = ("query", "head", "relation", "tail", "rank")


def test_one_writer_of_answers_at_a_time(tmp_path):
    with RowFile(tmp_path / "a.tsv", {}, COLUMNS) as first:
        first.write(ROWS[:2])
        with pytest.raises(UserError, match="another process is writing it"):
            RowFile(tmp_path / "a.tsv", {}, COLUMNS)
    with RowFile(tmp_path / "a.tsv", {}, COLUMNS) as second:
        assert second.done == 1


def test_a_full_disk_is_told_in_a_line(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with RowFile(tmp_path / "a.jsonl", {}, COLUMNS) as file:
        file.write(ROWS[:1])
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))
        try:
            with pytest.raises(UserError, match=r"a\.jsonl: cannot be written \(File too large\); free space there"):
                file.write(ROWS * 20)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("suffix", ["tsv", "jsonl"])
@pytest.mark.parametrize(
    "tail", [b"\0\0\0\n", b"{}\n", b'{"query": "9"}\n', b"[1]\n", b"9" * 5000 + b"\tx\n", b"\xff\n", b"{"]
)
def test_what_a_power_cut_left_behind_the_last_row_is_cut_off(tmp_path, suffix, tail):
    path = tmp_path / f"a.{suffix}"
    with RowFile(path, {}, COLUMNS) as file:
        file.write(ROWS)
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    with RowFile(path, {}, COLUMNS) as file:
        assert file.done in (2, 3)
        file.write(ROWS[file.done :])
        file.finish()
    kept = [line for line in path.read_bytes().splitlines(keepends=True) if line in whole.splitlines(keepends=True)]
    assert b"".join(kept) == whole


def _umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now


def test_arrays_are_as_they_were(tmp_path):
    write_atomically(tmp_path / "a.npy", lambda file: np.save(file, np.arange(3)))
    assert np.load(tmp_path / "a.npy").tolist() == [0, 1, 2]


def lending(entities=6):
    ids = np.array([[(e + 1) % entities, (e + 2) % entities] for e in range(entities)], np.int32)
    return Lending(ids, np.full(ids.shape, 0.5, np.float32), np.ones(entities, np.float32), np.float32(0.4))


def test_lenders_are_read_back(tmp_path):
    name, content = lending().file()
    (tmp_path / name).write_bytes(content)
    found = read_lenders(tmp_path, 6, 0.4)
    for part in ("ids", "weights", "triples"):
        np.testing.assert_array_equal(getattr(found, part), getattr(lending(), part))
    assert read_lenders(tmp_path, 7, 0.4) is None


@pytest.mark.parametrize(
    "change",
    [
        {"ids": np.full((6, 2), 6, np.int32)},
        {"ids": np.full((6, 2), -1, np.int32)},
        {"ids": np.zeros((6, 2), np.float32)},
        {"ids": np.zeros(6, np.int32)},
        {"weights": np.full((6, 2), np.nan, np.float32)},
        {"weights": np.zeros((6, 3), np.float32)},
        {"weights": np.array([["a"] * 2] * 6)},
        {"triples": np.zeros((6, 1), np.float32)},
        {"triples": np.full(6, np.inf, np.float32)},
    ],
)
@pytest.mark.parametrize("forged", [False, True])
def test_lenders_that_were_changed_are_found_anew(tmp_path, change, forged, monkeypatch):
    arrays = {name: np.asarray(getattr(lending(), name)) for name in ("ids", "weights", "triples")} | change
    digest = additions_lending._digest(arrays) if forged else b"\0" * 32
    np.savez(tmp_path / "lenders.npz", **arrays, digest=np.frombuffer(digest, np.uint8))
    assert read_lenders(tmp_path, 6, 0.4) is None


def test_lenders_that_are_no_such_file_are_found_anew(tmp_path):
    path, whole = tmp_path / "lenders.npz", lending().file()[1]
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for content in (b"", whole[:-30], bytes(flipped), b"PK\3\4" + bytes(99), bombs.zip_of([("ids.npy", bytes(99))])):
        path.write_bytes(content)
        assert read_lenders(tmp_path, 6, 0.4) is None
    path.unlink()
    os.mkfifo(path)
    assert read_lenders(tmp_path, 6, 0.4) is None


CHANGES = {
    "sharpness": lambda kept: kept["answers"]["sharpness"].__setitem__(0, 1e9),
    "curve": lambda kept: kept["answers"]["curve"].update(right=[1.0] * len(kept["answers"]["curve"]["right"])),
    "another layout": lambda kept: kept.update(answers=[1, 2]),
    "no layout": lambda kept: kept.clear(),
}
FORGED = CHANGES | {
    "not finite": lambda kept: kept["answers"]["sharpness"].__setitem__(0, float("nan")),
    "falling": lambda kept: kept["answers"]["curve"]["right"].reverse(),
    "above 1": lambda kept: kept["relations"]["curve"].update(right=[7.0] * len(kept["relations"]["curve"]["right"])),
    "of another size": lambda kept: kept["answers"]["sharpness"].append(1.0),
    "text": lambda kept: kept["missing"].__setitem__(0, ["a", "b"]),
}
del FORGED["sharpness"], FORGED["curve"]


@pytest.mark.parametrize(("name", "forged"), [*((name, False) for name in CHANGES), *((name, True) for name in FORGED)])
def test_a_calibration_that_was_changed_is_fitted_again(model, tmp_path, name, forged):
    assert write_calibration(tmp_path, model.identity, model.calibration)
    assert read_calibration(tmp_path, model.identity) is not None
    path = tmp_path / "calibration.json"
    kept = json.loads(path.read_text(encoding="utf-8"))
    digest = kept.pop("digest")
    (FORGED if forged else CHANGES)[name](kept)
    with contextlib.suppress(ValueError):
        digest = digest_of(kept) if forged else digest
    path.write_text(json.dumps(kept | {"digest": digest}), encoding="utf-8")
    assert read_calibration(tmp_path, model.identity) is None
