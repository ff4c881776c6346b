"""A search over configurations: random points of a space, each trained once, compared on dev alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mocme_jax.config import find_config, load_function
from mocme_jax.config_values import show
from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph
from mocme_jax.studies.finished_cells import Rows
from mocme_jax.studies.search_space import Space, draw
from mocme_jax.studies.study import as_flags, changed, identity_of_study, run_cell
from mocme_jax.training.checkpoints.run_folder import locked
from mocme_jax.training.compilation_cache import use_compilation_cache
from mocme_jax.training.logs.progress import make_console, results_table
from mocme_jax.training.preemption import Preemption
from mocme_jax.training.setup import builders
from mocme_jax.training.setup.settings import settings_of

if TYPE_CHECKING:
    from ml_collections import ConfigDict

# Of a search's points, so many are listed.
_LISTED = 10


def load_space(space: str | Space, config: ConfigDict) -> Space:
    """The space of a search file, or as it is given; its values are tried against the config's fields.

    Raises:
      UserError: no such file, or a field or value that the config can't have.
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
      graph: what to train on, in place of what the config names.

    Raises:
      UserError, Stopped: as ``run_study``.
    """
    preemption = preemption or Preemption()
    console = make_console()
    note = console.print
    ranges, seed = load_space(space, config), settings_of(config).seed
    dataset = builders.load_dataset(config, note, graph)
    name = space if isinstance(space, str) else "given in Python"
    points = {"as it is": {}} | {f"trial {number}": draw(ranges, seed, number) for number in range(1, trials)}
    use_compilation_cache()
    with locked(workdir):
        rows = Rows(workdir, identity_of_study(name, config, points, dataset, [seed]))
        preemption.something_to_save()
        for number, (point, changes) in enumerate(points.items(), 1):
            if seed in rows.of(point, changes):
                continue
            if (spent := sum(row["seconds"] for row in rows.all) / 60) >= minutes:
                note(f"{spent:.0f} minutes are spent: no further point is begun")
                break
            note(f"point {number} of {len(points)}: {point}  {as_flags(changes)}".rstrip())
            signals = dict(preemption=preemption, console=console)
            run_cell(rows, point, changes, config, dataset, [seed], **signals, graph=graph, test=False)
    best = sorted((row for row in rows.all if row["cell"] in points), key=lambda row: -row["dev"]["mrr"])
    table = [
        {"point": row["cell"], "dev MRR": row["dev"]["mrr"], "best epoch": row["best_epoch"]}
        | {"changed fields": " ".join(f"{path}={show(value)}" for path, value in row["changes"].items())}
        for row in best[:_LISTED]
    ]
    results_table(table, title=f"{dataset.graph.name}, search {name}: the best on dev", console=console)
    note(f"the best of {len(best)}: {as_flags(best[0]['changes']) or 'the config as it is'}")
    return best[0]
