"""Readers with the faults that the others must not have, so that a test can see each of them noticed."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mocme_jax.errors import UserError

from .readers import Reader

_HELD = []


def _runs_code(folder: Path) -> None:
    # What a pickle would do that writes a file.
    os.mkdir(folder.parent / "canary")


def _starts_a_program(folder: Path) -> None:
    os.system("true")


def _reads_elsewhere(folder: Path) -> None:
    with open("/proc/cpuinfo", encoding="utf-8"):
        pass


def _believes_a_size(folder: Path) -> None:
    _HELD.append(np.empty(1 << 30, np.uint8))


def _takes_for_ever(folder: Path) -> None:
    # In C, where no signal handler of Python's is heard.
    re.match("(a+)+$", "a" * 60 + "b")


def _leaves_the_process(folder: Path) -> None:
    os._exit(0)


def _raises(folder: Path) -> None:
    raise KeyError("rows")


def _warns(folder: Path) -> None:
    warnings.warn("odd", stacklevel=1)


def _prints(folder: Path) -> None:
    os.write(2, b"odd\n")


def _says_two_lines(folder: Path) -> None:
    class Lines(UserError):
        __str__ = Exception.__str__

    raise Lines(f"{folder}: odd\nand more")


def _names_no_file(folder: Path) -> None:
    raise UserError("odd")


def _is_wrong(folder: Path) -> str:
    return "wrong"


def _check(result: object) -> None:
    assert result is None, result


def _reader(fault: Callable[[Path], object]) -> Reader:
    """Sound as long as its file is as it was."""

    def read(folder: Path) -> object:
        path = folder / "file"
        return None if path.is_file() and path.read_bytes() == b"sound" else fault(folder)

    change = lambda rng, data: data + b"!"  # noqa: E731
    return Reader(lambda: [{"file": b"sound"}], change, read, _check, lambda _: {"file": [bytes]})


FAULTY = {
    name.removeprefix("_").replace("_", " "): _reader(fault)
    for name, fault in vars(sys.modules[__name__]).items()
    if name.startswith("_") and callable(fault) and getattr(fault, "__annotations__", {}).get("folder") == "Path"
}
