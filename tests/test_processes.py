"""Two processes of two devices as one run, through the script that people run."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_runner import ROOT, assert_one_error, environment, run_here, run_process
from tiny_graph import NO_JUMPS, tiny_flags, write_tiny_graph

from mocme_jax.training.logs.metrics_log import read_metrics

SCRIPT = ROOT / "launch" / "local_cluster.sh"
SETTINGS = {
    "data__modalities": "text",
    "parallel__devices": 4,
    "parallel__shard_entities": True,
} | NO_JUMPS


def cluster(folder: Path, *flags: str, python: str | Path = sys.executable, port: str = "") -> subprocess.Popen:
    variables = environment() | {
        "PYTHON": str(python),
        "PORT": port,
        "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
    }
    variables.pop("XLA_FLAGS", None)
    # As in `command_runner.start`: whoever runs the tests in the background may have it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(
        ["bash", str(SCRIPT), *flags],
        cwd=folder,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def saved_steps(workdir: Path) -> list[int]:
    """The steps of the checkpoints to go on from; their numbers are twice as high."""
    return [int(saved.name) // 2 for saved in workdir.glob("last/*") if saved.name.isdigit()]


def wait_for_a_save(process: subprocess.Popen, workdir: Path) -> None:
    for _ in range(1800):
        if saved_steps(workdir):
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError("nothing was saved")


def process_id(graph: Path, process: int) -> int:
    """Of one of the run's processes."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        words = entry.read_bytes().decode().split("\0")
        if f"--config.parallel.process={process}" in words and f"--config.data.dir={graph}" in words:
            return int(entry.parent.name)
    raise AssertionError("no such process")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="finds processes in /proc")
def test_processes_train_as_one_does_and_go_on_after_one_was_killed(tmp_path, monkeypatch, capsys):
    """On split tables; the loss curve is that of one process with four devices, from the first row to the last."""
    graph, workdir = write_tiny_graph(tmp_path / "graph"), tmp_path / "together"
    # Long enough to be killed before its end; saved between evaluations too, so that there is one to go on from soon.
    endless = tiny_flags(graph, workdir, **SETTINGS, train__epochs=10_000, train__save_minutes=1e-9)
    process = cluster(tmp_path, *endless)
    wait_for_a_save(process, workdir)
    os.kill(process_id(graph, 1), signal.SIGKILL)
    _, errors = process.communicate(timeout=25)
    assert process.returncode == 1
    assert errors.splitlines()[-1].startswith("error: a process of the run ended with status 137"), errors
    assert "resumes from the last checkpoint" in errors

    # A signal to one of them, which is not the one that prints, and all stop at the same step. JAX wants SIGTERM too.
    # Meanwhile a second run at its address ends with a line, and leaves it alone.
    before = saved_steps(workdir)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
    run = cluster(tmp_path, *endless, port=port)
    while saved_steps(workdir) == before and run.poll() is None:
        time.sleep(0.05)
    second = tiny_flags(graph, tmp_path / "second", **SETTINGS, parallel__join_seconds=2)
    late = [f"--config.parallel.coordinator=127.0.0.1:{port}", "--config.parallel.processes=2"]
    for process, words in ((0, "another program or run uses this port"), (1, "is not process 0 of a run")):
        flags = [*second, *late, f"--config.parallel.process={process}"]
        ended = run_process("train", *flags, folder=tmp_path)
        assert_one_error(ended.returncode, ended.stderr, words)
    # The coordinator listens at its address alone; all of 127.0.0.0/8 is this machine.
    socket.create_connection(("127.0.0.1", int(port)), timeout=5).close()
    with pytest.raises(OSError):  # noqa: PT011 - which one is the system's choice
        socket.create_connection(("127.0.0.2", int(port)), timeout=5)
    os.kill(process_id(graph, 1), signal.SIGTERM)
    printed, errors = run.communicate(timeout=120)
    assert run.returncode == 75, errors
    killed = int(printed.partition("resuming after step ")[2].partition(" ")[0].replace(",", ""))
    stopped = int(printed.partition("stopped after step ")[2].partition(" ")[0].replace(",", ""))
    assert 0 < killed < stopped
    assert printed.count("rerun the same command to resume") == 1
    assert max(saved_steps(workdir)) == stopped

    epochs = max(saved_steps(workdir)) // 4 + 4
    again = cluster(tmp_path, *tiny_flags(graph, workdir, **SETTINGS, train__epochs=epochs))
    printed, errors = again.communicate(timeout=120)
    assert again.returncode == 0, errors
    assert printed.count(f"resuming after step {stopped:,} ") == 1, printed
    assert printed.count("results:") == 1, printed
    flags = tiny_flags(graph, tmp_path / "alone", **SETTINGS, train__epochs=epochs)
    assert run_here("train", *flags, monkeypatch=monkeypatch) == 0
    one, two = (read_metrics(tmp_path / name) for name in ("alone", "together"))
    assert [row.get("epoch") for row in one] == [row.get("epoch") for row in two]
    # Adagrad makes signs of rounding errors, so that runs drift apart in the end.
    for (row, other), near in zip(zip(one[:-1], two[:-1], strict=True), [1e-4, 1e-3, *(2e-2,) * epochs], strict=False):
        assert row["train"]["loss/total"] == pytest.approx(other["train"]["loss/total"], rel=near)

    # Parameters saved by two processes on four devices are one table to whoever evaluates them on one.
    capsys.readouterr()
    assert run_here("evaluate", f"--workdir={workdir}", monkeypatch=monkeypatch) == 0
    printed = capsys.readouterr()
    assert "the same numbers as" in printed.out, printed


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_script_passes_signals_on_and_waits(number, tmp_path):
    """With programs in the place of Python that take their time, and that end at once at the second signal."""
    for times, seconds, words, status in ((1, 1, ["asked", "saved"], 75), (2, 600, ["asked"], 143)):
        program = tmp_path / "python"
        program.write_text(
            f"#!{sys.executable}\nimport os, signal, time\nasked = []\n"
            "def stop(*_):\n  asked.append(0)\n  if len(asked) > 1: os._exit(143)\n  os.write(1, b'asked\\n')\n"
            f"  time.sleep({seconds})\n  os.write(1, b'saved\\n')\n  os._exit(75)\n"
            "signal.signal(signal.SIGTERM, stop)\nos.write(1, b'ready\\n')\ntime.sleep(600)\n"
        )
        program.chmod(0o755)
        process = cluster(tmp_path, python=program, port="1")
        assert [process.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
        process.send_signal(number)
        assert [process.stdout.readline() for _ in range(2)] == ["asked\n"] * 2
        if times == 2:
            process.send_signal(number)
        printed, errors = process.communicate(timeout=30)
        assert (process.returncode, errors) == (status, "")
        assert printed.split() == 2 * words[1:]


def test_dry_run_prints_the_commands_and_runs_nothing(tmp_path):
    process = cluster(tmp_path, "--processes=3", "--devices=1", "--dry-run", "--workdir=a b")
    printed, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    assert errors == ""
    assert not list(tmp_path.iterdir())
    lines = printed.splitlines()
    assert len(lines) == 3
    for i, line in enumerate(lines):
        assert "JAX_NUM_CPU_DEVICES=1" in line
        assert f"'--config.parallel.process={i}'" in line
        assert "'--config.parallel.processes=3'" in line
        assert "'--workdir=a b'" in line


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--config.parallel.coordinator=here"], "expected HOST:PORT"),
        (["--config.parallel.coordinator=a:1", "--config.parallel.process=1"], "parallel.process is 1"),
        (
            ["--config.parallel.mapper=none", "--config.parallel.devices=2"],
            "without a mapper only one device",
        ),
    ],
)
def test_addresses_that_make_no_sense(flags, words, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    status = run_here("train", *flags, monkeypatch=monkeypatch)
    assert_one_error(status, capsys.readouterr().err, words)
