"""A power cut, simulated: what a command has reported is on the disk, whatever of the rest is lost."""

import re
import shutil
import sys

import pytest
from command_runner import environment, run_here
from drills import kill
from power_cut import Disk, can_trace, traced
from tiny_graph import tiny_flags, write_tiny_graph

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not can_trace(), reason="needs strace, and a machine that allows it"),
]


def run_traced(folder, *argv):
    ended, disk = traced([sys.executable, *argv], folder, environment() | {"PYTHONDONTWRITEBYTECODE": "1"})
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr, disk


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_simulation_loses_what_was_not_flushed(tmp_path):
    code = """
import os
def write(name, flush):
    with open(name, "w") as file:
        file.write("text")
        file.flush()
        if flush: os.fsync(file.fileno())
os.mkdir("a"); write("a/flushed", True); write("a/not", False)
os.fsync(os.open("a", os.O_RDONLY)); os.fsync(os.open(".", os.O_RDONLY))
write("new", True)
os.rename("a/flushed", "a/renamed"); os.unlink("old")
with open("kept", "a") as file:
    file.write(" more"); file.flush(); os.fsync(file.fileno()); file.write(" lost")
"""
    folder = tmp_path / "at"
    folder.mkdir()
    for name in ("old", "kept"):
        (folder / name).write_text(name)
    _, disk = run_traced(folder, "-c", code)
    for kept, names in ((True, {"a/renamed", "a/not", "new", "kept"}), (False, {"a/flushed", "a/not", "old", "kept"})):
        disk.after(len(disk.calls), tmp_path / str(kept), names_kept=kept)
        found = files(tmp_path / str(kept))
        assert found.keys() == names
        assert found["kept"] == b"kept more"
        assert found["a/not"] == b""
        assert found["a/renamed" if kept else "a/flushed"] == b"text"


def lost(disk: Disk, tmp_path) -> list[str]:
    """Files of the folder that a cut at the end of the command costs, or empties, or changes."""
    real, missing = files(disk.folder), set()
    for kept in (True, False):
        target = tmp_path / f"after-{kept}"
        shutil.rmtree(target, ignore_errors=True)
        disk.after(len(disk.calls), target, names_kept=kept)
        found = files(target)
        missing |= {name for name, data in real.items() if found.get(name) != data}
    return sorted(missing)


@pytest.mark.parametrize("out", ["a.tsv", "a.jsonl", "a.parquet"])
def test_answers_that_were_reported_are_on_the_disk(tiny_run, tmp_path, out):
    if out.endswith("parquet"):
        pytest.importorskip("pyarrow")
    at = tmp_path / "at"
    shutil.copytree(tiny_run, at / "run")
    (at / "queries.tsv").write_text("place 1\tnext\t?\n?\tnext\tplace 7\n")
    argv = ("--workdir=run", "--queries=queries.tsv", f"--out=out/{out}")
    printed, disk = run_traced(at, "-m", "mocme_jax.predict", *argv)
    assert "2 queries answered" in printed
    assert not lost(disk, tmp_path)


@pytest.mark.parametrize("argv", [("--triples",), ("--text=names",)], ids=["triples", "features"])
def test_a_prepared_folder_that_was_reported_is_on_the_disk(tmp_path, argv):
    at = tmp_path / "at"
    write_tiny_graph(at / "graph")
    _, disk = run_traced(at, "-m", "mocme_jax.prepare", "--data=graph", "--out=deep/out", *argv)
    assert not lost(disk, tmp_path)


def test_an_export_that_was_reported_is_on_the_disk(tiny_run, tmp_path):
    at = tmp_path / "at"
    shutil.copytree(tiny_run, at / "run")
    _, disk = run_traced(at, "-m", "mocme_jax.export", "--workdir=run", "--out=out")
    assert not lost(disk, tmp_path)


def test_a_finished_study_is_on_the_disk(tmp_path):
    at = tmp_path / "at"
    write_tiny_graph(at / "graph")
    code = 'def get_cells(config, modalities, alone):\n    return {"full": {}}\n'
    (at / "cells.py").write_text(code)
    flags = tiny_flags(at / "graph", at / "study", train__epochs=2)
    _, disk = run_traced(at, "-m", "mocme_jax.ablate", *flags, "--study=cells.py", "--seeds=2")
    assert not [name for name in lost(disk, tmp_path) if name != "study/lock"]


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """The disk of a training, its flags, and what it left."""
    at = tmp_path_factory.mktemp("training") / "at"
    flags = tiny_flags(write_tiny_graph(at / "graph"), at / "run", train__epochs=6, train__average=20)
    printed, disk = run_traced(at, "-m", "mocme_jax.train", *flags)
    assert "results: " in printed
    return disk, flags, kill.left(at / "run")


def test_a_finished_training_is_on_the_disk(training, tmp_path):
    assert not [name for name in lost(training[0], tmp_path) if "/tensorboard/" not in name]


@pytest.mark.parametrize("names_kept", [True, False])
def test_a_training_goes_on_from_what_a_power_cut_leaves(training, tmp_path, monkeypatch, capfd, names_kept):
    disk, flags, expected = training
    run = disk.folder / "run"
    # Where a checkpoint gets its number, and the last of what is deleted of one.
    numbered = [n for n, call in enumerate(disk.calls, 1) if call.name == "rename" and call.paths[1][-1].isdigit()]
    deleted = [
        n for n, call in enumerate(disk.calls, 1) if call.name == "unlink" and re.search(r"/\d+/", call.paths[0])
    ]
    assert len(numbered) >= 5
    for cut in [*numbered[::2], deleted[-1]]:
        disk.after(cut, tmp_path / str(cut), names_kept=names_kept)
        before = {path.name for path in (tmp_path / str(cut) / "run" / "last").glob("*") if path.name.isdigit()}
        shutil.rmtree(run)
        shutil.move(tmp_path / str(cut) / "run", run)
        status, printed = run_here("train", *flags, monkeypatch=monkeypatch), "".join(capfd.readouterr())
        assert status == 0, printed
        assert "is damaged" not in printed
        assert not before or "resuming" in printed
        assert kill.left(run) == expected
