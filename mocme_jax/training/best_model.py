"""The function ``restore_best``, which reads a run's best model, its graph and its config from the run's folder."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ml_collections import ConfigDict

from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph
from mocme_jax.errors import UserError
from mocme_jax.method.mocme import MoCME, Params
from mocme_jax.parallel.mesh import Mapper
from mocme_jax.training.checkpoints.orbax_store import open_checkpoints
from mocme_jax.training.checkpoints.run_position import START_PART, check_format, differing, hint_at_old_features
from mocme_jax.training.checkpoints.sealed_checkpoints import Saves
from mocme_jax.training.jax_start import prepare_jax
from mocme_jax.training.setup import builders
from mocme_jax.training.setup.settings import here, settings_of
from mocme_jax.training.train_state import params_shapes, params_spec


@dataclasses.dataclass(frozen=True)
class Restored:
    """The best checkpoint of a run, placed on the devices.

    Attributes:
      config: the run's config, with the devices and folders of this machine.
      saved: the metadata of the checkpoint: ``config``, ``fingerprint``, ``position``, ``version`` and others.
      dataset: the graph.
      mapper: the devices.
      model: the model.
      params: its parameters.
    """

    config: ConfigDict
    saved: dict
    dataset: builders.Dataset
    mapper: Mapper
    model: MoCME
    params: Params


def restore_best(
    workdir: Path,
    *,
    data_dir: str | None = None,
    features_dir: str | None = None,
    graph: KnowledgeGraph | None = None,
    alone: bool = False,
    notify: Callable[[str], None] | None = None,
    check: Callable[[ConfigDict, KnowledgeGraph], None] = lambda config, graph: None,
) -> Restored:
    """Read a run's best checkpoint and the graph it was trained on.

    Args:
      workdir: the folder of the run.
      data_dir: the folder of the graph, if it has moved since training.
      features_dir: the folder of the feature files, if it has moved since training.
      graph: the graph, if it is already loaded.
      alone: use one device with whole tables, whatever the run used.
      notify: called with one line before slow work; None for silence.
      check: called with the config and the graph before the model is read. It may raise an error.

    Raises:
      UserError: there is no checkpoint, or the graph is not the one that the model was trained on.
    """
    prepare_jax()
    notify = notify or (lambda line: None)
    with open_checkpoints(workdir, create=False) as checkpoints:
        newest = Saves(checkpoints, None, 0, lambda _: None).newest("best", accept=partial(check_format, workdir))
        if newest is None:
            raise UserError(f"{workdir / 'best'}: contains no checkpoint; train there first, or correct --workdir")
        try:
            config = here(newest.meta, data_dir, features_dir, alone=alone)
        except UserError as error:
            place = workdir / "best" / str(newest.number)
            raise UserError(
                f"{place}: the config in its meta is not valid in this version: {str(error)[:300]}"
            ) from None
        dataset = builders.load_dataset(config, notify, graph)
        if dataset.fingerprint != newest.meta["fingerprint"]:
            of_graph = {name: part for name, part in newest.meta["parts"].items() if not name.startswith(START_PART)}
            other = differing(of_graph, dataset.parts)
            raise UserError(
                f"{workdir}: was trained on another graph or other features than {dataset.graph.name} has now "
                f"({', '.join(other)}); give the originals with --data-dir=FOLDER and --features-dir=FOLDER"
                f"{hint_at_old_features(other)}"
            )
        check(config, dataset.graph)
        mapper, split = builders.build_mapper(config), settings_of(config).shard_entities
        model = builders.build_model(config, dataset.graph)
        entities = len(dataset.graph.entities)
        shapes = params_shapes(model, entities=entities, mapper=mapper, split=split)
        saved = Saves(checkpoints, None, entities, notify).newest("best", shapes)
        assert saved is not None  # it was found above
        params = mapper.place(saved.arrays, params_spec(split))
    return Restored(config, saved.meta, dataset, mapper, model, params)
