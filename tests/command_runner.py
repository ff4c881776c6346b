"""Commands started as a user starts them, in a process of their own or, quicker, in this one."""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mocme_jax.command_line import run

ROOT = Path(__file__).resolve().parent.parent


def environment() -> dict[str, str]:
    """This process's, with the repository on Python's path."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}


def start(module: str, *argv: str, folder: Path) -> subprocess.Popen:
    """``python -m mocme_jax.<module>`` in ``folder``, its outputs piped."""
    # Whoever started the tests in the background may have had SIGINT ignored, which children would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(
        [sys.executable, "-m", f"mocme_jax.{module}", *argv],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_process(module: str, *argv: str, folder: Path) -> subprocess.CompletedProcess:
    """The same, to its end."""
    process = start(module, *argv, folder=folder)
    stdout, stderr = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def run_here(module: str, *argv: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """The same command in this process; returns its exit status. What it prints is capsys's to read."""
    monkeypatch.setattr(sys, "argv", [f"mocme_jax.{module}", *argv])
    with pytest.raises(SystemExit) as caught:
        run(importlib.import_module(f"mocme_jax.{module}").main)
    return caught.value.code or 0


def assert_one_error(status: int, stderr: str, *words: str) -> None:
    """A user's error is one line that holds the words, and status 2."""
    assert status == 2, stderr
    assert re.fullmatch(r"error: .*\n", stderr), stderr
    assert "Traceback" not in stderr
    for word in words:
        assert word in stderr, stderr


def contents(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a folder, and an empty text for each folder in it."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in sorted(folder.rglob("*"))
    }
