"""What a study's folder holds: ``study.json``, a row a cell and seed in ``rows.jsonl``, ranks, and the table."""

from pathlib import Path

from mocme_jax.data.readers.json_file import rows_of
from mocme_jax.data.readers.json_shape import misfit

_SCORE = (float, None)
STUDY, ROWS, TABLE, RANKS = "study.json", "rows.jsonl", "table.json", "ranks"


_SCORES = {"count": int, "mrr": float, "hits@1": float, "hits@10": float}
ROW = {
    "cell": str,
    "changes": {str: object},
    "seed": int,
    "best_epoch": int,
    "epochs": int,
    "curve": [[_SCORE]],
    "dev": {"mrr": float},
    "test?": _SCORES,
    "clean?": {"count": int, "mrr": _SCORE},
    # Rows of version 0.2.0 nest them.
    "weights?": {str: object},
    "diverged?": int,
    "pruned?": int,
    "seconds": float,
}
"""The shape of a row; see ``json_shape``. Of a curve, a pair for each evaluation: epoch and dev MRR."""

_SPREAD = {"mean": _SCORE, "deviation": _SCORE}
TABLE_ROW = {
    "cell": str,
    "seeds": int,
    **dict.fromkeys(("dev", "test", "hits@1", "hits@10", "clean?"), _SPREAD),
    **dict.fromkeys(("difference?", "p?", "clean_difference?", "clean_p?"), _SCORE),
    "seconds?": float,
    "diverged?": int,
}
"""The shape of a row of the table that has scores."""

IDENTITY = {
    "config": {str: object},
    "parts": {str: str},
    "fingerprint": str,
    "search?": {str: object},
    "cells": {str: {str: object}},
}
"""The shape of what a study is told by when it goes on."""

_TEXTS = ("study", "reference", "jax?", "device?", "version?", "fingerprint?")
TOLD = {
    **dict.fromkeys(_TEXTS, str),
    "seeds": [int],
    "config": {str: object},
    "cells": {str: {str: object}},
    "graph": {str: object},
    "warnings?": [str],
}
"""The shape of what a report tells of a study."""


def read_rows(folder: Path) -> list[dict]:
    """The complete rows of a study, oldest first; see ``rows_of``. What is no row of a study is left out."""
    return [row for _, row in rows_of(folder / ROWS) if _is_row(row)]


def _is_row(row: dict) -> bool:
    if misfit(row, ROW) is not None or not all(len(pair) == 2 for pair in row["curve"]):
        return False
    # Test is scored together with its clean rows, of which there may be none.
    clean = row.get("clean", {"count": 0, "mrr": None})
    return ("test" in row) == ("clean" in row) and (clean["mrr"] is None) == (not clean["count"])
