"""Kills trainings, lets them go on, and compares what they leave with an undisturbed run, bit for bit.

    python -m tests.drills.kill --times 50 [--seed S] [--workdir DIR] [--FLAG=VALUE of mocme_jax.train ...]

Trains a small model on atlas for a few epochs, on one CPU device. Each kill is a signal and a place, drawn at random:
while it starts, at some moment of training, while a checkpoint is written, while dev is scored, at the test score. A
killed training is started again until it ends by itself; then its metrics (without times), scores and final parameters
must be those of the undisturbed run. Runs follow one another until there were so many kills. Status 1: something
differed.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import pty
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
# Of a training that a signal stopped.
STOPPED = 75
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
PLACES = ("start", "training", "save", "dev", "test")
# The last comes once a run.
WEIGHTS = (3, 4, 4, 4, 1)
EPOCHS = 8
# A small model, but with every part that is saved; saves within epochs too.
FIELDS = {
    "data.modalities": "numeric",
    "model.width": 64,
    "model.experts": 2,
    "model.expert_hidden": 16,
    "negatives.pool": 256,
    "train.epochs": EPOCHS,
    "train.eval_every": 1,
    "train.patience": 0,
    "train.average": 100,
    "train.save_minutes": 0.005,
    "parallel.devices": 1,
}
TIMEOUT = 600


class Training:
    """A training in a process of its own, on a terminal of its own, which shows what it is at."""

    def __init__(self, workdir: Path, flags: list[str]):
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self.workdir, self.text = workdir, ""
        own, its = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mocme_jax.train", f"--workdir={workdir}", *flags],
            env=os.environ | {"JAX_PLATFORMS": "cpu", "TERM": "xterm", "COLUMNS": "200", "PYTHONPATH": paths},
            stdin=subprocess.DEVNULL,
            stdout=its,
            stderr=its,
        )
        os.close(its)
        self._reader = threading.Thread(target=self._read, args=(own,), daemon=True)
        self._reader.start()

    def _read(self, terminal: int) -> None:
        # Where the other end is closed, Linux raises.
        with contextlib.suppress(OSError):
            while data := os.read(terminal, 1 << 16):
                self.text += data.decode(errors="replace")
        os.close(terminal)

    def ended(self) -> bool:
        return self.process.poll() is not None

    def wait(self) -> int:
        status = self.process.wait(timeout=TIMEOUT)
        self._reader.join()
        return status

    def reaches(self, place: str, chance: random.Random, epochs: int) -> bool:
        """Waits for a place; False if the training ended before."""
        seen = chance.randrange(2)
        if place == "start":
            deadline = time.monotonic() + chance.uniform(0, 8)
            while time.monotonic() < deadline and not self.ended():
                time.sleep(0.002)
            return not self.ended()
        tests = {
            "training": lambda: "epoch " in self.text,
            # What an earlier kill cut off is gone by the time the bar is shown.
            "save": lambda: "epoch " in self.text and any(self.workdir.glob("*/*.orbax-checkpoint-tmp*")),
            "dev": lambda: self.text.count("scoring dev") > seen,
            "test": lambda: "modalities: " in self.text and _lines(self.workdir) >= epochs,
        }
        while not tests[place]():
            if self.ended():
                return False
            time.sleep(0.001)
        # Anywhere in what was just begun.
        time.sleep(chance.uniform(0, {"training": 4, "save": 0.1, "dev": 0.2, "test": 0.4}[place]))
        return not self.ended()


def _lines(workdir: Path) -> int:
    path = workdir / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def left(workdir: Path) -> dict:
    """What a finished run leaves, without times."""
    import orbax.checkpoint as ocp

    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    results = json.loads((workdir / "results.json").read_text(encoding="utf-8"))
    results["run"].pop("minutes")
    found = {"metrics": [{k: v for k, v in row.items() if k != "speed"} for row in rows], "results": results}
    reader = ocp.StandardCheckpointer()
    for which in ("last", "best"):
        newest = max(int(path.name) for path in (workdir / which).iterdir() if path.name.isdigit())
        arrays = reader.restore((workdir / which / str(newest) / "state").absolute())
        found[which] = {"number": newest} | {
            path: (str(leaf.dtype), leaf.shape, np.asarray(leaf).tobytes()) for path, leaf in _leaves(arrays).items()
        }
    reader.close()
    return found


def _leaves(tree) -> dict:
    import jax

    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def differences(one: dict, other: dict) -> list[str]:
    """Where two of `left` are unlike."""
    return [name for name in one if one[name] != other[name]]


def drill(
    times: int, seed: int, folder: Path, flags: list[str], epochs: int = EPOCHS, weights: tuple = WEIGHTS
) -> tuple[collections.Counter, list[str]]:
    """Kills so often; returns kills by signal and place, and everything that was wrong, in words."""
    chance, kills, wrong = random.Random(seed), collections.Counter(), []
    # Whoever started the drill in the background may have had SIGINT ignored, which the trainings would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    undisturbed = Training(folder / "undisturbed", flags)
    if status := undisturbed.wait():
        wrong.append(f"the undisturbed run ended with status {status}: {undisturbed.text[-500:]}")
        print(f"WRONG {wrong[0]}", flush=True)
        return kills, wrong
    expected, run, told = left(folder / "undisturbed"), 0, 0
    while sum(kills.values()) < times:
        run += 1
        workdir, here = folder / f"run{run}", collections.Counter()
        while True:
            training = Training(workdir, flags)
            number, place = chance.choice(SIGNALS), chance.choices(PLACES, weights)[0]
            killed = sum((kills + here).values()) < times and training.reaches(place, chance, epochs)
            if killed:
                training.process.send_signal(number)
            status = training.wait()
            said = f"run {run}, {number.name} at {place}"
            # Until the handlers stand, in the first moments of Python, a signal does what it does to any program.
            early = killed and "modalities: " not in training.text and status != 0
            if not early and ("is damaged" in training.text or "Traceback" in training.text):
                wrong.append(f"{said}: {training.text[-2000:]}")
            if "results: " in training.text:
                # It was at its end before the signal, or had none.
                print(f"{said}: no kill", flush=True)
                break
            if not killed or (
                not early and status not in ((-signal.SIGKILL, 0) if number == signal.SIGKILL else (STOPPED,))
            ):
                wrong.append(f"{said}: status {status}: {training.text[-2000:]}")
                break
            here[number.name, place] += 1
            print(f"{said}: status {status}", flush=True)
            if status == STOPPED and not (workdir / "last").exists() and place not in ("start", "training"):
                wrong.append(f"{said}: stopped with nothing saved")
        if not wrong or not wrong[-1].startswith(f"run {run},"):
            unlike = differences(expected, left(workdir))
            if unlike:
                wrong.append(f"run {run}: {', '.join(unlike)} differ from the undisturbed run's, after {dict(here)}")
            else:
                shutil.rmtree(workdir)
        for line in wrong[told:]:
            print(f"WRONG {line}", flush=True)
        told = len(wrong)
        kills += here
        print(f"run {run}: {sum(here.values())} kills, {sum(kills.values())} in all, {len(wrong)} wrong", flush=True)
    return kills, wrong


def print_table(kills: collections.Counter, wrong: list[str]) -> None:
    """Kills by signal and place."""
    print("\nkills by signal and place")
    print(f"{'':10}" + "".join(f"{place:>10}" for place in (*PLACES, "in all")))
    for number in SIGNALS:
        row = [kills[number.name, place] for place in PLACES]
        print(f"{number.name:10}" + "".join(f"{count:>10}" for count in (*row, sum(row))))
    row = [sum(kills[number.name, place] for number in SIGNALS) for place in PLACES]
    print(f"{'in all':10}" + "".join(f"{count:>10}" for count in (*row, sum(row))))
    print(f"\n{sum(kills.values())} kills, {len(wrong)} wrong")


def main() -> int:
    """Reads the flags and drills; what the runs left is kept if something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=50, help="kills in all")
    parser.add_argument("--seed", type=int, default=0, help="of signals, places and moments")
    parser.add_argument("--workdir", type=Path, help="where the runs go; a temporary folder unless told")
    arguments, flags = parser.parse_known_args()
    folder = arguments.workdir or Path(tempfile.mkdtemp(prefix="drill-"))
    folder.mkdir(parents=True, exist_ok=True)
    fields = [f"--config.{name}={value}" for name, value in FIELDS.items()]
    kills, wrong = drill(arguments.times, arguments.seed, folder, [*fields, *flags])
    print_table(kills, wrong)
    if not wrong and arguments.workdir is None:
        shutil.rmtree(folder)
    elif wrong:
        print(f"what the runs left: {folder}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
