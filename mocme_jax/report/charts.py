"""The page's charts: curves, shares over time, ranks, reliability."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from mocme_jax.report.svg_figures import GRID, INK, MUTED, PAPER, colour, draw

# Beside the colour, for those who see none; by the colour's number. The style sheet's .d0 to .d3 are the legend's.
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))


class Line(NamedTuple):
    """One line of a chart: ``x`` and ``y`` of the same length, a ``colour`` by number, ``marked`` a place in x."""

    x: Sequence[float]
    y: Sequence[float]
    colour: int
    marked: float | None = None


class Key(NamedTuple):
    """A line of the legend that stands beside a chart; ``drawn`` as a ``line`` with its dashes, or as a ``box``."""

    name: str
    colour: int
    note: str = ""
    drawn: str = "box"


class Chart(NamedTuple):
    """A drawing with its title, its legend (none where a title is enough) and a sentence on how to read it."""

    title: str
    svg: Markup
    legend: tuple[Key, ...] = ()
    note: str = ""


def lines(
    name: str, label: str, series: Sequence[Line], *, x: str = "epoch", low: float | None = 0, high: float | None = None
) -> Markup:
    """Lines over epochs or shares.

    Args:
      name, label: see ``draw``.
      series: drawn in this order; points that are None are left out.
      x: what the axis is.
      low, high: ends of the y axis; None for what the data take.
    """

    def plot(axes):
        for line in series:
            points = [(a, b) for a, b in zip(line.x, line.y, strict=True) if b is not None]
            if not points:
                continue
            own, dash = colour(line.colour), DASHES[line.colour % len(DASHES)]
            axes.plot(*zip(*points, strict=True), color=own, linestyle=dash, marker="o" if len(points) < 15 else "")
            for at, value in points:
                if at == line.marked:
                    axes.plot([at], [value], "o", markersize=9, markerfacecolor="none", markeredgecolor=own)
        axes.set_xlabel(x)
        axes.set_ylim(low, high)
        _whole_epochs(axes, [at for line in series for at in line.x], x)

    return draw(name, label, plot)


def stack(
    name: str, label: str, x: Sequence[float], parts: Sequence[Sequence[float]], colours: Sequence[int]
) -> Markup:
    """Shares that make up 1, over epochs; the first lies at the bottom."""

    def plot(axes):
        places, rows = list(x), np.array([[np.nan if v is None else v for v in part] for part in parts], float)
        if len(places) == 1:
            # One evaluation is a line without width.
            places, rows = [places[0] - 0.5, places[0] + 0.5], np.repeat(rows, 2, axis=1)
        axes.stackplot(
            places, np.nan_to_num(rows), colors=[colour(c) for c in colours], edgecolor=PAPER, linewidth=1, alpha=0.9
        )
        axes.set_ylim(0, 1)
        axes.set_xlim(min(places), max(places))
        axes.set_xlabel("epoch")
        _percent(axes.yaxis)
        _whole_epochs(axes, list(x), "epoch")

    return draw(name, label, plot)


def rank_edges(most: int) -> list[int]:
    """Upper ends of the classes of ranks, about evenly spaced on a log scale: 1, 3, 10, 30 ... up to ``most``."""
    edges = [1]
    while edges[-1] < most:
        edges.append(edges[-1] * 3 if len(edges) % 2 else edges[-1] // 3 * 10)
    return edges


def rank_shares(ranks: np.ndarray, edges: Sequence[int]) -> np.ndarray:
    """Share ``[E]`` of the ranks in each class (edge before, edge]."""
    place = np.searchsorted(np.asarray(edges, np.float64), ranks, side="left")
    return np.bincount(place, minlength=len(edges)) / max(len(ranks), 1)


def bars(name: str, label: str, edges: Sequence[int], series: Sequence[tuple[Sequence[float], int]]) -> Markup:
    """Shares by class of rank, the series side by side: each a pair of shares ``[E]`` and a colour's number."""

    def plot(axes):
        width = 0.82 / len(series)
        for index, (shares, number) in enumerate(series):
            left = np.arange(len(edges)) - 0.41 + index * width
            axes.bar(left, shares, width=width, align="edge", color=colour(number), edgecolor=PAPER, linewidth=0.5)
        axes.set_xticks(range(len(edges)), [_short(edge) for edge in edges])
        axes.set_xlabel("rank, up to")
        axes.tick_params(axis="x", length=0)
        _percent(axes.yaxis)

    return draw(name, label, plot)


class Bins(NamedTuple):
    """Answers by how sure the model was: ``[B]`` mean probability, share right, number; empty bins are left out."""

    confidence: np.ndarray
    right: np.ndarray
    count: np.ndarray


def reliability_bins(confidence: np.ndarray, right: np.ndarray, bins: int) -> Bins:
    """Equal-width bins, as ``use.probability.calibration_error`` has them."""
    place = np.minimum((np.asarray(confidence) * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    held = count > 0
    sums = [np.bincount(place, np.asarray(value, float), minlength=bins)[held] for value in (confidence, right)]
    return Bins(sums[0] / count[held], sums[1] / count[held], count[held])


def reliability(name: str, label: str, series: Sequence[tuple[Bins, int]]) -> Markup:
    """Share right over probability; discs have areas in proportion to their numbers of answers."""

    def plot(axes):
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
        for bins, number in series:
            own = colour(number)
            axes.plot(bins.confidence, bins.right, color=own, linewidth=1.3)
            area = 12 + 240 * bins.count / max(bins.count.sum(), 1)
            axes.scatter(bins.confidence, bins.right, s=area, color=own, edgecolor=PAPER, linewidth=0.7, zorder=3)
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.04)
        axes.set_xlabel("probability that the model gave")
        _percent(axes.xaxis)
        _percent(axes.yaxis)

    return draw(name, label, plot, size=(4.9, 3.6))


def against(name: str, label: str, points: Sequence[tuple[float, float, float]], *, number: int) -> Markup:
    """Means with deviations over a number: points ``(x, mean, deviation)``."""

    def plot(axes):
        places, means, deviations = np.array(sorted(points), float).T
        axes.errorbar(places, means, deviations, color=colour(number), marker="o", capsize=3, ecolor=INK, elinewidth=1)
        axes.set_ylim(0, None)
        axes.grid(True, color=GRID)

    return draw(name, label, plot)


def _whole_epochs(axes, places: Sequence[float], x: str) -> None:
    from matplotlib.ticker import MaxNLocator

    if x == "epoch":
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        if len(set(places)) == 1:
            axes.set_xlim(places[0] - 1, places[0] + 1)


def _percent(axis) -> None:
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1, decimals=None))


def _short(edge: int) -> str:
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if edge >= size:
            return f"{edge / size:g}{letter}"
    return str(edge)
