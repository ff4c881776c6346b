"""A few attacks on a run's folder in every run of the tests; all of them are a command."""

import subprocess
import sys

import pytest
from command_runner import ROOT, environment


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured as Linux does it")
def test_attacked_folders_are_read_or_refused_in_one_line():
    command = [sys.executable, "-m", "tests.drills.attacks", "--only=(predict)", "--seconds=20"]
    result = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    last = result.stdout.splitlines()[-1].split()
    assert last[:2] == ["in", "all"]
    assert int(last[2]) > 0
