"""The commands as a user starts them: exit status, one line of error, nothing heavy before flags are read."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mocme_jax.command_line import run
from mocme_jax.config_fields import FIELDS
from mocme_jax.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
HEAVY = ("jax", "jaxlib", "flax", "optax", "orbax", "chex", "scipy", "tensorboardX")


def start(*argv: str, folder: Path) -> subprocess.CompletedProcess:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, *argv],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_help_lists_the_fields_without_importing_jax(tmp_path):
    result = start("-X", "importtime", "-m", "mocme_jax.train", "--config=db15k", "--help", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("usage: python -m mocme_jax.train [--config=FILE] [--workdir=DIR]")
    for path in FIELDS:
        assert f"  {path} " in result.stdout
    assert "DB15K" in result.stdout
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in result.stderr.splitlines()}
    assert "ml_collections" in imported  # the list is what it seems to be
    assert imported.isdisjoint(HEAVY)
    assert list(tmp_path.iterdir()) == []


def test_usage_tells_what_must_be_given_and_what_takes_no_value(tmp_path):
    usage = start("-m", "mocme_jax.prepare", "--help", folder=tmp_path).stdout.partition("\n\n")[0]
    words = usage.split()
    assert words[:6] == ["usage:", "python", "-m", "mocme_jax.prepare", "--data=VALUE", "--out=VALUE"]
    assert {"[--text=VALUE]", "[--triples]", "[--overwrite]"} <= set(words)
    assert max(map(len, usage.splitlines())) <= 100


@pytest.mark.parametrize(
    "argument",
    ["--cnofig=atlas", "--config=absent.py", "--config.no.such=1", "--config.train.epochs=-1", "stray"],
)
def test_a_user_error_is_one_line_and_status_2(argument, tmp_path):
    result = start("-m", "mocme_jax.train", argument, folder=tmp_path)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def raising(error: BaseException):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ("main", "status", "stderr"),
    [
        (lambda: None, 0, ""),
        (lambda: 1, 1, ""),
        (raising(UserError("a.txt, line 3:\n  mend it")), 2, "error: a.txt, line 3: mend it\n"),
        (raising(KeyboardInterrupt()), 130, "interrupted\n"),
    ],
)
def test_run_turns_the_end_of_main_into_a_status(main, status, stderr, capsys):
    with pytest.raises(SystemExit) as caught:
        run(main)
    assert caught.value.code == status
    assert capsys.readouterr().err == stderr


def test_run_keeps_the_traceback_of_a_defect():
    with pytest.raises(ZeroDivisionError):
        run(raising(ZeroDivisionError()))
