"""The commands as a user starts them: exit status, one line of error, nothing heavy before flags are read."""

import importlib
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from command_runner import environment

from mocme_jax.__main__ import COMMANDS
from mocme_jax.command_line import run
from mocme_jax.config_fields import FIELDS
from mocme_jax.errors import UserError, enough_memory
from mocme_jax.printed_commands import python, to_install

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


# What pages, docstrings and messages print: the command, and its flags up to what ends them.
VALUE = r"(?:\"[^\"\n]*\"|(?:{[^}]*}|<\w+>|[\w./:,+-])+)"
COMMAND = re.compile(rf"(?:python -m mocme_jax\.|\bmocme )([a-z]+\b(?!\.\w))((?:[ ]+--[a-z][\w.-]*(?:={VALUE})?)*)")


def printed_commands() -> set[tuple[str, str]]:
    pages = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("launch/*.sh")]
    sources = [*ROOT.glob("configs/**/*.py"), *ROOT.glob("mocme_jax/**/*.py"), *ROOT.glob("mocme_jax/**/*.html")]
    found = {one for path in [*pages, *sources] for one in COMMAND.findall(path.read_text(encoding="utf-8"))}
    # A word after the name is a command if it is known as one or has flags.
    return {(command, flags) for command, flags in found if command in COMMANDS or flags}


def test_every_command_that_is_printed_anywhere_has_flags_that_are_there(monkeypatch, capsys):
    commands = printed_commands()
    assert ("predict", " --workdir=runs/atlas --all-new --relations=borders --k=100 --out=new.tsv") in commands
    assert len(commands) > 40
    for command, flags in sorted(commands):
        argv = shlex.split(re.sub("{.*?}", "components", flags.replace("=CONFIG", "=atlas")))
        # Flags are read before help is given.
        monkeypatch.setattr(sys, "argv", [f"mocme {command}", *argv, "--help"])
        with pytest.raises(SystemExit) as caught:
            importlib.import_module(f"mocme_jax.{COMMANDS[command]}").main()
        assert not caught.value.code, (command, flags)
        assert "usage:" in capsys.readouterr().out


def test_commands_of_the_front_page_run_in_the_environment_that_the_quickstart_made(tmp_path):
    """With nothing but a shell's own folders on the path, where there may be no python."""
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    section = page.partition("## Quickstart\n")[2].partition("\n## ")[0]
    block = "".join(re.findall(r"```bash\n(.*?)```", section, re.DOTALL))
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    # As venv makes them, but for a program that notes how it is called.
    (programs / "activate").write_text(f'PATH="{programs}:$PATH"\n')
    (programs / "mocme").write_text('#!/bin/sh\necho "$*" >> ran\n')
    (programs / "mocme").chmod(0o755)
    path = {"PATH": os.pathsep.join(["/usr/bin", "/bin"])}
    subprocess.run(["bash", "-euc", block], cwd=tmp_path, env=path, check=True)
    ran = (tmp_path / "ran").read_text(encoding="utf-8").splitlines()
    assert ran == [line.partition("#")[0][len("mocme ") :].strip() for line in block.splitlines()[1:]]
    assert len(ran) >= 5


def test_the_command_that_installs_an_extra_works_from_a_clone(tmp_path, monkeypatch):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "mocme_jax").rglob("*.py"))
    named = re.findall(r"(?:to_install\(|needed_package\([^\n]*, )extra=['\"](\w+)['\"]\)", text)
    assert {"text", "report", "parquet"} <= set(named) <= extras.keys()
    # Who types it may have no mocme_jax on an index, nor this Python as ``python``.
    monkeypatch.chdir(ROOT)
    interpreter, *command = shlex.split(to_install(extra="text"))
    assert command == ["-m", "pip", "install", "-e", ".[text]"]
    assert subprocess.run([interpreter, "-c", "import mocme_jax"], capture_output=True).returncode == 0
    monkeypatch.chdir(tmp_path)
    assert shlex.split(to_install(extra="text"))[-1] == f"{ROOT}[text]"
    beside = tmp_path / ".venv" / "bin" / "python"
    monkeypatch.setattr(sys, "executable", str(beside))
    assert python() == ".venv/bin/python"
    beside.parent.mkdir(parents=True)
    beside.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(beside.parent))
    assert python() == "python"
    for page in (ROOT / "README.md", *ROOT.glob("docs/**/*.md")):
        assert set(re.findall(r"pip install [^`]*mocme_jax", page.read_text(encoding="utf-8"))) == set(), page


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "out of memory in a step; lower it"),
        (
            RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 41910933376 bytes."),
            "out of memory in a step (41.9 GB more are needed); lower it",
        ),
    ],
)
def test_memory_that_has_run_out_is_one_line_with_its_cure(error, words, capsys):
    def main():
        with enough_memory("a step", "lower it"):
            raise error

    with pytest.raises(SystemExit) as caught:
        run(main)
    assert (caught.value.code, capsys.readouterr().err) == (2, f"error: {words}\n")

    def elsewhere():
        raise error

    with pytest.raises(SystemExit) as caught:
        run(elsewhere)
    assert caught.value.code == 2
    assert "out of memory in this command" in capsys.readouterr().err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize(
    ("redirection", "status", "told"),
    [
        (">/dev/full", 2, "error: standard output cannot be written (No space left on device)\n"),
        (">&-", 0, ""),
        ("| true", 0, ""),
    ],
)
def test_output_that_goes_nowhere_ends_in_a_line_at_most(redirection, status, told, tmp_path):
    graph = ROOT / "mocme_jax" / "data" / "atlas"
    command = f"set -o pipefail; {sys.executable} -m mocme_jax.audit --data={graph} {redirection}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path, env=environment())
    assert (done.returncode, done.stderr) == (status, told)
