"""What the fuzzer knows of one reader."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .bombs import Bomb
from .mutations import Mutate
from .seeds import Files


@dataclasses.dataclass(frozen=True)
class Reader:
    """How one kind of file is fuzzed.

    Attributes:
      seeds: valid sets of files, by name; a name may lead into folders.
      change: a change that knows the format; changes that do not are made beside it.
      read: reads the folder.
      check: raises AssertionError where what was accepted can't be right.
      bombs: whole files that attack, by the name of the file of a seed that they replace.
      needs: a package that may be missing.
    """

    seeds: Callable[[], list[Files]]
    change: Mutate
    read: Callable[[Path], Any]
    check: Callable[[Any], None]
    bombs: Callable[[Path], dict[str, list[Bomb]]]
    needs: str = ""


def only(name: str, table: dict[str, Bomb]) -> dict[str, list[Bomb]]:
    """Attacks on one file."""
    return {name: list(table.values())}
