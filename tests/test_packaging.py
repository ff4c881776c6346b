"""The wheel in an environment of its own, and the source distribution: what they hold is enough."""

import os
import shutil
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

import pytest
from command_runner import ROOT

# Built as pip would, but with the setuptools that is here: nothing is fetched.
BUILD = "import sys, setuptools.build_meta as backend; print(getattr(backend, sys.argv[1])(sys.argv[2]))"


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Path]:
    """The wheel, and the folder of the unpacked source distribution, from which it was built."""
    folder = tmp_path_factory.mktemp("built")
    # A build leaves files in its folder.
    left_out = shutil.ignore_patterns(".git", ".venv", "runs", "_build", "*.egg-info", "__pycache__", ".*_cache")
    archive = folder / build("build_sdist", shutil.copytree(ROOT, folder / "clone", ignore=left_out), folder)
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    source = folder / archive.name.removesuffix(".tar.gz")
    return folder / build("build_wheel", source, folder), source


def build(what: str, source: Path, folder: Path) -> str:
    """The name of the file that was built."""
    ran = run([sys.executable, "-c", BUILD, what, str(folder)], source)
    return ran.split()[-1]


def run(command: list, folder: Path, **variables: str) -> str:
    """What a command prints in a folder; this clone is not on Python's path."""
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | variables
    ran = subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.mark.slow
def test_the_wheel_answers_and_trains_in_an_empty_environment(built, tmp_path):
    home = tmp_path / "env"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", str(built[0])]
    run(pip, tmp_path, PIP_NO_INDEX="1")
    # The dependencies are those of this environment. A path file does not read the path files it leads to, so that an
    # editable installation of the package is not seen.
    (packages,) = home.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(
        "\n".join(path for path in sys.path if path.endswith("site-packages")) + "\n", encoding="utf-8"
    )
    assert run([python, "-c", "import mocme_jax; print(mocme_jax.__file__)"], tmp_path).startswith(str(packages))
    mocme = home / "bin" / "mocme"
    assert "Belgium" in run([mocme, "predict", "--head", "France", "--relation", "borders"], tmp_path)
    short = ["--config.train.epochs=1", "--config.train.eval_every=1", "--config.model.width=8"]
    assert "test, tails" in run([mocme, "train", *short], tmp_path)
    assert (tmp_path / "runs" / "atlas" / "MODEL_CARD.md").exists()
    assert "usage: mocme report" in run([mocme, "report", "--help"], tmp_path)


@pytest.mark.slow
def test_the_source_distribution_holds_its_tests_and_what_they_read(built):
    source = built[1]
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode == 0:
        names = set(tracked.stdout.splitlines()) - {".gitignore", ".gitattributes"}
        assert not [name for name in names if not (source / name).exists()]
    tests = ["tests/test_house.py", "tests/test_config.py", "tests/test_scoring.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    assert " passed" in run(command, source, PYTHONPATH=str(source))
