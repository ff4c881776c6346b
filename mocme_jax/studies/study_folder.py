"""What a study's folder holds: ``study.json``, a row a cell and seed in ``rows.jsonl``, ranks, and the table."""

from __future__ import annotations

from pathlib import Path

from mocme_jax.data.readers.json_file import rows_of

STUDY, ROWS, TABLE, RANKS = "study.json", "rows.jsonl", "table.json", "ranks"


def read_rows(folder: Path) -> list[dict]:
    """The complete rows of a study, oldest first; see ``rows_of``."""
    return [row for _, row in rows_of(Path(folder) / ROWS) if {"cell", "changes", "seed", "dev"} <= row.keys()]
