"""Attacks a run's folder, and tells what the commands make of it.

    python -m tests.drills.attacks [--workdir DIR] [--only WORD] [--seconds S] [--verbose]

Trains a small model once. Each attack is made on a copy of its folder, and a real command is run on the copy, in a
process of its own, for at most 120 s. Wrong is: a hang, a traceback or more than one line, another status than 0 and 2
(and 1, of evaluate: other numbers), more than 600 MiB above what the command takes on a folder as it was, a file that
was changed outside of the folder, or anything that a refused command changed in it. Prints a table by kind of attack.
Status 1: something was wrong.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import hashlib
import importlib
import os
import random
import re
import shutil
import signal
import stat
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax

from mocme_jax.command_line import run

from .attack_table import Attack, attacks
from .attacked_runs import FLAGS, make_runs

SECONDS = 120
MEMORY = 600 << 20
KILLED = 3 << 30
# What a command that refuses may leave.
LEFT = ("lock",)


@dataclasses.dataclass
class Outcome:
    """What came of one command: its status, what it told on standard error, KiB at most, seconds, what is wrong."""

    status: int
    told: str
    peak: int
    seconds: float
    wrong: list[str]


def command(flags: list[str], folder: Path) -> Outcome:
    """Runs a command in a process that is forked off this one, which has imported all that takes long."""
    told, start = folder / "told", time.monotonic()
    # The child's buffers are its own.
    sys.stdout.flush()
    child = os.fork()
    if not child:
        _be_the_command(flags, told, folder / "work")
    deadline, done = start + SECONDS, 0
    held = 0
    while not done and time.monotonic() < deadline and held < KILLED:
        time.sleep(0.01)
        held = _held(child)
        done, status, used = os.wait4(child, os.WNOHANG)
    if not done:
        os.kill(child, signal.SIGKILL)
        _, status, used = os.wait4(child, 0)
    text, wrong = told.read_text(errors="replace"), []
    code = os.waitstatus_to_exitcode(status)
    lines = [line for line in text.splitlines() if line.strip()]
    if not done:
        wrong.append("hang" if held < KILLED else "killed for its memory")
    elif code not in (0, 2) and not (code == 1 and flags[0] == "evaluate"):
        wrong.append(f"status {code}")
    # Commands tell what they are at before, and not after.
    if "Traceback" in text or len(lines) > 20 or (code == 2 and not (lines and re.match("error: ", lines[-1]))):
        wrong.append("traceback, or no one line")
    return Outcome(code, "\n".join(lines), used.ru_maxrss, time.monotonic() - start, wrong)


def _held(process: int) -> int:
    """Bytes of a process, of itself alone; a limit of addresses would make libraries hang."""
    with open(f"/proc/{process}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _be_the_command(flags: list[str], told: Path, folder: Path) -> None:
    status = 70
    try:
        for number, path in ((1, os.devnull), (2, str(told))):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
        os.setsid()
        folder.mkdir(exist_ok=True)
        os.chdir(folder)
        sys.argv = [f"mocme_jax.{flags[0]}", *flags[1:]]
        name = "report.__main__" if flags[0] == "report" else flags[0]
        main: Callable = importlib.import_module(f"mocme_jax.{name}").main
        try:
            run(main)
        except SystemExit as end:
            status = end.code or 0
    except BaseException:
        import traceback

        os.write(2, traceback.format_exc().encode(errors="replace"))
        status = 1
    finally:
        os._exit(status)


def contents(folder: Path) -> dict[str, str]:
    """What is in a folder, without opening what is no file: kind, size and the digest of what is small."""
    found = {}
    for path in sorted(folder.rglob("*")):
        info = path.lstat()
        small = stat.S_ISREG(info.st_mode) and info.st_size < 1 << 26
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if small else ""
        found[path.relative_to(folder).as_posix()] = f"{stat.S_IFMT(info.st_mode)} {digest}"
    return {name: value for name, value in found.items() if name not in LEFT}


def attack(one: Attack, runs: Path, folder: Path) -> Outcome:
    """Makes an attack on a copy of its run, runs its command, and compares what is in the folders then."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(runs, folder, symlinks=True)
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "note.txt").write_text("mine")
    one.change(folder)
    places = [folder / name for name in ("elsewhere", "graph")]
    before, own = [contents(place) for place in places], contents(folder / one.run)
    flags = [part.format(folder=folder, run=folder / one.run) for part in FLAGS[one.command]]
    outcome = command([one.command.split()[0], *flags], folder)
    if [contents(place) for place in places] != before:
        outcome.wrong.append("changed files elsewhere")
    if outcome.status == 2 and contents(folder / one.run) != own:
        outcome.wrong.append("refused, but changed the folder")
    return outcome


def drill(workdir: Path, only: str, seconds: float, verbose: bool) -> int:
    """Makes the attacks; returns how many went wrong, or all where a command fails on a folder as it was."""
    # Forked processes begin where this one is.
    jax.config.update("jax_compilation_cache_dir", str(workdir / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    runs = make_runs(workdir / "runs", lambda flags: command(flags, workdir))
    table = [one for one in attacks(runs) if only in f"{one.kind}: {one.name} ({one.command})"]
    peaks: dict[str, int] = {}
    for name in dict.fromkeys(one.command for one in table):
        found = attack(Attack("none", "as it was", name, lambda folder: None), runs, workdir / "case")
        if found.wrong or found.status:
            print(f"{name}: fails on a folder as it was: {found}")
            return len(table)
        peaks[name] = found.peak
    counts: dict[str, collections.Counter] = {}
    # What there is no time for is left out by chance.
    random.Random(0).shuffle(table)
    start = time.monotonic()
    for one in table:
        if time.monotonic() - start > seconds:
            break
        found = attack(one, runs, workdir / "case")
        above = max(found.peak - peaks[one.command], 0)
        if above << 10 > MEMORY:
            found.wrong.append(f"{above >> 10} MiB")
        count = counts.setdefault(one.kind, collections.Counter())
        count.update(attacks=1, refused=found.status == 2, wrong=bool(found.wrong))
        count["hangs"] += "hang" in found.wrong
        count["tracebacks"] += any("traceback" in what for what in found.wrong)
        count["changed"] += any("changed" in what for what in found.wrong)
        count["MiB"] = max(count["MiB"], above >> 10)
        count["seconds"] = max(count["seconds"], round(found.seconds))
        if found.wrong or verbose:
            print(f"{one.kind}: {one.name} ({one.command}): {', '.join(found.wrong) or 'well'}; {found.status}")
            print(f"    {found.told.splitlines()[-1][:400] if found.told else ''}", flush=True)
    columns = ("attacks", "refused", "hangs", "tracebacks", "changed", "wrong", "MiB", "seconds")
    total = collections.Counter()
    for count in counts.values():
        total.update({name: count[name] for name in columns[:-2]})
        for name in columns[-2:]:
            total[name] = max(total[name], count[name])
    print(f"{'kind':<28}" + "".join(f"{name:>12}" for name in columns))
    for kind, count in {**counts, "in all": total}.items():
        print(f"{kind:<28}" + "".join(f"{count[name]:>12,}" for name in columns))
    return total["wrong"]


def main() -> int:
    """Reads the flags."""
    parser = argparse.ArgumentParser(prog="python -m tests.drills.attacks", description=__doc__)
    parser.add_argument("--workdir", type=Path, help="folder of the runs, kept for the next time; none: a new one")
    parser.add_argument("--only", default="", help="attacks that have this in their line")
    parser.add_argument("--seconds", type=float, default=1e9, help="no attack is begun later; without: all are made")
    parser.add_argument("--verbose", action="store_true", help="a line for each attack")
    flags = parser.parse_args()
    # And with everything imported and no device in use.
    for name in ("training.run", "training.reevaluation", "serving.prediction_output", "report.report_writer"):
        importlib.import_module(f"mocme_jax.{name}")
    how = flags.only, flags.seconds, flags.verbose
    if flags.workdir:
        flags.workdir.mkdir(parents=True, exist_ok=True)
        return 1 if drill(flags.workdir.resolve(), *how) else 0
    with tempfile.TemporaryDirectory() as folder:
        return 1 if drill(Path(folder), *how) else 0


if __name__ == "__main__":
    sys.exit(main())
