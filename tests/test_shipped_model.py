"""The small trained model that comes with the package, and the command ``mocme``."""

import json
import os
import subprocess
import sys

import pytest
from command_runner import ROOT, contents, environment, run_here

import mocme_jax
from mocme_jax import __main__ as console_script
from mocme_jax.data.atlas import MODEL


def test_it_is_small_and_names_no_folder_of_the_machine_that_made_it():
    files = [path for path in MODEL.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 3_500_000
    assert not [path for path in files if b"/home" in path.read_bytes() or b"/tmp" in path.read_bytes()]


@pytest.mark.slow
def test_it_answers_without_a_folder_and_changes_nothing(tmp_path, monkeypatch, capsys):
    before = contents(MODEL)
    monkeypatch.chdir(tmp_path)
    assert run_here("predict", "--head=France", "--relation=borders", "--json", monkeypatch=monkeypatch) == 0
    printed = capsys.readouterr()
    assert {"Belgium", "Spain"} < {row["name"] for row in json.loads(printed.out)}
    assert "using the model of atlas that comes with mocme_jax" in printed.err
    assert mocme_jax.load().complete(head="Paris", relation="capital_of", k=1)[0].name == "France"
    assert contents(MODEL) == before


@pytest.mark.slow
def test_its_scores_are_those_of_its_card(monkeypatch, capsys):
    assert run_here("evaluate", f"--workdir={MODEL}", monkeypatch=monkeypatch) in (0, 1)
    (test,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("│ test "))
    saved = json.loads((MODEL / "results.json").read_text(encoding="utf-8"))["test"]["overall"]["mrr"]
    # To the last digit on the same kind of processor alone.
    assert abs(float(test.split("│")[3]) - saved) < 2e-3
    assert f"| {saved:.4f} |" in (MODEL / "MODEL_CARD.md").read_text(encoding="utf-8")


def test_every_command_is_a_subcommand():
    commands = {path.stem for path in ROOT.glob("mocme_jax/*.py") if "run(main)" in path.read_text(encoding="utf-8")}
    commands |= {path.parent.name for path in ROOT.glob("mocme_jax/*/__main__.py")}
    assert commands - {"__main__"} == set(console_script.COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([], 0, ["usage: mocme COMMAND", "train", "Trains MoCME on a graph"]),
        (["--version"], 0, [f"mocme_jax {mocme_jax.__version__}"]),
        (["plan", "--help"], 0, ["usage: mocme plan [--config=FILE]"]),
        (["predict", "--hed=France"], 2, ["error: unknown flag --hed; did you mean --head?"]),
        (["trian"], 2, ["error: unknown command trian; did you mean train?"]),
    ],
)
def test_mocme_runs_the_commands(arguments, status, words, tmp_path):
    command = [sys.executable, "-m", "mocme_jax", *arguments]
    ran = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert ran.returncode == status, ran.stderr
    for word in words:
        assert word in ran.stdout + ran.stderr
    assert os.listdir(tmp_path) == []
