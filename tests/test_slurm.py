"""Runs on a real SLURM: the script submits, and a run ends and goes on as the documentation says."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_runner import ROOT, run_here
from slurm_cluster import Slurm, running_slurm, why_not
from tiny_graph import NO_JUMPS, tiny_flags, write_tiny_graph

from mocme_jax.training.logs.metrics_log import read_metrics

pytestmark = [pytest.mark.slow, pytest.mark.slurm, pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")]

SETTINGS = {"data__modalities": "text", "parallel__devices": 2, "parallel__shard_entities": True} | NO_JUMPS
# In the place of Python: a training that takes a minute and saves when it is told to stop. The second time it is done.
PROGRAM = """#!{python}
import os, signal, sys, time
if os.environ.get("SLURM_RESTART_COUNT"):
    print("resumed and done")
    sys.exit(0)
def stop(number, frame):
    print("saved after", signal.Signals(number).name, flush=True)
    sys.exit(75)
signal.signal(signal.SIGUSR1, stop)
signal.signal(signal.SIGTERM, stop)
time.sleep(100)
"""
# Python, but JAX ends a run whose other process was killed after ten seconds without its heartbeat, not thirty.
IMPATIENT = """#!{python}
import runpy, sys
from mocme_jax.parallel import processes
processes.HEARTBEAT = 10
assert sys.argv[1:3] == ["-m", "mocme_jax.train"]
del sys.argv[1:3]
runpy.run_module("mocme_jax.train", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def slurm():
    with running_slurm() as cluster:
        yield cluster


@pytest.fixture(scope="module", autouse=True)
def limited(slurm, tmp_path_factory) -> tuple[str, Path]:
    """A job that meets the shortest time limit, a minute, while the others run; and its folder."""
    folder = tmp_path_factory.mktemp("limited")
    python = in_place_of_python(folder, PROGRAM)
    return submit(slurm, folder, "--time=1", python=python, options=("--signal=USR1@50",)), folder


def in_place_of_python(folder: Path, text: str) -> str:
    program = folder / "python"
    program.write_text(text.format(python=sys.executable))
    program.chmod(0o755)
    return str(program)


def submit(slurm: Slurm, folder: Path, *flags: str, python: str = sys.executable, options: tuple = ()) -> str:
    """The number of the job, which writes to ``out`` in the folder."""
    variables = slurm.environment | {"PYTHON": python, "PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": "1"}
    variables.pop("XLA_FLAGS", None)
    command = ["bash", str(ROOT / "launch" / "slurm.sh"), "--gpus=0", *flags]
    command += ["--", "--parsable", f"--output={folder / 'out'}", *options]
    ran = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stderr
    return ran.stdout.strip()


def wait_until(holds, slurm: Slurm, folder: Path, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not holds():
        told = (folder / "out").read_text() if (folder / "out").exists() else ""
        assert time.monotonic() < end, told + slurm.log()
        time.sleep(0.1)


def newest(workdir: Path) -> int:
    """The step of the newest checkpoint; 0 for none."""
    return max((int(path.name) // 2 for path in workdir.glob("last/*") if path.name.isdigit()), default=0)


def test_a_run_ends_and_goes_on_as_documented_and_its_numbers_are_those_of_one_process(slurm, tmp_path, monkeypatch):
    graph, workdir = write_tiny_graph(tmp_path / "graph"), tmp_path / "run"
    endless = tiny_flags(graph, workdir, **SETTINGS, train__epochs=10_000, train__save_minutes=1e-9)
    out = tmp_path / "out"

    def further(than: int) -> None:
        wait_until(lambda: newest(workdir) > than, slurm, tmp_path)

    # SLURM's signal: both processes save, and the job is queued again and goes on.
    job = submit(slurm, tmp_path, *endless, "--time=10")
    further(0)
    slurm.ask("scancel", "--signal=USR1", job)
    wait_until(lambda: slurm.job(job)["Restarts"] == "1", slurm, tmp_path)
    first = newest(workdir)
    further(first)
    assert re.search(rf"stopped after step {first:,} .* is saved", text := out.read_text()), text
    assert "queued again" in text
    assert f"resuming after step {first:,} " in text

    # A plain scancel: saved as well, and not queued again.
    slurm.ask("scancel", job)
    assert slurm.ended(job)["JobState"] == "CANCELLED"
    second = newest(workdir)
    assert re.search(rf"stopped after step {second:,} .* is saved", out.read_text()), out.read_text()

    # A killed process: the job fails, is not queued again, and nothing that was saved is lost.
    job = submit(slurm, tmp_path, *endless, "--time=10", python=in_place_of_python(tmp_path, IMPATIENT))
    further(second)
    for process in slurm.processes():
        with contextlib.suppress(OSError):
            own = [Path(f"/proc/{process}/{name}").read_bytes().split(b"\0") for name in ("environ", "cmdline")]
            if b"SLURM_PROCID=1" in own[0] and b"mocme_jax.train" in own[1]:
                os.kill(process, signal.SIGKILL)
    ended = slurm.ended(job)
    assert (ended["JobState"], ended["Restarts"]) == ("FAILED", "0")
    third = newest(workdir)

    # To the end, and the same numbers as from one process of two devices.
    epochs = third // 4 + 4
    job = submit(slurm, tmp_path, *tiny_flags(graph, workdir, **SETTINGS, train__epochs=epochs))
    ended = slurm.ended(job)
    assert (ended["JobState"], ended["ExitCode"]) == ("COMPLETED", "0:0"), out.read_text()
    assert out.read_text().count(f"resuming after step {third:,} ") == 1
    alone = tiny_flags(graph, tmp_path / "alone", **SETTINGS, train__epochs=epochs)
    assert run_here("train", *alone, monkeypatch=monkeypatch) == 0
    one, two = (read_metrics(tmp_path / name) for name in ("alone", "run"))
    assert [row.get("epoch") for row in one] == [row.get("epoch") for row in two]
    # Adagrad makes signs of rounding errors, so that runs drift apart in the end.
    for (row, other), near in zip(zip(one[:-1], two[:-1], strict=True), [1e-4, 1e-3, *(2e-2,) * epochs], strict=False):
        assert row["train"]["loss/total"] == pytest.approx(other["train"]["loss/total"], rel=near)


def test_an_option_that_sbatch_does_not_know_is_its_own_error(slurm, tmp_path):
    with pytest.raises(AssertionError, match="unrecognized option"):
        submit(slurm, tmp_path, options=("--no-such-option",))


def test_the_time_limit_is_no_end(slurm, limited):
    """Of a program in the place of Python."""
    job, folder = limited
    ended = slurm.ended(job)
    assert (ended["JobState"], ended["Restarts"], ended["ExitCode"]) == ("COMPLETED", "1", "0:0")
    text = (folder / "out").read_text()
    assert [text.count(line) for line in ("saved after SIGUSR1", "queued again", "resumed and done")] == [2, 1, 2], text
