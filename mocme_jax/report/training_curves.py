"""What changed while a run was trained: loss, dev, classes of negatives, weights."""

from collections.abc import Sequence

from mocme_jax.report.charts import Chart, Key, Line, lines, stack
from mocme_jax.report.finished_run import CLASSES, Finished

CLASS_COLOURS = (2, 4, 5)
_LOSSES = ("train/loss/total", "train/loss/ranking", "train/loss/regularisation", "train/loss/fit")


def modality_colours(runs: Sequence[Finished]) -> dict[str, int]:
    """A colour for each modality, the same in all charts of a page."""
    names = dict.fromkeys(name for run in runs for name in run.modalities)
    return {name: place for place, name in enumerate(names)}


def dev_curves(runs: Sequence[Finished]) -> list[Chart]:
    """Dev MRR of each run over epochs, the best epoch ringed."""
    found = [(run, place, *run.curve("dev/mrr")) for place, run in enumerate(runs)]
    series = [Line(x, y, place, run.results["run"]["best_epoch"]) for run, place, x, y in found if x]
    if not series:
        return []
    words = "; ".join(f"{run.name}: {_course(x, y)}" for run, _, x, y in found if x)
    legend = tuple(Key(run.name, place, drawn="line") for run, place, x, _ in found if x) if len(runs) > 1 else ()
    note = "Ringed: the epoch that was kept, the best on dev."
    return [Chart("MRR on dev", lines("dev", f"MRR on dev by epoch. {words}", series), legend, note)]


def loss_curves(runs: Sequence[Finished]) -> list[Chart]:
    """The loss: its parts where there is one run, the total of each where there are several."""
    if len(runs) > 1:
        found = [(run.name, place, *run.curve(_LOSSES[0])) for place, run in enumerate(runs)]
        note = "Mean over the steps since the evaluation before. Losses of different configs do not compare."
    else:
        found = [(name.rpartition("/")[2], place, *runs[0].curve(name)) for place, name in enumerate(_LOSSES)]
        note = "Mean over the steps since the evaluation before."
    found = [(name, place, x, y) for name, place, x, y in found if any(y)]
    if not found:
        return []
    words = "; ".join(f"{name}: {_course(x, y)}" for name, _, x, y in found)
    svg = lines("loss", f"Training loss by epoch. {words}", [Line(x, y, place) for _, place, x, y in found])
    keys = tuple(Key(name, place, drawn="line") for name, place, _, _ in found)
    return [Chart("Training loss", svg, keys, note)]


def class_charts(runs: Sequence[Finished]) -> list[Chart]:
    """Shares of easy, ambiguous and hard negatives, and of their weight, for each run that weighs them by entropy."""
    charts = []
    for number, run in enumerate(runs):
        for kind, words in (("share", "Share of the negatives"), ("weight", "Share of their weight in the loss")):
            curves = [run.curve(f"train/negatives/{kind}_{name}") for name in CLASSES]
            if not all(x for x, _ in curves):
                continue
            told = "; ".join(f"{name}: {_course(x, y)}" for name, (x, y) in zip(CLASSES, curves, strict=True))
            label = f"{words} by class and epoch, {run.name}. {told}"
            svg = stack(f"classes-{kind}-{number}", label, curves[0][0], [y for _, y in curves], CLASS_COLOURS)
            title = words if len(runs) == 1 else f"{run.name}: {words[0].lower()}{words[1:]}"
            keys = tuple(Key(name, c) for name, c in zip(CLASSES, CLASS_COLOURS, strict=True))
            charts.append(Chart(title, svg, keys[::-1]))
    return charts


def weight_charts(runs: Sequence[Finished]) -> list[Chart]:
    """Mean weight of each modality over epochs, for each run that has more than one."""
    charts, colours = [], modality_colours(runs)
    for number, run in enumerate(runs):
        found = [(name, *run.curve(f"weights/modality/{name}")) for name in run.modalities]
        if len(found) < 2 or not all(x for _, x, _ in found):
            continue
        told = "; ".join(f"{name}: {_course(x, y)}" for name, x, y in found)
        series = [Line(x, y, colours[name]) for name, x, y in found]
        svg = lines(f"weights-{number}", f"Mean weight of modalities by epoch, {run.name}. {told}", series)
        keys = tuple(Key(name, colours[name], drawn="line") for name, _, _ in found)
        title = "Weight of modalities" if len(runs) == 1 else f"{run.name}: weight of modalities"
        charts.append(Chart(title, svg, keys, "Mean over the entities that have the modality."))
    return charts


def view_charts(run: Finished) -> list[Chart]:
    """Mean weight of each view over epochs, a chart a modality; none without experts."""
    charts = []
    for number, name in enumerate(run.modalities):
        # Flat rows keep lists: one value a view.
        x, rows = run.curve(f"weights/view/{name}")
        if not rows or len(rows[0]) < 2:
            continue
        views = [[row[place] for row in rows] for place in range(len(rows[0]))]
        told = "; ".join(f"view {place + 1}: {_course(x, y)}" for place, y in enumerate(views))
        series = [Line(x, y, place) for place, y in enumerate(views)]
        # Even weights lie in the middle, so that little movement looks like little.
        high = max(2 / len(views), 1.1 * max(map(max, views)))
        svg = lines(f"views-{number}", f"Mean weight of the views of {name} by epoch. {told}", series, high=high)
        keys = tuple(Key(f"view {place + 1}", place, drawn="line") for place in range(len(views)))
        charts.append(Chart(f"Views of {name}", svg, keys))
    return charts


def _course(x: Sequence[int], y: Sequence[float | None]) -> str:
    """A curve in words."""
    points = [(a, b) for a, b in zip(x, y, strict=True) if b is not None]
    if not points:
        return "nothing that is finite"
    (first, start), (last, end) = points[0], points[-1]
    return f"{start:.3g} at epoch {first}" + (f", {end:.3g} at epoch {last}" if last != first else "")
