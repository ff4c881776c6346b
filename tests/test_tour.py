"""The notebook of docs, cell by cell, as a reader would run it."""

import re
from pathlib import Path

import pytest
from notebook_runner import code_cells, run_notebook

TOUR = Path(__file__).resolve().parent.parent / "docs" / "tutorials" / "tour.ipynb"


def test_outputs_are_kept_and_tell_of_no_machine():
    cells = code_cells(TOUR)
    assert all(cell["outputs"] for cell in cells)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    text = TOUR.read_text(encoding="utf-8")
    assert not re.search(r"\"[^\"]*(?:/tmp|/home|/root|/work|\\\\Users)", text)


@pytest.mark.slow
@pytest.mark.usefixtures("one_device")
def test_the_tour_runs(tmp_path, monkeypatch):
    pytest.importorskip("PIL")
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    names, printed = run_notebook(TOUR)
    assert names["model"].results["test"]["overall"]["mrr"] > 0.6
    assert "did you mean thing 7" in printed[4]
    assert set(names["explained"].without) == {"structure", "image", "numeric"}
    assert re.findall(r"new thing (.*): ", printed[6]) == ["has colour blue", "has shape triangle", "is heavy"]
    assert set(names["best"]) <= {"width", "learning_rate", "model.width", "train.learning_rate"}
    assert names["table"]["cell"].tolist() == ["full", "structure alone"]
    assert names["table"]["difference"][1] < -0.2
