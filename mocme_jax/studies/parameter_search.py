"""A search over configurations: points of a space, each trained once, compared on dev alone."""

import functools
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from mocme_jax.config import find_config, flat, load_function
from mocme_jax.config_values import show
from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph
from mocme_jax.studies.finished_cells import Rows
from mocme_jax.studies.search_space import Space, described, draw
from mocme_jax.studies.seed_training import why_pruned
from mocme_jax.studies.study import as_flags, changed, identity_of_study, run_cell
from mocme_jax.studies.tpe_sampler import TpeSampler
from mocme_jax.training.checkpoints.run_folder import locked
from mocme_jax.training.jax_start import prepare_jax
from mocme_jax.training.logs.progress import make_console, results_table
from mocme_jax.training.preemption import Preemption
from mocme_jax.training.setup import builders
from mocme_jax.training.setup.settings import settings_of

# Of a search's points, so many are listed.
_LISTED = 10


def load_space(space: str | Space, config: ConfigDict) -> Space:
    """The space of a search file, or as it is given; its values are tried against the config's fields.

    Raises:
      UserError: no such file, or a field or value that the config cannot have.
    """
    if isinstance(space, str):
        space = load_function(find_config(space, "search", "--space"), "get_space(config)")(config)
    changed(config, draw(space, 0, 1))
    return space


def search(
    config: ConfigDict,
    space: str | Space,
    workdir: Path,
    *,
    trials: int,
    minutes: float,
    sampler: str,
    pruner: str,
    preemption: Preemption | None = None,
    graph: KnowledgeGraph | None = None,
) -> dict:
    """Tries what is not tried yet of a search's points, and returns the best on dev; test is never scored.

    The first point is the config itself.

    Args:
      config: what every point starts from; its seed draws the points, and is that of each training.
      space: its name, see ``load_space``, or the space itself.
      trials: points, with those tried before.
      minutes: after which no further point is begun; counts the minutes of points tried before too.
      sampler, pruner: see the options of ``mocme_jax.search``.
      graph: what to train on, in place of what the config names.

    Raises:
      UserError, Stopped: as ``run_study``; also if Optuna is asked for and not installed.
    """
    prepare_jax()
    preemption = preemption or Preemption()
    console = make_console()
    note = console.print
    ranges, seed = load_space(space, config), settings_of(config).seed
    fields = flat(config)
    tpe = TpeSampler(ranges, seed, {path: fields[path] for path in ranges}) if sampler == "tpe" else None
    dataset = builders.load_dataset(config, note, graph)
    name = space if isinstance(space, str) else "given in Python"
    points = ["as it is", *(f"trial {number}" for number in range(1, trials))]
    identity = identity_of_study(name, config, {points[0]: {}}, dataset, [seed])
    identity["search"] = {"sampler": sampler, "pruner": pruner, "space": described(ranges)}
    with locked(workdir, settings_of(config).lock):
        rows = Rows(workdir, identity)
        preemption.something_to_save()
        for number, point in enumerate(points):
            if point in {row["cell"] for row in rows.all}:
                continue
            if (spent := sum(row["seconds"] for row in rows.all) / 60) >= minutes:
                note(f"{spent:.0f} minutes are used; no further point is started")
                break
            changes: dict = {}
            if number:
                changes = tpe.draw(number, rows.all) if tpe else draw(ranges, seed, number)
            note(f"point {number + 1} of {trials}: {point}  {as_flags(changes)}".rstrip())
            curves = [row["curve"] for row in rows.all if "pruned" not in row]
            signals = dict(preemption=preemption, console=console)
            prune = functools.partial(why_pruned, finished=curves) if pruner == "median" else None
            run_cell(rows, point, changes, config, dataset, [seed], **signals, graph=graph, test=False, prune=prune)
    tried = [row for row in rows.all if row["cell"] in points]
    finished = by_score(tried)
    table = [
        {"point": row["cell"], "dev MRR": row["dev"]["mrr"], "best epoch": row["best_epoch"]}
        | {"changed fields": " ".join(f"{path}={show(value)}" for path, value in row["changes"].items())}
        for row in finished[:_LISTED]
    ]
    results_table(table, title=f"{dataset.graph.name}, search {name}: the best on dev", console=console)
    if tpe and (found := tpe.importances(tried)):
        best, count, shares = found
        told = ", ".join(f"{path} {share:.0%}" for path, share in shares.items())
        note(f"fields that set the best {best} of {count} points apart: {told}")
    pruned = f" (pruned: {len(tried) - len(finished)})" if len(finished) < len(tried) else ""
    note(f"the best of {len(finished)}{pruned}: {as_flags(finished[0]['changes']) or 'the config as it is'}")
    return finished[0]


def by_score(rows: Sequence[dict]) -> list[dict]:
    """The rows of finished points, the best on dev first; pruned points have not finished."""
    return sorted((row for row in rows if "pruned" not in row), key=lambda row: -row["dev"]["mrr"])
