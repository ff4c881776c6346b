"""The manifest that `launch/kubernetes.sh` prints, against the part of JobSet's schema that it uses; the Dockerfile.

Neither a cluster nor Docker is needed: the Dockerfile is read as text.
"""

import json
import re
import subprocess
import tomllib

import pytest
import yaml
from command_runner import ROOT

SCRIPT = ROOT / "launch" / "kubernetes.sh"
NAMED = ["--image=somewhere/image:1", "--claim=disk"]
TYPES = {"object": dict, "array": list, "string": str, "integer": int}


def dry_run(*flags):
    command = ["bash", str(SCRIPT), "--dry-run", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def faults(value, schema: dict, at: str = "manifest") -> list[str]:
    """Where a value is not as a JSON schema of few words says."""
    kinds = schema.get("type", [])
    allowed = tuple(TYPES[kind] for kind in ([kinds] if isinstance(kinds, str) else kinds))
    if allowed and (not isinstance(value, allowed) or isinstance(value, bool)):
        return [f"{at}: {value!r} is no {kinds}"]
    found = [f"{at}: {value!r} is none of {schema['enum']}"] if value not in schema.get("enum", [value]) else []
    if "pattern" in schema and not re.search(schema["pattern"], str(value)):
        found.append(f"{at}: {value!r} does not match")
    if isinstance(value, int) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        found.append(f"{at}: {value} is out of bounds")
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            found.append(f"{at}: {len(value)} entries")
        found += [fault for n, one in enumerate(value) for fault in faults(one, schema["items"], f"{at}[{n}]")]
    if isinstance(value, dict):
        found += [f"{at}: {name} is missing" for name in schema.get("required", []) if name not in value]
        known, others = schema.get("properties", {}), schema.get("additionalProperties", {})
        for name, one in value.items():
            if name not in known and others is False:
                found.append(f"{at}: {name} is unknown")
            else:
                found += faults(one, known.get(name, others), f"{at}.{name}")
    return found


SCHEMA = json.loads((ROOT / "tests" / "fixtures" / "jobset.schema.json").read_text())


def manifest(*flags: str) -> dict:
    """A manifest without a fault in it."""
    result = dry_run(*NAMED, *flags)
    assert (result.returncode, result.stderr) == (0, "")
    value = yaml.safe_load(result.stdout)
    assert faults(value, SCHEMA) == []
    pod = pod_of(value)
    # Rules of Kubernetes that no schema says.
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} == volumes
    assert pod["restartPolicy"] == "Never", "a Job with a podFailurePolicy must not restart pods"
    return value


def job_of(value: dict) -> dict:
    return value["spec"]["replicatedJobs"][0]["template"]["spec"]


def pod_of(value: dict) -> dict:
    return job_of(value)["template"]["spec"]


def filled_in(argument: str, index: int) -> str:
    """What Kubernetes passes on: ``$$`` stands for ``$``, and ``$(NAME)`` for a variable."""
    return re.sub(
        r"\$\$|\$\((\w+)\)",
        lambda match: "$" if match[0] == "$$" else {"JOB_COMPLETION_INDEX": str(index)}[match[1]],
        argument,
    )


def test_every_pod_knows_the_others_and_its_flags_arrive_unharmed():
    awkward = ["--workdir=it's a $HOME: #1", "--config.data.dir=$(KEEP) $$ \\n", "--config.data.name=null"]
    value = manifest("--pods=3", "--name=try", *awkward)
    job = job_of(value)
    assert (job["parallelism"], job["completions"], job["completionMode"]) == (3, 3, "Indexed")
    (container,) = pod_of(value)["containers"]
    assert container["image"] == "somewhere/image:1"
    assert container["command"] == ["python", "-m", "mocme_jax.train"]
    assert [filled_in(argument, 2) for argument in container["args"]] == [
        "--config.parallel.coordinator=try-workers-0-0.try:1234",
        "--config.parallel.processes=3",
        "--config.parallel.process=2",
        "--config.parallel.join_seconds=1800",
        *awkward,
    ]


def test_resources_of_gpus_tpus_and_neither():
    for flags, platform, device in (
        (["--gpus=4"], "cuda", {"nvidia.com/gpu": 4}),
        (["--tpus=4"], "tpu", {"google.com/tpu": 4}),
        (["--gpus=0"], "cpu", {}),
    ):
        value = manifest(*flags, "--cpus=500m", "--memory=1.5Gi", "--shm=256Mi", "--grace=300")
        (container,) = pod_of(value)["containers"]
        assert container["resources"]["requests"] == {"cpu": "500m", "memory": "1.5Gi"} | device
        assert container["resources"]["limits"] == {"memory": "1.5Gi"} | device
        assert {"name": "JAX_PLATFORMS", "value": platform} in container["env"]
        assert pod_of(value)["terminationGracePeriodSeconds"] == 300
        assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "256Mi"}} in pod_of(value)["volumes"]
        assert {"name": "shm", "mountPath": "/dev/shm"} in container["volumeMounts"]


def test_placement_and_namespace():
    value = manifest(
        "--namespace=team",
        "--node-selector=cloud.google.com/gke-tpu-topology=2x2x1",
        "--node-selector=spot=true",
        "--toleration=nvidia.com/gpu:NoSchedule",
        "--toleration=spot=yes:NoExecute",
        # Words that YAML would read as something else.
        "--node-selector=1=2",
        "--toleration=null:NoSchedule",
    )
    assert value["metadata"] == {"name": "mocme", "namespace": "team"}
    assert pod_of(value)["nodeSelector"] == {"cloud.google.com/gke-tpu-topology": "2x2x1", "spot": "true", "1": "2"}
    assert pod_of(value)["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "spot", "operator": "Equal", "value": "yes", "effect": "NoExecute"},
        {"key": "null", "operator": "Exists", "effect": "NoSchedule"},
    ]
    assert manifest()["metadata"] == {"name": "mocme"}


@pytest.mark.parametrize(("flags", "status"), [([], 75), (["--config.parallel.stopped_status=9"], 9)])
def test_a_stopped_run_is_started_again_without_counting(flags, status):
    value = manifest(*flags)
    (rule,) = job_of(value)["podFailurePolicy"]["rules"]
    codes = {"containerName": "train", "operator": "In", "values": [status]}
    assert rule == {"action": "FailJob", "onExitCodes": codes}
    policy = value["spec"]["failurePolicy"]
    assert [(one["action"], one["onJobFailureReasons"]) for one in policy["rules"]] == [
        ("RestartJobSetAndIgnoreMaxRestarts", ["PodFailurePolicy"])
    ]
    # Any other status is a failure that counts, at the first pod.
    assert (policy["maxRestarts"], job_of(value)["backoffLimit"]) == (10, 0)


@pytest.mark.parametrize(
    "flag",
    [
        *(
            "--image=a b",
            "--image=x'y",
            "--claim=Disk",
            "--claim=a/b",
            "--name=1st",
            "--name=a_b",
            f"--name={'n' * 41}",
        ),
        *("--namespace=A", "--namespace=a.b", "--pods=0", "--pods=two", "--gpus=-1", "--gpus=", "--tpus=0"),
        *("--cpus=many", "--memory=64GB", "--shm=", "--grace=0", "--node-selector=a", "--node-selector=a b=c"),
        *("--node-selector=a='", "--toleration=a", "--toleration=a:Never", "--config.parallel.stopped_status=0"),
        "--name=a\nb: c",
    ],
)
def test_values_are_checked(flag):
    result = dry_run(*NAMED, flag)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: {flag}: expected ")


@pytest.mark.parametrize("character", ["\n", "\r", "\x01"])
def test_a_flag_with_a_control_character_is_refused(character):
    result = dry_run(*NAMED, f"--workdir=a{character}- b")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "error: a flag has a line break or another control character: --workdir=a\n"


def test_the_schema_finds_faults():
    value = manifest("--toleration=a:NoSchedule")
    for path, wrong, told in (
        (["kind"], "Job", "kind: 'Job' is none of"),
        (["spec", "failurePolicy", "rules", 0, "action"], "Restart", "is none of"),
        (["metadata", "name"], "A", "does not match"),
    ):
        changed = json.loads(json.dumps(value))
        place = changed
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = wrong
        assert any(told in fault for fault in faults(changed, SCHEMA))
    pod_of(value)["tolerations"][0]["effects"] = "x"
    job_of(value)["parallelism"] = "2"
    del pod_of(value)["containers"]
    assert len(faults(value, SCHEMA)) == 3


def test_the_help_says_what_the_claim_must_be():
    text = subprocess.run(["bash", str(SCRIPT), "--help"], capture_output=True, text=True, timeout=30).stdout
    assert "ReadWriteMany" in text


def test_the_image_holds_what_an_installation_needs():
    """As text: Docker is not needed."""
    lines = (ROOT / "launch" / "Dockerfile").read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert [name for name in copied if not (ROOT / name).exists()] == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"mocme_jax", "configs", "pyproject.toml", project["readme"], *project["license-files"]} <= set(copied)
    extras = project["optional-dependencies"]
    (default,) = (line.removeprefix("ARG EXTRA=") for line in lines if line.startswith("ARG EXTRA="))
    assert extras[default] == ["jax[cuda13]>=0.10"]
    assert extras["gpu-cuda12"] == ["jax[cuda12]>=0.10"]
    assert extras["tpu"] == ["jax[tpu]>=0.10"]
    (version,) = (line.split(":")[1].split("-")[0] for line in lines if line.startswith("FROM python:"))
    low, high = re.findall(r"3\.(\d+)", project["requires-python"])
    assert int(low) <= int(version.removeprefix("3.")) < int(high)
    assert 'ENTRYPOINT ["python", "-m", "mocme_jax.train"]' in lines
