"""What changed while a run was trained: loss, dev, classes of negatives, weights."""

from collections.abc import Sequence

from mocme_jax.report.charts import Chart, Series, lines, stack
from mocme_jax.report.finished_run import CLASSES, Finished

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
