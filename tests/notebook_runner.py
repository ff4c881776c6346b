"""Runs a notebook's code cells in this process, as a reader would from top to bottom."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any


def code_cells(path: Path) -> list[dict]:
    """The code cells of a notebook file, in order."""
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def run_notebook(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Runs the cells in a fresh namespace; returns the namespace, and what each cell printed."""
    names: dict[str, Any] = {}
    printed = []
    for cell in code_cells(path):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile("".join(cell["source"]), path.name, "exec"), names)
        printed.append(out.getvalue())
    return names, printed
