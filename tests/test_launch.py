"""The scripts of `launch/` print the commands that they would run, with a user's flags in them unharmed."""

import os
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
    # What a worker's shell is given is quoted once more.
    inner = command if script == "gpu_host.sh" else shlex.split(command[-1].removeprefix("--command="))
    assert inner[-2:] == AWKWARD
    assert "mocme_jax.train" in inner
    assert ("--config.parallel.coordinator=auto" in inner) == (script != "gpu_host.sh")


def job(*flags):
    """What sbatch is given, and its script."""
    result = dry_run("slurm.sh", *flags)
    assert (result.returncode, result.stderr) == (0, "")
    command, _, script = result.stdout.partition(" <<SCRIPT\n")
    return shlex.split(command), script.removesuffix("SCRIPT\n")


def test_a_job_asks_for_devices_and_passes_options_on():
    asked, script = job("--nodes=4", "--gpus=2", "--partition=p", *AWKWARD, "--", "--account=mine", "--signal=USR1@9")
    devices = ["--nodes=4", "--ntasks-per-node=2", "--gpus-per-node=2", "--time=24:00:00"]
    assert asked[:6] == ["sbatch", "--job-name=mocme_jax", *devices]
    # An option that is given twice counts as it is given last.
    assert asked[6:] == [
        "--signal=USR1@120", "--requeue", "--open-mode=append", "--partition=p", "--account=mine", "--signal=USR1@9",
    ]  # fmt: skip
    assert "'JAX_PLATFORMS=cuda'" in script
    typed, _ = job("--gpus=a100:4")
    assert {"--gpus-per-node=a100:4", "--ntasks-per-node=4"} <= set(typed)
    without, script = job("--gpus=0")
    assert not [option for option in without if option.startswith("--gpus")]
    assert "--ntasks-per-node=1" in without
    assert "'JAX_PLATFORMS=cpu'" in script


@pytest.mark.parametrize(
    ("flags", "ends", "queued"),
    [([], 0, False), ([], 75, True), ([], 1, False), ([], 137, False)]
    + [(["--config.parallel.stopped_status=3"], status, status == 3) for status in (3, 75)]
    + [(["--config.parallel.stopped_status=0"], 0, False)],
)
def test_a_job_is_queued_again_after_a_stop_alone(flags, ends, queued, tmp_path):
    """With programs in the place of SLURM's that write down how they are called."""
    _, script = job(*flags, *AWKWARD)
    for name, status in (("srun", ends), ("scontrol", 0)):
        told = f'printf \'%s\\n\' "$@" "cpus=${{SRUN_CPUS_PER_TASK-}}" >{shlex.quote(str(tmp_path / name))}.told'
        (tmp_path / name).write_text(f"#!/bin/sh\n{told}\nexit {status}\n")
        (tmp_path / name).chmod(0o755)
    variables = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "17", "SLURM_CPUS_PER_TASK": "6"}
    result = subprocess.run(["bash"], input=script, env=variables, capture_output=True, text=True, timeout=30)
    assert (result.returncode, result.stderr) == (ends, "")
    called = (tmp_path / "srun.told").read_text().splitlines()
    assert called[:2] == ["--kill-on-bad-exit=0", "--wait=60"]
    assert called[-4:] == [*(flags[-1:] or called[-4:-3]), *AWKWARD, "cpus=6"]
    assert "--config.parallel.coordinator=auto" in called
    assert (tmp_path / "scontrol.told").exists() == queued
    if queued:
        assert (tmp_path / "scontrol.told").read_text().splitlines()[:2] == ["requeue", "17"]


@pytest.mark.parametrize(
    ("script", "flag", "words"),
    [
        ("slurm.sh", "--nodes=0", "--nodes=0: expected a number from 1 on"),
        ("slurm.sh", "--gpus=many", "--gpus=many: expected a number of GPUs per node, or TYPE:NUMBER"),
        ("slurm.sh", "--config.parallel.stopped_status=x", "expected a number from 0 to 255"),
        # To bash, an octal number.
        ("slurm.sh", "--config.parallel.stopped_status=011", "expected a number from 0 to 255"),
        ("slurm.sh", "--nodes", "write --nodes=VALUE, in one word"),
        ("kubernetes.sh", "--config.parallel.stopped_status", "write --config.parallel.stopped_status=VALUE"),
        ("local_cluster.sh", "--processes=two", "--processes=two: expected a number from 1 on"),
        ("local_cluster.sh", "--devices=", "--devices=: expected a number from 1 on"),
    ],
)
def test_values_are_checked(script, flag, words):
    result = dry_run(script, flag)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert words in result.stderr


@pytest.mark.parametrize("script", ["slurm.sh", "gpu_host.sh"])
def test_without_jax_for_gpus_nothing_is_started(script, tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    for words, mode in (("is not there; run bash launch/quickstart.sh first", 0o644), ("has no JAX for GPUs", 0o755)):
        python.chmod(mode)
        command = ["bash", str(LAUNCH / script), "--workdir=run"]
        variables = os.environ | {"PYTHON": str(python)}
        result = subprocess.run(command, env=variables, cwd=tmp_path, capture_output=True, text=True, timeout=30)
        assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
        assert f"{python} {words}" in result.stderr


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
