"""The page's charts: curves and shares over time, ranks, reliability; and those of what changed while a run trained."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from mocme_jax.report.finished_run import CLASSES, Finished
from mocme_jax.report.svg_figures import GRID, INK, MUTED, PAPER, colour, draw
from mocme_jax.serving.probability import Bins

# Beside the colour, for those who see none; by the colour's number. The style sheet's .d0 to .d3 are the legend's.
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))


class Series(NamedTuple):
    """What is drawn in one colour: its name, the colour's number, ``x`` and ``y`` of one length; None is left out."""

    name: str
    colour: int
    x: Sequence[float]
    y: Sequence[float | None]

    @property
    def words(self) -> str:
        """Where it starts and ends."""
        points = self.points
        if not points:
            return f"{self.name}: no finite value"
        (first, start), (last, end) = points[0], points[-1]
        return f"{self.name}: {start:.3g} at epoch {first}" + (f", {end:.3g} at epoch {last}" if last != first else "")

    @property
    def points(self) -> list[tuple[float, float]]:
        """Pairs of x and y where y is a number."""
        return [(x, y) for x, y in zip(self.x, self.y, strict=True) if y is not None]


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
    name: str,
    title: str,
    label: str,
    series: Sequence[Series],
    *,
    note: str = "",
    marked: Sequence[float | None] = (),
    high: float | None = None,
) -> Chart:
    """Lines over epochs, with a legend where there are several.

    Args:
      name, label: see ``draw``; the label is followed by each line in words.
      title, note: see ``Chart``.
      series: drawn in this order.
      marked: by series, an epoch that is ringed.
      high: end of the y axis; None for what the data take.
    """

    def plot(axes):
        for place, line in enumerate(series):
            points = line.points
            if not points:
                continue
            own, dash = colour(line.colour), DASHES[line.colour % len(DASHES)]
            size = 4 if len(points) < 30 else 2
            axes.plot(*zip(*points, strict=True), color=own, linestyle=dash, marker="o", markersize=size)
            for point in points:
                if marked and point[0] == marked[place]:
                    axes.plot(*point, "o", markersize=9, markerfacecolor="none", markeredgecolor=own)
        axes.set_ylim(0, high)
        if high is None and (tops := [y for line in series for _, y in line.points]):
            axes.set_ylim(0, 1.1 * max(tops) or 1)
        _over_epochs(axes, [at for line in series for at in line.x])

    svg = draw(name, f"{label}. {'; '.join(line.words for line in series)}", plot)
    keys = tuple(Key(line.name, line.colour, drawn="line") for line in series) if len(series) > 1 else ()
    return Chart(title, svg, keys, note)


def stack(name: str, title: str, label: str, series: Sequence[Series]) -> Chart:
    """Shares that make up 1, over the same epochs; the first lies at the bottom."""

    def plot(axes):
        rows = np.array([[np.nan if v is None else v for v in part.y] for part in series], float)
        places = list(series[0].x)
        if len(places) == 1:
            # One evaluation is a line without width.
            places, rows = [places[0] - 0.5, places[0] + 0.5], np.repeat(rows, 2, axis=1)
        colours = [colour(part.colour) for part in series]
        axes.stackplot(places, np.nan_to_num(rows), colors=colours, edgecolor=PAPER, linewidth=1, alpha=0.9)
        axes.set_ylim(0, 1)
        axes.set_xlim(min(places), max(places))
        _percent(axes.yaxis)
        _over_epochs(axes, series[0].x)

    svg = draw(name, f"{label}. {'; '.join(part.words for part in series)}", plot)
    return Chart(title, svg, tuple(Key(part.name, part.colour) for part in reversed(series)))


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


def ranks(name: str, title: str, edges: Sequence[int], named: Sequence[tuple[str, int, np.ndarray]]) -> Chart:
    """Shares of ranks by class, side by side: of each its name, a colour's number, and the ranks ``[Q]``."""
    series = [Series(word, number, edges, rank_shares(values, edges)) for word, number, values in named]

    def plot(axes):
        width = 0.82 / len(series)
        for index, (_, number, _, shares) in enumerate(series):
            left = np.arange(len(edges)) - 0.41 + index * width
            axes.bar(left, shares, width=width, align="edge", color=colour(number), edgecolor=PAPER, linewidth=0.5)
        axes.set_xticks(range(len(edges)), [_short(edge) for edge in edges])
        axes.set_xlabel("rank, up to")
        axes.tick_params(axis="x", length=0)
        _percent(axes.yaxis)

    told = "; ".join(
        f"{word}: " + ", ".join(f"{share:.1%} up to {edge:,}" for edge, share in zip(edges, shares, strict=True))
        for word, _, _, shares in series
    )
    svg = draw(name, f"{title}: share of the queries in each class of ranks. {told}", plot)
    keys = tuple(Key(word, number) for word, number, *_ in series)
    return Chart(title, svg, keys)


def reliability(name: str, title: str, label: str, named: Sequence[tuple[Key, Bins]]) -> Chart:
    """Share right over probability; discs have areas in proportion to their numbers of answers."""

    def plot(axes):
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
        for key, bins in named:
            own = colour(key.colour)
            axes.plot(bins.confidence, bins.right, color=own, linewidth=1.3)
            area = 12 + 240 * bins.count / max(bins.count.sum(), 1)
            axes.scatter(bins.confidence, bins.right, s=area, color=own, edgecolor=PAPER, linewidth=0.7, zorder=3)
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.04)
        axes.set_xlabel("probability that the model gave")
        _percent(axes.xaxis)
        _percent(axes.yaxis)

    told = "; ".join(
        f"{key.name}: " + ", ".join(f"{c:.0%} sure and {r:.0%} right ({n})" for c, r, n in zip(*bins, strict=True))
        for key, bins in named
    )
    svg = draw(name, f"{label}. {told}", plot, size=(4.9, 3.6))
    return Chart(title, svg, tuple(key for key, _ in named))


def against(name: str, title: str, points: Sequence[tuple[float, float, float]], number: int) -> Chart:
    """Means with deviations over a number: points ``(x, mean, deviation)``, in the colour of this number."""

    def plot(axes):
        places, means, deviations = np.array(sorted(points), float).T
        axes.errorbar(places, means, deviations, color=colour(number), marker="o", capsize=3, ecolor=INK, elinewidth=1)
        axes.set_ylim(0, None)
        axes.grid(True, color=GRID)

    told = ", ".join(f"{y:.3f} at {x:g}" for x, y, _ in sorted(points))
    return Chart(title, draw(name, f"{title}: {told}", plot))


def _over_epochs(axes, places: Sequence[float]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("epoch")
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


CLASS_COLOURS = (2, 4, 5)
_LOSSES = ("train/loss/total", "train/loss/ranking", "train/loss/regularisation")


def expert_colours(runs: Sequence[Finished]) -> dict[str, int]:
    """A colour for each expert, the same in all charts of a page."""
    names = dict.fromkeys(name for run in runs for name in run.experts)
    return {name: place for place, name in enumerate(names)}


def dev_curves(runs: Sequence[Finished]) -> list[Chart]:
    """Dev MRR of each run over epochs, the best epoch ringed."""
    found = [(Series(run.name, place, *run.curve("dev/mrr")), run) for place, run in enumerate(runs)]
    found = [(curve, run.results["run"]["best_epoch"]) for curve, run in found if curve.x]
    if not found:
        return []
    series, best = zip(*found, strict=True)
    note = "The ring marks the epoch that was kept, the best on dev."
    return [lines("dev", "MRR on dev", "MRR on dev by epoch", series, note=note, marked=best)]


def loss_curves(runs: Sequence[Finished]) -> list[Chart]:
    """The loss: its parts where there is one run, the total of each where there are several."""
    note = "Mean over the steps since the previous evaluation."
    if len(runs) > 1:
        found = [Series(run.name, place, *run.curve(_LOSSES[0])) for place, run in enumerate(runs)]
        note += " Losses of different configs are not comparable."
    else:
        found = [Series(name.rpartition("/")[2], i, *runs[0].curve(name)) for i, name in enumerate(_LOSSES)]
    found = [curve for curve in found if any(curve.y)]
    return [lines("loss", "Training loss", "Training loss by epoch", found, note=note)] if found else []


def class_charts(runs: Sequence[Finished]) -> list[Chart]:
    """Shares of easy, ambiguous and hard negatives, and of their weight, for each run that weighs them by entropy."""
    charts = []
    for number, run in enumerate(runs):
        for kind, words in (("share", "Share of the negatives"), ("weight", "Share of their weight in the loss")):
            pairs = zip(CLASSES, CLASS_COLOURS, strict=True)
            series = [Series(name, c, *run.curve(f"train/negatives/{kind}_{name}")) for name, c in pairs]
            if all(curve.x for curve in series):
                title = words if len(runs) == 1 else f"{run.name}: {words[0].lower()}{words[1:]}"
                label = f"{words} by class and epoch, {run.name}"
                charts.append(stack(f"classes-{kind}-{number}", title, label, series))
    return charts


def weight_charts(runs: Sequence[Finished]) -> list[Chart]:
    """Mean share of each expert over epochs, for each run that has more than one."""
    charts, colours = [], expert_colours(runs)
    for number, run in enumerate(runs):
        series = [Series(name, colours[name], *run.curve(f"weights/{name}")) for name in run.experts]
        if len(series) > 1 and all(curve.x for curve in series):
            title = "Shares of the experts" if len(runs) == 1 else f"{run.name}: shares of the experts"
            label = f"Mean share of the experts by epoch, {run.name}"
            charts.append(lines(f"weights-{number}", title, label, series, note="Mean over all entities."))
    return charts
