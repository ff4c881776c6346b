"""Repeats the scores of a run from its best checkpoint."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import jax

from mocme_jax.config import config_from_dict
from mocme_jax.errors import UserError
from mocme_jax.training import setup
from mocme_jax.training.checkpoints import open_checkpoints
from mocme_jax.training.compilation import use_compilation_cache
from mocme_jax.training.inputs import make_inputs
from mocme_jax.training.position import check_format
from mocme_jax.training.progress import make_console
from mocme_jax.training.results import print_results, read_results, results_of, weight_names
from mocme_jax.training.saving import Saves
from mocme_jax.training.state import params_shapes, params_spec


def evaluate_workdir(
    workdir: Path, *, data_dir: str | None = None, features_dir: str | None = None, as_json: bool = False
) -> bool:
    """Prints the scores of a run's best checkpoint, and whether they are those of its ``results.json``.

    Args:
      workdir: the run's folder.
      data_dir, features_dir: where graph and features lie now; None where the run found them.
      as_json: print the report as JSON, to standard output alone.

    Returns:
      False if ``results.json`` is there and its scores are others.

    Raises:
      UserError: there is no checkpoint, or the graph is not the one that the model was trained on.
    """
    use_compilation_cache()
    console = make_console(sys.stderr if as_json else None)
    notify = partial(console.print, soft_wrap=True, markup=False)
    with open_checkpoints(workdir, create=False) as checkpoints:
        newest = Saves(checkpoints, None, 0, lambda _: None).newest("best", accept=partial(check_format, workdir))
        if newest is None:
            raise UserError(f"{workdir / 'best'}: holds no checkpoint; train there first, or mend --workdir")
        config = config_from_dict(newest.meta["config"])
        # Run here, on what devices there are, whatever it was trained on.
        config.parallel.devices = min(config.parallel.devices, jax.device_count())
        if data_dir is not None:
            config.data.dir = data_dir
        if features_dir is not None:
            config.data.features_dir = features_dir
        dataset = setup.load_dataset(config, notify=console.print)
        if dataset.fingerprint != newest.meta["fingerprint"]:
            raise UserError(
                f"{workdir}: was trained on another graph or other features than {dataset.graph.name} holds now; "
                "say where they are with --data-dir=FOLDER and --features-dir=FOLDER"
            )
        mapper, split = setup.build_mapper(config), config.parallel.shard_entities
        model = setup.build_model(config, dataset.graph)
        entities = len(dataset.graph.entities)
        shapes = params_shapes(model, entities=entities, mapper=mapper, split=split)
        saved = Saves(checkpoints, None, entities, notify).newest("best", shapes)
        params = mapper.place(saved.arrays, params_spec(split))
    evaluator = setup.build_evaluator(config, model, dataset, mapper)
    inputs = make_inputs(dataset.graph, config.fusion.panel, config.seed, mapper, split=split)
    vectors, weights = setup.build_encode(config, model, dataset.graph, mapper)(params, inputs)
    results = results_of(
        saved.meta["config"],
        dataset,
        saved.meta["position"],
        dev=evaluator.report(params.model, vectors, "valid"),
        test=evaluator.report(params.model, vectors, "test") if len(dataset.graph.test) else None,
        weights=weight_names(dataset.graph, weights),
    )
    if as_json:
        print(json.dumps(results, indent=1))
    else:
        print_results(results, console)
    before = read_results(workdir)
    if before is None:
        console.print(f"{workdir} holds no results.json to compare with: the run has not finished")
        return True
    same = all(before[split] == results[split] for split in ("dev", "test"))
    console.print(
        f"the same numbers as {workdir / 'results.json'}"
        if same
        else f"NOT the numbers of {workdir / 'results.json'}; that file was written on {before['device']}, "
        f"jax {before['jax']}, and this is {results['device']}, jax {results['jax']}",
        soft_wrap=True,
    )
    return same
