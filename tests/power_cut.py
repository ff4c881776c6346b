"""What a power cut leaves of the files that a command wrote, by what it asked the system to put on the disk.

A command runs under ``strace``, which tells of each call that changes files. From these calls the folder is built again
as it would be after a cut at any of them. A file holds what it held when it was last flushed (``fsync``). Of names two
extremes are possible: a folder has those that it had when it was last flushed itself, or all that it was given since.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_CALLS = "openat,open,creat,write,pwrite64,writev,pwritev,fsync,fdatasync,ftruncate,lseek,link,linkat,mkdir,mkdirat"
_CALLS += ",rename,renameat,renameat2,unlink,unlinkat,rmdir,copy_file_range,sendfile"
_LINE = re.compile(r"(\d+) +(.*)", re.DOTALL)
_RESUMED = re.compile(r"<\.\.\. \w+ resumed>(.*)", re.DOTALL)
_CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+)(?:<.*>)?(?: .*)?$", re.DOTALL)
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_HANDLE = re.compile(r"(?:\d+|AT_FDCWD)<((?:\\x[0-9a-f]{2}|[^<>\\])*)>")


def can_trace() -> bool:
    """Whether this machine has ``strace`` and lets it look at processes."""
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True).returncode == 0


def traced(argv: list[str], folder: Path, environment: dict[str, str]) -> tuple[subprocess.CompletedProcess, Disk]:
    """Runs a command to its end.

    Args:
      argv: the command; its working folder is ``folder``.
      folder: what becomes of the files in it can be asked; what is there already is on the disk.

    Returns:
      How it ended, with its output; and the disk.
    """
    with tempfile.TemporaryDirectory() as place:
        trace = Path(place) / "trace"
        disk = Disk(folder)
        flags = ["-f", "-y", "-xx", "-s", str(1 << 24), "-e", f"trace={_CALLS}", "-o", str(trace)]
        ended = subprocess.run(
            ["strace", *flags, *argv], cwd=folder, env=environment, capture_output=True, text=True, timeout=600
        )
        with open(trace, encoding="ascii", errors="replace") as lines:
            disk.calls = list(_calls(lines, str(folder)))
    return ended, disk


class Call(NamedTuple):
    """A call that succeeded: paths are absolute; ``data`` is what it wrote, and ``at`` where (-1: at the end)."""

    name: str
    paths: tuple[str, ...]
    data: bytes = b""
    at: int = -1
    empties: bool = False


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _calls(lines: Iterator[str], folder: str) -> Iterator[Call]:
    """The calls of a trace that concern a folder, in the order in which they ended."""
    begun: dict[str, str] = {}
    positions: dict[tuple[str, str], int] = {}
    for line in lines:
        process, rest = _LINE.fullmatch(line.rstrip("\n")).groups()  # type: ignore[union-attr]
        if rest.endswith("<unfinished ...>"):
            begun[process] = rest.removesuffix("<unfinished ...>").rstrip()
            continue
        if resumed := _RESUMED.match(rest):
            rest = begun.pop(process, "") + resumed[1]
        call = _CALL.match(rest)
        if call is None or int(call[3]) < 0:
            continue
        name, arguments, result = call[1], call[2], int(call[3])
        handles = [
            _bytes(path).decode() if path.startswith("\\x") else path
            for path in _HANDLE.findall(_without_texts(arguments))
        ]
        texts = [_bytes(text) for text in _TEXT.findall(arguments)]
        handle = handles[0] if handles else ""
        if name in ("write", "writev", "pwrite64", "pwritev", "fsync", "fdatasync", "ftruncate", "lseek"):
            if not handle.startswith(folder):
                continue
            key = (process, arguments.split("<")[0])
            if name == "lseek":
                positions[key[1], handle] = result
            elif name in ("write", "writev"):
                data = b"".join(texts)[:result]
                at = positions.get((key[1], handle), -1)
                if at >= 0:
                    positions[key[1], handle] = at + len(data)
                yield Call("write", (handle,), data, at)
            elif name == "ftruncate":
                yield Call(name, (handle,), at=int(arguments.rsplit(",", 1)[1]))
            elif name in ("pwrite64", "pwritev"):
                yield Call("write", (handle,), b"".join(texts)[:result], int(arguments.rsplit(",", 1)[1]))
            else:
                yield Call("fsync", (handle,))
            continue
        if name in ("copy_file_range", "sendfile"):
            if any(path.startswith(folder) for path in handles):
                raise NotImplementedError(f"{name} into {handles}")
            continue
        names = [text.decode("utf-8", "surrogateescape") for text in texts]
        if len(handles) == len(names):
            names = [os.path.normpath(os.path.join(base, name)) for base, name in zip(handles, names, strict=True)]
        # No command changes its working folder.
        paths = tuple(os.path.normpath(os.path.join(folder, name)) for name in names)
        if not any(path.startswith(folder) for path in paths):
            continue
        if name in ("openat", "open", "creat"):
            if "O_CREAT" in arguments or name == "creat":
                yield Call("create", paths[:1], empties="O_TRUNC" in arguments or name == "creat")
            elif "O_TRUNC" in arguments:
                yield Call("create", paths[:1], empties=True)
            for key in [key for key in positions if key[1] == paths[0]]:
                del positions[key]
        elif name in ("unlink", "rmdir", "unlinkat"):
            yield Call("unlink", paths)
        elif name in ("mkdir", "mkdirat"):
            yield Call("mkdir", paths)
        elif name in ("link", "linkat"):
            yield Call("link", paths)
        else:
            yield Call("rename", paths)


def _without_texts(arguments: str) -> str:
    return _TEXT.sub('""', arguments)


class _File:
    def __init__(self, data: bytes = b"", flushed: bytes | None = None):
        self.data, self.flushed = bytearray(data), flushed


class _Folder:
    def __init__(self) -> None:
        self.names: dict[str, _File | _Folder] = {}
        self.flushed: dict[str, _File | _Folder] = {}


class Disk:
    """The calls of a command, and the folder that they changed.

    Args:
      folder: as it is before the command; all of that is on the disk.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.calls: list[Call] = []
        self._before = {path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}

    def after(self, count: int, target: Path, *, names_kept: bool) -> None:
        """Writes what a power cut after so many calls leaves into a new folder.

        Args:
          count: of ``calls``.
          names_kept: whether names that were not flushed survive, and removals too, without content that was not.
        """
        root = _Folder()
        for path, data in self._before.items():
            self._folder_of(root, str(path)).names[path.name] = _Folder() if data is None else _File(data, data)
        _flush_all(root)
        for call in self.calls[:count]:
            self._do(root, call)
        target.mkdir(parents=True)
        _build(root, target, names_kept)

    def _folder_of(self, root: _Folder, path: str) -> _Folder:
        found = root
        for part in Path(path).relative_to(self.folder).parts[:-1]:
            found = found.names[part]  # type: ignore[assignment]
        return found

    def _do(self, root: _Folder, call: Call) -> None:
        path = call.paths[0]
        if path == str(self.folder):
            root.flushed = dict(root.names)
            return
        if not path.startswith(str(self.folder)):
            return
        try:
            place, name = self._folder_of(root, path), os.path.basename(path)
        except KeyError:
            # Below a folder that is gone.
            return
        entry = place.names.get(name)
        if call.name == "create":
            if entry is None:
                place.names[name] = _File()
            elif call.empties and isinstance(entry, _File):
                entry.data.clear()
        elif call.name == "mkdir":
            place.names[name] = _Folder()
        elif call.name == "unlink":
            place.names.pop(name, None)
        elif call.name in ("rename", "link") and entry is not None:
            self._folder_of(root, call.paths[1]).names[os.path.basename(call.paths[1])] = entry
            if call.name == "rename":
                del place.names[name]
        elif isinstance(entry, _Folder):
            entry.flushed = dict(entry.names)
        elif isinstance(entry, _File):
            if call.name == "write":
                at = len(entry.data) if call.at < 0 else call.at
                entry.data[at : at + len(call.data)] = call.data
            elif call.name == "ftruncate":
                entry.data = entry.data[: call.at].ljust(call.at, b"\0")
            else:
                entry.flushed = bytes(entry.data)


def _flush_all(folder: _Folder) -> None:
    folder.flushed = dict(folder.names)
    for entry in folder.names.values():
        if isinstance(entry, _Folder):
            _flush_all(entry)


def _build(folder: _Folder, target: Path, names_kept: bool) -> None:
    for name, entry in (folder.names if names_kept else folder.flushed).items():
        if isinstance(entry, _Folder):
            (target / name).mkdir()
            _build(entry, target / name, names_kept)
        else:
            (target / name).write_bytes(entry.flushed or b"")
