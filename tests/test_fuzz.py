"""A few hundred malformed files for every reader; and that the guard sees what it looks for.

Longer: ``python -m tests.fuzz --seconds 600 --seed 1``.
"""

import re
import subprocess
import sys

import pytest
from fuzz.campaign import ROOT, Outcome, describe, fuzz, table
from fuzz.faulty import FAULTY
from fuzz.readers import READERS, Inputs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="memory is limited and measured as Linux does it"),
]


@pytest.mark.parametrize("reader", READERS)
def test_malformed_files_are_refused_in_one_line_or_read(reader):
    if READERS[reader].needs:
        pytest.importorskip(READERS[reader].needs)
    outcome = fuzz(reader, seed=0, inputs=300, seconds=3)
    assert not outcome.failures, describe(outcome)
    assert outcome.refused + outcome.accepted == outcome.inputs
    assert min(outcome.inputs, outcome.accepted) > 0
    # A run's log drops the lines that are no rows, and refuses a file only where it is no file.
    assert outcome.refused or reader == "metrics"


NOTICED = {
    "runs code": "code was run|opened .*canary",
    "starts a program": r"os\.system",
    "reads elsewhere": "opened /proc/cpuinfo",
    "believes a size": "MemoryError",
    "takes for ever": "a hang of more than 5 s.*takes_for_ever",
    "leaves the process": "died with status 0",
    "raises": "KeyError: 'rows'",
    "warns": "UserWarning: odd",
    "prints": "printed: odd",
    "says two lines": "not one printable line",
    "names no file": "names no file: odd",
    "is wrong": "accepted, but wrong",
}


@pytest.mark.parametrize("fault", NOTICED)
def test_the_guard_notices(fault):
    outcome = fuzz(fault, seed=3, inputs=1, seconds=60)
    ((seed, what),) = outcome.failures
    assert seed == 3
    assert re.search(NOTICED[fault], what, re.DOTALL), what


def test_every_fault_is_tried():
    assert NOTICED.keys() == FAULTY.keys()


def test_an_input_is_its_seeds(tmp_path):
    inputs = [Inputs("npz", tmp_path / "canary") for _ in range(2)]
    seeds = range(40)
    assert [inputs[0].files(seed) for seed in seeds] == [inputs[1].files(seed) for seed in reversed(seeds)][::-1]
    assert inputs[0].files(0) != inputs[0].files(1)


def test_the_command_counts_and_tells_failures_by_its_status():
    command = [sys.executable, "-m", "tests.fuzz", "--reader=labels", "--inputs=20", "--seed=5"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[1].split()[:2] == ["labels", "20"]
    failed = Outcome("x", inputs=2, refused=1, failures=[(7, "odd")])
    assert table([failed]).splitlines()[-1].split()[2:6] == ["2", "1", "0", "1"]
    assert "--reader 'x' --seed 7 --inputs 1" in describe(failed)
