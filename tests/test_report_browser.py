"""The report in a real browser: nothing sticks out, nothing complains, nothing is asked of anybody."""

import json
import re

import numpy as np
import pytest
from browser import chromium
from strange_names import ENTITIES, LONG, SCRIPT, write_study

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from mocme_jax.report.modality_worth import Masked
from mocme_jax.report.report_writer import write_report

pytestmark = pytest.mark.slow
WIDTHS = (390, 1280)


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

    def masked(restored, *_):
        """A loss, a gain and neither, each in the deepest of its colours."""
        relations = restored.dataset.graph.test[:, 1]
        same = np.full(2 * len(relations), 2.0)
        return Masked(relations, same, {"structure": np.full_like(same, np.inf), "text": same / 2, "numeric": same})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mocme_jax.report.run_measurements.masked_ranks", masked)
        run = write_report([tiny_run], folder / "run.html", baseline=tiny_baseline)
    return {
        "run": run,
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


# A cell that a table's own box hides, text on text that is near it in colour, headings that touch, empty halves.
LAYOUT = """(() => {
  const boxes = (s, f) => [...document.querySelectorAll(s)].filter(e => e.checkVisibility()).map(f);
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgb = colour => {
    canvas.fillStyle = 'white'; canvas.fillRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = c => rgb(c).map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const contrast = (a, b) => { const [x, y] = [light(a), light(b)].sort(); return (y + .05) / (x + .05); };
  const on = e => { for (; e; e = e.parentElement) {
    const own = getComputedStyle(e).backgroundColor; if (own !== 'rgba(0, 0, 0, 0)') return own; } };
  const faint = boxes('.heat td *, .heat td, .verdict, .stack span',
    e => [e.outerHTML.slice(0, 99), contrast(getComputedStyle(e).color, on(e))]).filter(([, c]) => c < 4.5);
  const hidden = boxes('.wide', e => e.scrollWidth - e.clientWidth).filter(more => more > 1).length;
  const heads = boxes('h1, h2, h3, h4', e => e).map(e => e.getBoundingClientRect());
  const touching = heads.slice(1).filter((b, i) => b.left < heads[i].right && heads[i].left < b.right
    && b.top - heads[i].bottom < 4 && b.top >= heads[i].top).length;
  const columns = boxes('.side', e => [...e.children].map(c => c.getBoundingClientRect()))
    .map(list => [new Set(list.map(b => Math.round(b.left))).size, list.length]);
  const cards = boxes('.cards tbody tr', e => getComputedStyle(e).display);
  const labels = boxes('.cards tbody td',
    e => [e.dataset.label, e.textContent, getComputedStyle(e, '::before').content]);
  const numbers = boxes('.amount .track', e => {
    const [end, number] = ['.fill', '.number'].map(s => e.querySelector(s).getBoundingClientRect());
    return [number.left - end.right, number.right - e.getBoundingClientRect().right];
  });
  return {faint, hidden, touching, columns, cards, labels, numbers};
})()"""


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
    layout = browser.evaluate(LAYOUT)
    assert layout["faint"] == []
    if kind == "run":
        # A loss and a gain differ in colour, and what the colours say, the numbers say too.
        sure = "[...document.querySelectorAll('.heat tbody tr:first-child .sure')]"
        told = browser.evaluate(
            f"{sure}.map(e => [e.querySelector('strong').innerText, getComputedStyle(e).background])"
        )
        assert sorted(number for number, _ in told) == ["0.500", "−0.500"]
        assert len({colour for _, colour in told}) == 2
    assert layout["touching"] == 0
    assert layout["cards"]
    # On a telephone each row is a card and each of its figures has its name; elsewhere it is a row.
    assert set(layout["cards"]) == ({"block"} if width == 390 else {"table-row"})
    for label, text, before in layout["labels"]:
        assert label or not text.strip() or text.endswith("."), text
        assert (before == f'"{label}"') == (width == 390) or not label, (label, before)
    if width == 390:
        assert layout["hidden"] == 0
    # What is side by side on a screen is one column on a telephone.
    assert all(columns == (1 if width == 390 else things) for columns, things in layout["columns"]), layout["columns"]
    # A bar's number begins where the bar ends, and stays inside.
    assert all(0 < gap < 80 and over <= 1 for gap, over in layout["numbers"]), layout["numbers"]


def test_what_is_folded_is_printed(browser, pages):
    browser.look(pages["run"], width=1280, folded=True)
    seen = "[...document.querySelectorAll('details > :not(summary)')].map(e => e.checkVisibility())"
    assert not any(browser.evaluate(seen))
    browser.call("Emulation.setEmulatedMedia", media="print")
    printed = browser.evaluate(seen)
    assert printed
    assert all(printed), printed
    layout = browser.evaluate(LAYOUT)
    assert layout["faint"] == []
    assert set(layout["cards"]) == {"table-row"}
    # Nothing is cut off on a sheet of A4.
    browser.look(pages["run"], width=688)
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert browser.evaluate(LAYOUT)["hidden"] == 0
    coloured = "[...document.querySelectorAll('.heat td.sure, .fill, .query li, .stack span')]"
    assert set(browser.evaluate(f"{coloured}.map(e => getComputedStyle(e).printColorAdjust)")) == {"exact"}
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
    measured = browser.look(spoilt, width=390)
    assert "before" in measured["text"]
    assert "console" in faults(measured)
