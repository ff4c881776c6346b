"""What goes wrong on the way, made to happen: the line, the status, and that what was there before is unchanged."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_runner import ROOT, assert_one_error, contents, environment, run_here, run_process, start
from tiny_graph import tiny_flags, write_tiny_graph

from mocme_jax.training.checkpoints.run_folder import locked
from mocme_jax.training.logs.metrics_log import read_metrics

pytestmark = pytest.mark.slow
# With these, dev gets better until the end, so that there are two best checkpoints.
CHOICES = {"train__average": 20, "train__learning_rate": 0.02, "seed": 1}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Compiled programs are shared by the runs of this file, and the user's own cache is left alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def graph(tmp_path_factory) -> Path:
    return write_tiny_graph(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def finished(graph, tmp_path_factory) -> Path:
    """The workdir of a finished run of four epochs; for reading only."""
    folder = tmp_path_factory.mktemp("finished")
    result = run_process("train", *tiny_flags(graph, folder / "run", **CHOICES), folder=folder)
    assert result.returncode == 0, result.stderr
    return folder / "run"


@pytest.fixture
def workdir(finished, tmp_path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def flags(graph, workdir, **fields) -> list[str]:
    return tiny_flags(graph, workdir, **CHOICES | fields)


def numbers(workdir: Path) -> tuple:
    """What must repeat exactly: rows without speeds, results without times and settings."""
    rows = [{name: value for name, value in row.items() if name != "speed"} for row in read_metrics(workdir)]
    results = json.loads((workdir / "results.json").read_text(encoding="utf-8"))
    results.pop("config")
    results["run"].pop("minutes")
    return rows, results


def completed(workdir: Path) -> dict[str, str]:
    """The files of the checkpoints, and what was measured."""
    return {name: digest for name, digest in contents(workdir).items() if not name.startswith("tensorboard")}


def damage(workdir: Path, which: str, number: int) -> None:
    data = max((workdir / which / str(number) / "state" / "d").iterdir(), key=lambda path: path.stat().st_size)
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 16
    data.write_bytes(content)


# Signals


def test_a_signal_saves_where_it_is_and_the_same_command_goes_on_exactly(graph, tmp_path, monkeypatch):
    """In the middle of an epoch; it was asked for many, and none has been evaluated. SIGTERM is the drill's."""
    workdir, undisturbed = tmp_path / "run", tmp_path / "undisturbed"
    choices = {"train__batch_size": 8, "train__eval_every": 10**8}
    process = start("train", *flags(graph, workdir, **choices, train__epochs=10**8), folder=tmp_path)
    assert any("first step done" in line for line in process.stdout)
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (75, ""), printed
    (line,) = (line for line in printed.splitlines() if "rerun the same command to resume" in line)
    step = int(line.partition("stopped after step ")[2].partition(" ")[0].replace(",", ""))
    assert step >= 1
    assert (workdir / "last" / str(2 * step)).is_dir()
    assert read_metrics(workdir) == []
    choices["train__epochs"] = step // 16 + 2
    assert run_here("train", *flags(graph, workdir, **choices), monkeypatch=monkeypatch) == 0
    assert run_here("train", *flags(graph, undisturbed, **choices), monkeypatch=monkeypatch) == 0
    assert numbers(workdir) == numbers(undisturbed)


# Trains, but gets a signal at the moment that it shows something, and then waits for some seconds.
SIGNALLED = """
import os, sys, time
from mocme_jax.command_line import run
from mocme_jax.train import main
shown, number, seconds = sys.argv.pop(1), int(sys.argv.pop(1)), int(sys.argv.pop(1))
write = sys.stdout.write
def show(text):
    write(text)
    if shown in text:
        os.kill(os.getpid(), number)
        time.sleep(seconds)
sys.stdout.write = show
run(main)
"""


def test_a_signal_before_training_and_one_at_the_test_score(workdir, graph, finished, tmp_path, monkeypatch):
    (workdir / "results.json").unlink()
    before = completed(workdir / "last"), completed(workdir / "best")
    for shown, number, seconds, words in (
        # It ends in the middle of the minute.
        ("tiny: 48 entities", signal.SIGTERM, 60, "stopped before training began; rerun the same command to start it"),
        (
            "resuming after",
            signal.SIGINT,
            0,
            f"stopped before the test score; rerun the same command to get it from {workdir}",
        ),
    ):
        # As in `command_runner.start`.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        command = [sys.executable, "-c", SIGNALLED, shown, str(int(number)), str(seconds), *flags(graph, workdir)]
        ended = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300)
        assert shown in ended.stdout
        assert (ended.returncode, ended.stdout.splitlines()[-1], ended.stderr) == (75, words, "")
        assert (completed(workdir / "last"), completed(workdir / "best")) == before
    assert run_here("train", *flags(graph, workdir), monkeypatch=monkeypatch) == 0
    assert numbers(workdir) == numbers(finished)


# A step that is not finite


def test_a_loss_that_is_not_finite_leaves_its_batch_in_a_file(graph, tmp_path, monkeypatch, capsys):
    workdir = tmp_path / "run"
    choices = {"train__table_learning_rate": 1e12, "train__save_minutes": 1e-9}
    status = run_here("train", *flags(graph, workdir, **choices), monkeypatch=monkeypatch)
    error = capsys.readouterr().err
    assert status == 1
    assert error.count("\n") == 1
    assert error.startswith("error: step 2 (epoch 1): the loss")
    assert str(workdir / "nonfinite.json") in error
    assert not (workdir / "results.json").exists()
    told = json.loads((workdir / "nonfinite.json").read_text(encoding="utf-8"))
    assert told["step"] == 2
    assert told["epoch"] == 1
    assert {told["metrics"][name] for name in ("loss/total", "norm/gradient")} & {"nan", "inf"}
    assert {"structure", "model/params/relation"} <= told["norms after the step"].keys()
    lines = (graph / "train.txt").read_text(encoding="utf-8").splitlines()
    assert len(told["triples"]) == 32
    for triple in told["triples"]:
        assert "\t".join(triple["names"]) == lines[triple["row"]]
        assert len(triple["ids"]) == 3
    assert len({triple["row"] for triple in told["triples"]}) == 32
    # The state before it stays, and the same command comes to the same end.
    assert [path.name for path in (workdir / "last").iterdir()] == ["2"]
    kept = completed(workdir / "last")
    assert run_here("train", *flags(graph, workdir, **choices), monkeypatch=monkeypatch) == 1
    printed = capsys.readouterr()
    assert printed.err == error
    assert "resuming after step 1 " in printed.out
    assert completed(workdir / "last") == kept


# The disk


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of 700 kB, or None where this process may not mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "none", folder], capture_output=True)
    yield folder if mounted.returncode == 0 else None
    if mounted.returncode == 0:
        subprocess.run(["umount", "-l", folder], check=True)


# No file may grow beyond 2 kB; as on a full disk, the system refuses the rest.
LIMIT_FILES = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))"
# Root may write where it has no permission to; without CAP_DAC_OVERRIDE in PR_CAPBSET_DROP's set it may not.
KEEP_TO_PERMISSIONS = "import ctypes; ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)"


def train_under(limit: str, *argv: str) -> subprocess.CompletedProcess:
    """The training command in a process that first runs a line of Python."""
    # It may read what is compiled, and leaves no half of another program there.
    variables = environment() | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1e9"}
    text = f"{limit}; import os, sys; os.execv(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-c", text, sys.executable, "-m", "mocme_jax.train", *argv]
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=300)


def test_a_full_disk_is_one_line_and_what_was_saved_stays(small_disk, finished, graph, tmp_path, monkeypatch):
    workdir = (small_disk or tmp_path) / "run"
    shutil.copytree(finished, workdir)
    if small_disk:
        # Room for a part of the next checkpoint, and no more.
        free = os.statvfs(small_disk)
        (small_disk / "filling").write_bytes(bytes((free.f_bavail - 6) * free.f_bsize))
    before = completed(workdir)
    # What the runs of this file compiled is there, so that nothing else is written.
    process = train_under("pass" if small_disk else LIMIT_FILES, *flags(graph, workdir, train__epochs=6))
    assert_one_error(process.returncode, process.stderr, str(workdir), "cannot be written", "unchanged", "free space")
    assert {n: d for n, d in before.items() if n.startswith(("last", "best", "results"))}.items() <= completed(
        workdir
    ).items()
    if small_disk:
        (small_disk / "filling").unlink()
        workdir = Path(shutil.copytree(workdir, tmp_path / "roomy"))
    choices = dict(train__epochs=6)
    assert run_here("train", *flags(graph, workdir, **choices), monkeypatch=monkeypatch) == 0
    assert run_here("train", *flags(graph, tmp_path / "undisturbed", **choices), monkeypatch=monkeypatch) == 0
    assert numbers(workdir) == numbers(tmp_path / "undisturbed")
    assert not list(workdir.glob("*/*tmp*"))


@pytest.mark.skipif(sys.platform != "linux", reason="takes root's privilege away as Linux does")
@pytest.mark.parametrize("place", ["new", "old"])
def test_a_folder_that_is_read_only_is_one_line(place, workdir, graph, tmp_path):
    target = workdir if place == "old" else tmp_path / "closed" / "run"
    (tmp_path / "closed").mkdir()
    folders = [tmp_path / "closed", *(path for path in (workdir, *workdir.rglob("*")) if path.is_dir())]
    files = [path for path in workdir.rglob("*") if path.is_file()]
    before = contents(tmp_path)
    for path in (*folders, *files):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        process = train_under(KEEP_TO_PERMISSIONS, *flags(graph, target, train__epochs=6))
    finally:
        for path in (*folders, *files):
            path.chmod(0o755)
    assert_one_error(process.returncode, process.stderr, str(target), "cannot be written (Permission denied)")
    assert contents(tmp_path) == before


# Another process


def test_two_trainings_in_one_folder_are_one_too_many(workdir, graph, monkeypatch, capsys):
    before = contents(workdir)
    with locked(workdir):
        status = run_here("train", *flags(graph, workdir, train__epochs=6), monkeypatch=monkeypatch)
        assert_one_error(status, capsys.readouterr().err, str(workdir), "another process is training there")
        assert contents(workdir) == before
        assert run_here("evaluate", f"--workdir={workdir}", monkeypatch=monkeypatch) == 0


def test_the_lock_goes_with_its_holder(tmp_path):
    module = "mocme_jax.training.checkpoints.run_folder"
    text = f"from {module} import locked\nwith locked('run'):\n  print('held', flush=True)\n  input()"
    process = subprocess.Popen(
        [sys.executable, "-c", text], cwd=tmp_path, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(Exception, match="another process is training there"), locked(tmp_path / "run"):
        pass
    process.kill()
    process.communicate()
    with locked(tmp_path / "run"):
        pass


def test_a_file_is_no_folder(graph, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    status = run_here("train", *flags(graph, tmp_path / "file"), monkeypatch=monkeypatch)
    assert_one_error(status, capsys.readouterr().err, "is a file, not a folder")
    assert (tmp_path / "file").read_text() == ""


# Damage (tests/test_resuming.py has every file and kind)


def test_a_damaged_checkpoint_costs_a_line_and_no_number(workdir, graph, finished, tmp_path):
    assert sorted(path.name for path in (workdir / "last").iterdir()) == ["17", "33"]
    damage(workdir, "last", 33)
    result = run_process("train", *flags(graph, workdir), folder=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    told = [line for line in result.stdout.splitlines() if "is damaged" in line]
    assert len(told) == 1
    assert told[0].startswith(f"{workdir / 'last' / '33'}: is damaged (")
    assert "resuming after step 8 (epoch 2 finished)" in result.stdout
    assert numbers(workdir) == numbers(finished)


def test_nothing_but_damaged_checkpoints_is_an_error(workdir, graph, tmp_path, monkeypatch, capsys):
    for number in (17, 33):
        damage(workdir, "last", number)
        damage(workdir, "best", number)
    before = contents(workdir)
    status = run_here("train", *flags(graph, workdir), monkeypatch=monkeypatch)
    assert_one_error(
        status, capsys.readouterr().err, str(workdir / "last" / "17"), "no earlier one exists", "--workdir"
    )
    status = run_here("evaluate", f"--workdir={workdir}", monkeypatch=monkeypatch)
    assert_one_error(status, capsys.readouterr().err, str(workdir / "best" / "17"), "no earlier one exists")
    assert contents(workdir) == before


def test_evaluate_takes_the_best_before_a_damaged_one_and_does_not_pretend(workdir, monkeypatch, capsys):
    best = np.sort([int(path.name) for path in (workdir / "best").iterdir()])[-1]
    damage(workdir, "best", best)
    before = contents(workdir)
    assert run_here("evaluate", f"--workdir={workdir}", monkeypatch=monkeypatch) == 1
    printed = capsys.readouterr()
    assert f"{workdir / 'best' / str(best)}: is damaged (" in printed.out
    assert "NOT the numbers" in printed.out
    assert contents(workdir) == before
