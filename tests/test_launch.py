"""The scripts of `launch/` print the commands that they would run, with a user's flags in them unharmed."""

import shlex
import shutil
import subprocess
import sys

import pytest
from command_runner import ROOT

LAUNCH = ROOT / "launch"
AWKWARD = ["--config=db15k", "--workdir=it's a folder"]
COMMANDS = {
    "gpu_host.sh": (["--gpus=0,1"], ["CUDA_VISIBLE_DEVICES=0,1"]),
    "slurm.sh": (["--nodes=4", "--gpus=2"], ["sbatch", "--nodes=4", "--ntasks-per-node=2", "--gpus-per-node=2"]),
    "tpu_pod.sh": (["--name=slice", "--zone=here"], ["gcloud", "slice", "--zone=here", "--worker=all"]),
}


def dry_run(script, *flags):
    command = ["bash", str(LAUNCH / script), "--dry-run", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize("script", COMMANDS)
def test_commands(script):
    flags, words = COMMANDS[script]
    result = dry_run(script, *flags, *AWKWARD)
    assert (result.returncode, result.stderr) == (0, "")
    command = shlex.split(result.stdout)
    assert set(words) <= set(command), command
    # What srun or a worker's shell is given is quoted once more.
    inner = command if script == "gpu_host.sh" else shlex.split(command[-1].removeprefix("--command="))
    assert inner[-2:] == AWKWARD
    assert "mocme_jax.train" in inner
    assert ("--config.parallel.coordinator=auto" in inner) == (script != "gpu_host.sh")


def test_the_manifest_names_the_coordinator_and_every_pod():
    result = dry_run("kubernetes.sh", "--image=somewhere/image:1", "--claim=disk", "--pods=3", *AWKWARD)
    assert result.returncode == 0
    assert result.stderr == ""
    lines = [line.strip() for line in result.stdout.splitlines()]
    for line in (
        "kind: JobSet",
        "parallelism: 3",
        "completions: 3",
        "image: somewhere/image:1",
        "claimName: disk",
        "- '--config.parallel.coordinator=mocme-workers-0-0.mocme:1234'",
        "- '--config.parallel.processes=3'",
        "- '--config.parallel.process=$(JOB_COMPLETION_INDEX)'",
        "- '--workdir=it''s a folder'",
    ):
        assert line in lines, line


@pytest.mark.parametrize("script", ["tpu_pod.sh", "kubernetes.sh"])
def test_what_is_missing_is_named(script):
    result = dry_run(script)
    assert result.returncode == 2
    assert result.stderr.startswith("error: name the ")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


@pytest.mark.parametrize("script", sorted(path.name for path in LAUNCH.glob("*.sh") if path.name != "environment.sh"))
def test_every_script_has_help(script):
    result = subprocess.run(["bash", str(LAUNCH / script), "--help"], capture_output=True, text=True, timeout=30)
    assert result.returncode == 0
    assert f"launch/{script}" in result.stdout


def a_python(path, version, works=True):
    """Writes a command that passes for this version of Python, or one that only fails, as an unset shim of pyenv."""
    path.parent.mkdir(parents=True, exist_ok=True)
    as_version = f"import sys; sys.version_info = {version}; sys.executable = {str(path)!r}; exec(sys.argv[1])"
    body = f'exec {shlex.quote(sys.executable)} -c {shlex.quote(as_version)} "$2"' if works else "exit 127"
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def found_python(folder, **environment):
    """What `find_python` chooses where nothing but the commands in ``folder / "bin"`` is on PATH."""
    (folder / "bin").mkdir(exist_ok=True)
    for tool in ("bash", "dirname"):
        (folder / "bin" / tool).symlink_to(shutil.which(tool))
    environment = {"PATH": str(folder / "bin"), "HOME": str(folder)} | environment
    command = ["bash", "-c", f"set -euo pipefail; source {shlex.quote(str(LAUNCH / 'environment.sh'))}; find_python"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)


def test_the_newest_python_that_works_is_found(tmp_path):
    a_python(tmp_path / "bin" / "python3.13", (3, 13, 0), works=False)
    a_python(tmp_path / "bin" / "python3.11", (3, 11, 9))
    a_python(tmp_path / "bin" / "python", (3, 14, 0))
    newest = a_python(tmp_path / "bin" / "python3", (3, 12, 1))
    result = found_python(tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{newest}\n", "")


def test_pyenvs_newest_python_is_found_behind_a_command_that_fails(tmp_path):
    a_python(tmp_path / "bin" / "python3.13", (3, 13, 9), works=False)
    a_python(tmp_path / "bin" / "python3.12", (3, 12, 9))
    a_python(tmp_path / ".pyenv" / "versions" / "3.13.0" / "bin" / "python", (3, 13, 0))
    newest = a_python(tmp_path / ".pyenv" / "versions" / "3.13.10" / "bin" / "python", (3, 13, 10))
    assert found_python(tmp_path).stdout == f"{newest}\n"


def test_the_python_that_is_named_is_taken_or_refused(tmp_path):
    a_python(tmp_path / "bin" / "python3.13", (3, 13, 0))
    named = a_python(tmp_path / "python", (3, 11, 0))
    assert found_python(tmp_path, PYTHON=named).stdout == f"{named}\n"
    shutil.rmtree(tmp_path / "bin")
    old = a_python(tmp_path / "old", (3, 10, 0))
    result = found_python(tmp_path, PYTHON=old)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"error: PYTHON={old} is not Python 3.11 to 3.13 with the venv module\n"


def test_no_python_is_one_line(tmp_path):
    result = found_python(tmp_path)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.startswith("error: no Python 3.11 to 3.13 ")
