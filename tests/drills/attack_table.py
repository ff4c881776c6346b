"""The attacks on a run's folder: what is put in the place of what a run left there."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mocme_jax.training.checkpoints.sealed_checkpoints import digest_of

from .forged_meta import FORGED, forged

Change = Callable[[Path], None]


class Attack(NamedTuple):
    """A change of a folder that holds runs, and the command that is run on it; see ``attacked_runs.FLAGS``."""

    kind: str
    name: str
    command: str
    change: Change

    @property
    def run(self) -> str:
        """The folder, of those in the folder, that the command works on."""
        return "study" if self.command in ("ablate", "report study") else "run"


def attacks(runs: Path) -> Iterator[Attack]:
    """All attacks; ``runs`` are looked at for the names of the files in them."""
    yield from _kinds_of_checkpoint(runs)
    yield from _forged_meta()
    yield from _kinds_of_other_files()
    yield from _other_content()


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    # Its name may be too long to be bound to.
    place = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(f"/proc/self/fd/{place}/{path.name}")
    os.close(place)


def _device(path: Path) -> None:
    try:
        os.mknod(path, 0o644 | stat.S_IFCHR, os.makedev(1, 5))
    except PermissionError:
        os.mkfifo(path)


def _huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 64 << 30)


KINDS: dict[str, Change] = {
    "a pipe": _fifo,
    "a socket": _socket,
    "a device": _device,
    "a link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path),
    "a folder": lambda path: path.mkdir(),
    "64 GiB of nothing": _huge,
}


def _in_place_of(pattern: str, make: Change) -> Change:
    """Puts something in the place of every file or folder that fits; names are of one run's folder."""

    def change(folder: Path) -> None:
        found = sorted(folder.glob(pattern))
        assert found, pattern
        for path in found:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            make(path)

    return change


def _kinds_of_checkpoint(runs: Path) -> Iterator[Attack]:
    parts = ["meta/metadata", "meta/commit_success.txt", "commit_success.txt", "_CHECKPOINT_METADATA"]
    parts += [f"state/{name}" for name in ("_METADATA", "_sharding", "array_metadatas/process_0", "manifest.ocdbt")]
    parts += ["state/d/*", "state/ocdbt.process_0/manifest.ocdbt", "state/ocdbt.process_0/d/*", "state/d", "state"]
    commands = ("evaluate", "predict", "train", "report", "export")
    for number, part in enumerate(parts):
        for shift, (kind, make) in enumerate(KINDS.items()):
            command = commands[(number + shift) % len(commands)]
            which = "last" if command == "train" else "best"
            change = _in_place_of(f"run/{which}/*/{part}", make)
            yield Attack("kind of a checkpoint's file", f"{kind} for {which}/N/{part}", command, change)
    for which, command in (("best", "predict"), ("last", "train")):
        for kind, make in KINDS.items():
            instead = _in_place_of(f"run/{which}", make)
            yield Attack("kind of a checkpoint's file", f"{kind} for {which}", command, instead)
            add = _added(f"run/{which}/99", make)
            yield Attack("kind of a checkpoint's file", f"{kind} as {which}/99", command, add)
            add = _added(f"run/{which}/17/state/more", make)
            yield Attack("kind of a checkpoint's file", f"{kind} more in {which}/N/state", command, add)
    yield Attack("kind of a checkpoint's file", "900 folders in each other", "train", _deep_folders)


def _added(place: str, make: Change) -> Change:
    def change(folder: Path) -> None:
        path = folder / place
        if path.parent.name == "state":
            path = next(iter(sorted(folder.glob(place.replace("17", "*", 1).rpartition("/")[0])))) / path.name
        make(path)

    return change


def _deep_folders(folder: Path) -> None:
    place = next(iter(folder.glob("run/last/*/state/d")))
    for _ in range(900):
        place /= "d"
    os.makedirs(place)


def _forged_meta() -> Iterator[Attack]:
    commands = ("predict", "evaluate", "export", "report")
    for number, (name, change) in enumerate(FORGED.items()):
        command = commands[number % len(commands)]
        yield Attack("meta under a right digest", name, command, forged("best", change))
        yield Attack("meta under a right digest", name, "train", forged("last", change))


OTHERS = {
    "results.json": ("report", "evaluate"),
    "metrics.jsonl": ("report", "train"),
    "lenders.npz": ("predict", "evaluate"),
    "calibration.json": ("predict", "report"),
    "information.json": ("report",),
    "lock": ("train",),
    "nonfinite.json": ("train", "predict"),
    "MODEL_CARD.md": ("train ended",),
    "tensorboard": ("train",),
    "answers.tsv": ("predict file",),
    "answers.tsv.settings.json": ("predict file",),
    "study.json": ("ablate", "report study"),
    "rows.jsonl": ("ablate", "report study"),
    "table.json": ("ablate", "report study"),
    "ranks": ("ablate",),
}


def _place(name: str, command: str) -> str:
    return f"{'study' if command in ('ablate', 'report study') else 'run'}/{name}"


def _kinds_of_other_files() -> Iterator[Attack]:
    for name, commands in OTHERS.items():
        for number, (kind, make) in enumerate(KINDS.items()):
            command = commands[number % len(commands)]
            yield Attack("kind of another file", f"{kind} for {name}", command, _replaced(_place(name, command), make))


def _replaced(place: str, make: Change) -> Change:
    def change(folder: Path) -> None:
        path = folder / place
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        make(path)

    return change


CONTENTS: dict[str, bytes] = {
    "nothing": b"",
    "a number": b"7",
    "a list": b"[1, [2]]",
    "an empty object": b"{}",
    "NaN": b'{"dev": NaN, "test": NaN, "report": NaN, "run": {"epoch": NaN}, "epoch": NaN, "rows": [NaN]}',
    "deep lists": b"[" * 100_000 + b"]" * 100_000,
    "no UTF-8": b"\xff\xfe" * 40,
    "a long line": b'{"a": "' + b"x" * 5_000_000 + b'"}',
    "many objects": b'{"a": [' + b"{}, " * 900_000 + b"{}]}",
    "long numbers": b'{"epoch": ' + b"9" * 5000 + b', "step": 1e999}',
}


def _other_content() -> Iterator[Attack]:
    for name, commands in OTHERS.items():
        if name in ("lock", "ranks", "tensorboard", "MODEL_CARD.md", "nonfinite.json"):
            continue
        for number, (what, data) in enumerate(CONTENTS.items()):
            command = commands[number % len(commands)]
            change = _replaced(_place(name, command), lambda path, data=data: path.write_bytes(data))
            yield Attack("content of another file", f"{what} in {name}", command, change)
        if not name.endswith((".json", ".jsonl")) or "settings" in name:
            continue
        for command in commands:
            for number, value in enumerate(("text", -1, None, [], {}, 1e308, [[1]], True)):
                change = _one_value(_place(name, command), number, value)
                yield Attack("one value of another file", f"{value!r} in {name}", command, change)


def _one_value(place: str, number: int, value: Any) -> Change:
    """Each top-level value of a JSON file, or of each of its lines, in turn by number, replaced; digests made anew."""

    def change(folder: Path) -> None:
        path = folder / place
        if not path.exists():
            path.write_text(json.dumps({"best_step": 8, "modalities": {}, "experts": {}, "relations": {}}))
        lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        told = []
        for line in lines:
            content = json.loads(line)
            sealed = content.pop("digest", None) is not None
            names = [name for name in content if name not in ("cell", "seed")]
            for name in names[number % len(names) :: 8]:
                content[name] = value
            told.append(json.dumps(content | ({"digest": digest_of(content)} if sealed else {})))
        path.write_text("\n".join(told) + "\n")

    return change
