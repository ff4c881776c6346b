"""Runs a reader's inputs in guarded processes and gathers what came of them."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from .readers import temporary_folder
from .worker import HANG, STATE

ROOT = Path(__file__).resolve().parents[2]
WORKER = "tests.fuzz.worker"
# Processes that may die before a reader is given up.
DEATHS = 20


@dataclasses.dataclass
class Outcome:
    """What came of one reader.

    Attributes:
      reader: its name.
      inputs, refused, accepted: counts; a refused one raised UserError.
      peak: bytes taken at most, above what the process held before.
      longest: the processor's seconds that one input took at most.
      seconds: in all, by the clock.
      failures: seeds and what went wrong.
    """

    reader: str
    inputs: int = 0
    refused: int = 0
    accepted: int = 0
    peak: int = 0
    longest: float = 0.0
    seconds: float = 0.0
    failures: list[tuple[int, str]] = dataclasses.field(default_factory=list)


def fuzz(reader: str, *, seed: int, inputs: int, seconds: float) -> Outcome:
    """Reads malformed files with one reader: those of ``seed``, ``seed + 1`` and so on.

    Args:
      reader: a name in READERS.
      seed: of the first input; an input's own seed makes it again.
      inputs: how many at most.
      seconds: of the processor at most, without the start of the process; a machine that is busy gets as far.
    """
    outcome, start = Outcome(reader), time.monotonic()
    folder = temporary_folder()
    (folder / "state").write_bytes(bytes(STATE.size))
    (folder / "failures").touch()
    last = seed + inputs
    try:
        for _ in range(DEATHS):
            left = seconds - (time.monotonic() - start)
            command = [
                sys.executable,
                "-m",
                WORKER,
                reader,
                str(seed),
                str(last - seed),
                str(max(left, 0.1)),
                str(folder),
            ]
            result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False)
            at, outcome.inputs, outcome.refused, outcome.accepted, outcome.peak, outcome.longest = STATE.unpack(
                (folder / "state").read_bytes()
            )
            if at < 0:
                break
            told = " ".join(result.stderr.split())[-900:]
            hung = result.returncode == -signal.SIGPROF or "Timeout" in told
            kind = f"a hang of more than {HANG:g} s" if hung else f"died with status {result.returncode}"
            outcome.failures.append((at, f"{kind}: {told}"))
            outcome.inputs += 1
            state = STATE.pack(0, outcome.inputs, outcome.refused, outcome.accepted, outcome.peak, outcome.longest)
            (folder / "state").write_bytes(state)
            seed = at + 1
        for line in (folder / "failures").read_text(encoding="utf-8").splitlines():
            failure = json.loads(line)
            outcome.failures.append((failure["seed"], failure["fault"]))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    outcome.seconds = time.monotonic() - start
    return outcome


def table(outcomes: list[Outcome]) -> str:
    """The outcomes, a line a reader, and their sums."""
    columns = "".join(f"{name:>9}" for name in ("inputs", "refused", "accepted", "failures"))
    head = f"{'reader':<14}{columns}{'MiB':>6}{'cpu s':>10}{'seconds':>9}"
    total = Outcome("in all")
    for one in outcomes:
        for name in ("inputs", "refused", "accepted", "seconds"):
            setattr(total, name, getattr(total, name) + getattr(one, name))
        total.peak, total.longest = max(total.peak, one.peak), max(total.longest, one.longest)
        total.failures = total.failures + one.failures
    lines = [
        f"{one.reader:<14}{one.inputs:>9,}{one.refused:>9,}{one.accepted:>9,}{len(one.failures):>9,}"
        f"{one.peak >> 20:>6,}{one.longest:>10.2f}{one.seconds:>9.1f}"
        for one in [*outcomes, total]
    ]
    return "\n".join([head, *lines])


def describe(outcome: Outcome, most: int = 5) -> str:
    """The failures of a reader, each with the command that makes it again."""
    lines = []
    for seed, fault in outcome.failures[:most]:
        again = f"python -m tests.fuzz --reader '{outcome.reader}' --seed {seed} --inputs 1"
        lines.append(f"{outcome.reader}, seed {seed}: {fault.strip()}{os.linesep}  again: {again}")
    if len(outcome.failures) > most:
        lines.append(f"{outcome.reader}: {len(outcome.failures) - most} failures more")
    return "\n".join(lines)
