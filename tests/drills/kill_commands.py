"""Kills commands that write files, starts them again until they end, and compares the files with an undisturbed run's.

    python -m tests.drills.kill_commands --times 200 [--seed S] [--workdir DIR] [--commands NAME,NAME]

The commands take turns, on a tiny graph and one CPU device. Each kill is a signal at a moment drawn at random: anywhere
in the command, or soon after it has changed something where it writes. A killed command is started again until it ends
by itself. Then its files must be those of the undisturbed run, bit for bit but for the seconds that they tell. No file
may be missing or left over, except temporary ones (``.NAME.part``), which nobody reads. Status 1: something differed.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tiny_graph import ENTITIES, tiny_flags, write_tiny_graph

ROOT = Path(__file__).resolve().parent.parent.parent
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
PLACES = ("anywhere", "output")
TIMEOUT = 600
QUERIES = 12_000
# Below a command's folder, whatever it writes.
OUT = "out"
# Of a training that a signal stopped.
STOPPED = 75
# Of a program that ends in good order, or as the signal ends any.
STATUSES = {
    signal.SIGKILL: {-signal.SIGKILL},
    signal.SIGTERM: {0, STOPPED, -signal.SIGTERM, 128 + signal.SIGTERM},
    signal.SIGINT: {0, STOPPED, -signal.SIGINT, 128 + signal.SIGINT},
}
CELLS = """
def get_cells(config, modalities, alone):
    return {"full": {}, "plain": {"model.cardinality": 0.0}}
"""
SPACE = """
from mocme_jax.studies.search_space import Log

def get_space(config):
    return {"train.learning_rate": Log(1e-3, 1e-2)}
"""
# As write_atomically calls what it is writing.
_TEMPORARY = re.compile(r"\.[a-z0-9_]{8}\.part")
# Numbers of clocks.
SECONDS = {"seconds", "minutes"}


class Command(NamedTuple):
    """A command to kill.

    Attributes:
      flags: of a folder that it may write, and that ``source`` was copied to.
      source: what the folder holds at the start; None for nothing.
    """

    name: str
    flags: Callable[[Path], list[str]]
    source: Path | None


def commands(folder: Path, names: Sequence[str] = ()) -> list[Command]:
    """Those of these names, or all, their inputs written into a folder."""
    graph = write_tiny_graph(folder / "graph")
    other = write_tiny_graph(folder / "other", seed=1)
    numbers = [f"place {place}\tsize\t{place * place}\n" for place in range(ENTITIES)]
    (graph / "numeric.tsv").write_text("".join(numbers), encoding="utf-8")
    asked = [("?", "next", "place {}"), ("place {}", "opposite", "?"), ("place {}", "?", "place 0")]
    rows = ["\t".join(asked[row % 3]).format(row % ENTITIES) + "\n" for row in range(QUERIES)]
    (folder / "queries.tsv").write_text("".join(rows), encoding="utf-8")
    (folder / "cells.py").write_text(CELLS, encoding="utf-8")
    (folder / "space.py").write_text(SPACE, encoding="utf-8")
    fields = dict(data__modalities="text,numeric", train__average=20, model__cardinality=0.5)
    trained, before = folder / "trained", folder / "before"
    prepared = ["--overwrite", "--triples"]
    study = dict(train__save_minutes=0.001, train__epochs=12, **fields)

    def predict(out: str, *flags: str) -> Callable[[Path], list[str]]:
        return lambda at: ["predict", f"--workdir={at / 'run'}", f"--out={at / 'out' / out}", *flags]

    def queries(out: str) -> Callable[[Path], list[str]]:
        return predict(out, f"--queries={folder / 'queries.tsv'}", "--k=5")

    found = [
        Command("prepare", lambda at: ["prepare", f"--data={graph}", f"--out={at / 'out'}", *_made(graph)], None),
        Command(
            "prepare --triples",
            lambda at: ["prepare", f"--data={graph}", f"--out={at / 'out'}", *prepared, "--dev-fraction=0.1"],
            before,
        ),
        Command("predict .tsv", queries("a.tsv"), trained),
        Command("predict .jsonl", queries("a.jsonl"), trained),
        Command("predict .parquet", queries("a.parquet"), trained),
        Command("predict --all-new", predict("new.tsv", "--all-new", "--k=500"), trained),
        Command(
            "export",
            lambda at: ["export", f"--workdir={at / 'run'}", f"--out={at / 'out'}", "--formats=npz,safetensors,jax"],
            trained,
        ),
        Command(
            "ablate",
            lambda at: ["ablate", *tiny_flags(graph, at / "out", **study), "--seeds=2", f"--study={folder}/cells.py"],
            None,
        ),
        Command(
            "search",
            lambda at: ["search", *tiny_flags(graph, at / "out", **study), "--trials=3", f"--space={folder}/space.py"],
            None,
        ),
    ]
    found = [command for command in found if not names or command.name in names]
    if any(command.source == trained for command in found):
        _end(["train", *tiny_flags(graph, trained / "run", **fields, train__epochs=6)])
        shutil.rmtree(trained / "run" / "tensorboard", ignore_errors=True)
    if any(command.source == before for command in found):
        _end(["prepare", f"--data={other}", f"--out={before / 'out'}", *prepared])
    return found


def _made(graph: Path) -> list[str]:
    return ["--text=names", f"--numeric={graph / 'numeric.tsv'}", "--overwrite"]


def _environment() -> dict[str, str]:
    # Compiling would be most of the time.
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return os.environ | {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "PYTHONPATH": paths}


def _start(arguments: list[str], log: Path) -> subprocess.Popen:
    argv = [sys.executable, "-m", f"mocme_jax.{arguments[0]}", *arguments[1:]]
    with open(log, "wb") as file:
        return subprocess.Popen(
            argv, env=_environment(), stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
        )


def _end(arguments: list[str]) -> None:
    if status := _start(arguments, Path(os.devnull)).wait(timeout=TIMEOUT):
        raise SystemExit(f"{arguments[0]}, whose output the drill needs, ended with status {status}")


def _state(folder: Path) -> list:
    """What is where a command writes, so that a change is seen."""
    found = []
    for path in sorted(folder.rglob("*")):
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        found.append((path, status.st_mtime_ns, status.st_size, status.st_ino))
    return found


def left(folder: Path) -> dict[str, object]:
    """The files below a folder: bytes, or JSON without seconds; hidden ones too, but for temporary ones."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if _TEMPORARY.fullmatch(path.name):
            continue
        if path.is_dir():
            found[name] = None
        elif path.suffix in (".json", ".jsonl") and not name.startswith("a."):
            lines = path.read_text(encoding="utf-8")
            rows = [json.loads(lines)] if path.suffix == ".json" else list(map(json.loads, lines.splitlines()))
            found[name] = [_without_seconds(row) for row in rows]
        else:
            found[name] = path.read_bytes()
    return found


def _without_seconds(value: object) -> object:
    if isinstance(value, dict):
        return {name: _without_seconds(part) for name, part in value.items() if name not in SECONDS}
    return [_without_seconds(part) for part in value] if isinstance(value, list) else value


class Drill:
    """Kills, and what was wrong.

    Args:
      folder: for inputs and runs.
      seed: of signals, places and moments.
    """

    def __init__(self, folder: Path, seed: int):
        self.folder, self.chance = folder, random.Random(seed)
        self.kills: collections.Counter = collections.Counter()
        self.wrong: list[str] = []
        self._expected: dict[str, tuple[dict, float]] = {}
        self._runs = 0

    def _fresh(self, command: Command) -> Path:
        self._runs += 1
        at = self.folder / f"run{self._runs}"
        if command.source is None:
            at.mkdir()
        else:
            shutil.copytree(command.source, at)
        return at

    def expected(self, command: Command) -> tuple[dict, float]:
        """What an undisturbed run leaves, and its seconds."""
        if command.name not in self._expected:
            for _ in range(2):
                # Once to fill caches: the second tells how long it takes.
                at, begun = self._fresh(command), time.monotonic()
                process = _start(command.flags(at), at / "log")
                if status := process.wait(timeout=TIMEOUT):
                    raise SystemExit(
                        f"{command.name}: undisturbed, status {status}: {(at / 'log').read_text()[-2000:]}"
                    )
                self._expected[command.name] = left(at / OUT), time.monotonic() - begun
                shutil.rmtree(at)
        return self._expected[command.name]

    def run(self, command: Command, most: int) -> None:
        """One run to its end, killed at most so often."""
        expected, seconds = self.expected(command)
        at, here, chance = self._fresh(command), 0, self.chance
        arguments = command.flags(at)
        while True:
            number, place = chance.choice(SIGNALS), chance.choice(PLACES)
            before = _state(at / OUT)
            process = _start(arguments, at / "log")
            killed = here < most and self._reached(process, at / OUT, place, before, seconds)
            if killed:
                process.send_signal(number)
            status = process.wait(timeout=TIMEOUT)
            said = f"{command.name}, run {self._runs}, {number.name} {place}"
            text = (at / "log").read_text(errors="replace")
            if killed and status in STATUSES[number] and (status or _was_stopped(text)):
                here += 1
                self.kills[command.name, number.name, place] += 1
                continue
            if status == 0:
                break
            # In the first and last moments of Python a signal shows as an exception of whatever was under way.
            if killed and number == signal.SIGINT and "KeyboardInterrupt" in text:
                here += 1
                self.kills[command.name, number.name, place] += 1
                continue
            self.wrong.append(f"{said}: status {status}: {text[-2000:]}")
            return
        found = left(at / OUT)
        if found == expected:
            shutil.rmtree(at)
        else:
            names = [name for name in {**expected, **found} if expected.get(name, "") != found.get(name, "")]
            self.wrong.append(f"{said}: after {here} kills these differ: {', '.join(names)}; see {at}")
        print(f"{command.name}: {here} kills, {sum(self.kills.values())} in all, {len(self.wrong)} wrong", flush=True)

    def _reached(self, process: subprocess.Popen, written: Path, place: str, before: list, seconds: float) -> bool:
        """Waits for the moment of a kill; False if the command ended before."""
        end = time.monotonic() + TIMEOUT
        if place == "output":
            while process.poll() is None and _state(written) == before and time.monotonic() < end:
                time.sleep(0.0005)
            moment = time.monotonic() + self.chance.choice((0.002, 0.05, 0.5)) * self.chance.random()
        else:
            moment = time.monotonic() + self.chance.random() * seconds
        while process.poll() is None and time.monotonic() < moment:
            time.sleep(0.0005)
        return process.poll() is None


def _was_stopped(text: str) -> bool:
    """Whether a command that ended with status 0 said that it is to go on."""
    return "the same command" in text


def main() -> int:
    """Reads the flags and drills; what the runs left is kept if something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=50, help="kills in all")
    parser.add_argument("--seed", type=int, default=0, help="of signals, places and moments")
    parser.add_argument("--workdir", type=Path, help="where the runs go; a temporary folder unless told")
    parser.add_argument("--commands", help="names, with commas between; all unless told")
    arguments = parser.parse_args()
    folder = arguments.workdir or Path(tempfile.mkdtemp(prefix="drill-"))
    folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    chosen = commands(folder, arguments.commands.split(",") if arguments.commands else ())
    drill = Drill(folder, arguments.seed)
    told = 0
    while sum(drill.kills.values()) < arguments.times:
        for command in chosen:
            drill.run(command, most=min(5, arguments.times - sum(drill.kills.values())))
            for line in drill.wrong[told:]:
                print(f"WRONG {line}", flush=True)
            told = len(drill.wrong)
    print_table(drill.kills, [command.name for command in chosen])
    print(f"{sum(drill.kills.values())} kills, {len(drill.wrong)} wrong")
    if not drill.wrong and arguments.workdir is None:
        shutil.rmtree(folder)
    return 1 if drill.wrong else 0


def print_table(kills: collections.Counter, names: list[str]) -> None:
    """Kills by command, signal and place, as in the docs."""
    columns = [(number.name, place) for number in SIGNALS for place in PLACES]
    print(f"\n| command | {' | '.join(f'{number} {place}' for number, place in columns)} | in all |")
    print("|" + "---|" * (len(columns) + 2))
    for name in names:
        row = [kills[name, *column] for column in columns]
        print(f"| `{name}` | {' | '.join(map(str, row))} | {sum(row)} |")
    totals = [sum(kills[name, *column] for name in names) for column in columns]
    print(f"| in all | {' | '.join(map(str, totals))} | {sum(totals)} |")


if __name__ == "__main__":
    sys.exit(main())
