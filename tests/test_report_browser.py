"""The report in a real browser: nothing sticks out, nothing complains, nothing is asked of anybody."""

import json
import re

import pytest
from browser import chromium
from strange_names import ENTITIES, LONG, SCRIPT, write_study

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from mocme_jax.report.report_writer import write_report

pytestmark = pytest.mark.slow
WIDTHS = (360, 1400)


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def pages(tiny_run, tiny_baseline, strange_run, tmp_path_factory):
    """The three kinds of page, and one under strange names, with warnings."""
    folder = tmp_path_factory.mktemp("pages")
    config = json.loads((tiny_run / "results.json").read_text(encoding="utf-8"))["config"]
    cells = {"full": {}, SCRIPT: {"model.experts": 3}, LONG: {"model.fusion": "mean"}, "wide": {"model.width": 8}}
    write_study(folder / "study", config, cells, left_out={("wide", 1)}, table=True)
    return {
        "run": write_report([tiny_run], folder / "run.html", baseline=tiny_baseline),
        "several": write_report([tiny_run, tiny_baseline, strange_run], folder / "several.html"),
        "strange": write_report([strange_run], folder / "strange.html", entities=list(ENTITIES.values())),
        "study": write_report([folder / "study"], folder / "study.html"),
    }


def faults(measured: dict) -> list[str]:
    """What is wrong with a page, in a word each."""
    wrong = {
        "wide": measured["scroll"] > 0 or bool(measured["out"]),
        "console": bool(measured["console"]),
        "requests": bool(measured["requests"]),
        "scripts": measured["scripts"] > 0,
    }
    return [name for name, is_so in wrong.items() if is_so]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["run", "several", "strange", "study"])
def test_a_page_fits_is_quiet_and_asks_for_nothing(browser, pages, kind, width, dark):
    measured = browser.look(pages[kind], width=width, dark=dark)
    assert faults(measured) == [], measured
    paper = sum(map(int, re.findall(r"\d+", measured["paper"])[:3]))
    assert paper < 150 if dark else paper > 700
    assert "What these figures mean" in measured["text"]
    if kind in ("strange", "study"):
        assert SCRIPT in measured["text"]


def test_what_is_folded_is_printed(browser, pages):
    browser.look(pages["run"], width=1400, folded=True)
    seen = "[...document.querySelectorAll('details > :not(summary)')].map(e => e.checkVisibility())"
    assert not any(browser.evaluate(seen))
    browser.call("Emulation.setEmulatedMedia", media="print")
    printed = browser.evaluate(seen)
    assert printed
    assert all(printed), printed
    assert browser.printed().startswith(b"%PDF")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    ("planted", "fault"),
    [
        ('<div style="width: 2000px">wide</div>', "wide"),
        (f"<p style='overflow-wrap: normal'>{'x' * 2000}</p>", "wide"),
        ('<script>console.error("planted")</script>', "console"),
        ("<script>undefined_name()</script>", "console"),
        ('<img src="http://127.0.0.1:9/planted.png" alt="">', "requests"),
    ],
)
def test_planted_faults_are_found(browser, pages, tmp_path, planted, fault, width):
    page = pages["run"].read_text(encoding="utf-8")
    policy = re.search(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>", page)[0]
    spoilt = tmp_path / "spoilt.html"
    spoilt.write_text(page.replace("<main>", f"<main>{planted}").replace(policy, ""), encoding="utf-8")
    assert fault in faults(browser.look(spoilt, width=width))


def test_the_page_forbids_what_it_does_not_need(browser, pages, tmp_path):
    page = pages["run"].read_text(encoding="utf-8")
    spoilt = tmp_path / "spoilt.html"
    planted = '<main><p id="planted">before</p><script>document.getElementById("planted").textContent = "run"</script>'
    spoilt.write_text(page.replace("<main>", planted), encoding="utf-8")
    measured = browser.look(spoilt, width=360)
    assert "before" in measured["text"]
    assert "console" in faults(measured)
