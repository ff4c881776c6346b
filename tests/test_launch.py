"""The scripts of `launch/` print the commands that they would run, with a user's flags in them unharmed."""

import shlex
import subprocess

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
