"""What a study's folder holds: ``study.json``, a row a cell and seed in ``rows.jsonl``, ranks, and the table."""

from __future__ import annotations

import os
from pathlib import Path

from mocme_jax.data.readers.bounded_files import Damaged, read_file
from mocme_jax.data.readers.json_file import parse_json

STUDY, ROWS, TABLE, RANKS = "study.json", "rows.jsonl", "table.json", "ranks"


def read_rows(folder: Path) -> list[dict]:
    """The complete rows of a study, oldest first; half a line, which a kill leaves, is passed over.

    Raises:
      UserError: the file can't be read.
    """
    path = Path(folder) / ROWS
    rows = []
    for line in read_file(path).split(b"\n") if os.path.lexists(path) else ():
        try:
            row = parse_json(line)
        except Damaged:
            continue
        if isinstance(row, dict) and {"cell", "changes", "seed", "dev"} <= row.keys():
            rows.append(row)
    return rows
