"""A Matplotlib figure as SVG that belongs to the page: its colours, its font, no address of anything outside.

Charts are drawn with the colours below, each of which becomes a CSS custom property, so that one drawing serves light,
dark and print. No text from data is drawn: names stand in the page's own legends, where they are escaped and wrap.
"""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from typing import TYPE_CHECKING

from markupsafe import Markup

from mocme_jax.errors import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SERIES = 8
"""How many colours there are; the ninth series has the first again."""

INK, MUTED, GRID, PAPER = "#010101", "#020202", "#030303", "#040404"
_NAMES = {INK: "ink", MUTED: "muted", GRID: "line", PAPER: "paper"} | {f"#0000a{i}": f"c{i}" for i in range(SERIES)}

# Inches of 72 units; drawn so small that letters are still large enough on a telephone.
SIZE = (4.9, 2.9)
_LETTERS = 11
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mocme_jax",
    "text.parse_math": False,
    "font.size": _LETTERS,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "ytick.major.size": 0,
    "lines.linewidth": 1.8,
    "lines.markersize": 4,
}
_SVG = "http://www.w3.org/2000/svg"
_LINK = "{http://www.w3.org/1999/xlink}href"


def colour(index: int) -> str:
    """The colour of a series, for drawing; ``var(--c0)`` and so on in the page."""
    return f"#0000a{index % SERIES}"


def draw(name: str, label: str, plot: Callable[[Axes], None], size: tuple[float, float] = SIZE) -> Markup:
    """What ``plot`` draws on a pair of axes, as an ``<svg>`` element.

    Args:
      name: of the chart, different from the page's others: letters, digits, ``-``.
      label: what the chart shows, for those who do not see it.
      plot: draws.
      size: inches.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(size, layout="constrained")
        plot(figure.add_subplot())
        drawn = io.StringIO()
        figure.patch.set_visible(False)
        for axes in figure.axes:
            axes.patch.set_visible(False)
        # Without a date and a program's name the same numbers give the same page.
        FigureCanvasSVG(figure).print_svg(drawn, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return _inline(drawn.getvalue(), name, label)


def _inline(text: str, name: str, label: str) -> Markup:
    # Matplotlib's own text, with no entity but the five of XML.
    root = ElementTree.fromstring(text)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    used = set(re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", text))
    used = {one or other for one, other in used}
    for element in root.iter():
        if (own := element.get("id")) is not None:
            if own in used:
                element.set("id", f"{name}-{own}")
            else:
                del element.attrib["id"]
        if (target := element.attrib.pop(_LINK, None)) is not None:
            element.set("href", f"#{name}-{target.removeprefix('#')}")
        for key, value in list(element.attrib.items()):
            element.set(key, _coloured(re.sub(r"url\(#", f"url(#{name}-", value)))
        element.tag = element.tag.removeprefix(f"{{{_SVG}}}")
    inner = "".join(ElementTree.tostring(child, encoding="unicode") for child in root)
    return Markup('<svg class="chart" viewBox="{}" role="img" aria-label="{}">{}</svg>').format(
        root.get("viewBox"), one_line(label), Markup(inner)
    )


def _coloured(value: str) -> str:
    for drawn, name in _NAMES.items():
        value = value.replace(drawn, f"var(--{name})")
    # The page's font, of Matplotlib's size.
    return re.sub(r"font-family: [^;]*; ?", "", value)
