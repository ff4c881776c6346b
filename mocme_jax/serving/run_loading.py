"""The function ``load``, which reads a finished run and returns its model."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import jax

from mocme_jax.additions.addition import ScoreAddition, changed
from mocme_jax.data import atlas
from mocme_jax.data.features.text_features import LABELS_FILE, RELATION_LABELS_FILE, read_labels
from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph
from mocme_jax.errors import check_place
from mocme_jax.method.mocme import EntityVectors
from mocme_jax.parallel.mesh import ROWS
from mocme_jax.serving.compiled_queries import Tables, additions_in_blocks
from mocme_jax.serving.completion import Served
from mocme_jax.serving.known_facts import Facts
from mocme_jax.serving.name_lookup import Lookup
from mocme_jax.serving.top_candidates import in_blocks
from mocme_jax.serving.trained_model import TrainedModel
from mocme_jax.training.best_model import Restored, restore_best
from mocme_jax.training.entity_encoding import make_encode_program
from mocme_jax.training.setup import builders
from mocme_jax.training.setup.settings import data_folders

if TYPE_CHECKING:
    from ml_collections import ConfigDict


def load(
    workdir: str | os.PathLike | None = None,
    *,
    data_dir: str | None = None,
    features_dir: str | None = None,
    graph: KnowledgeGraph | None = None,
    notify: Callable[[str], None] | None = None,
    check: Callable[[Lookup, Lookup], None] | None = None,
) -> TrainedModel:
    """Load the best model of a run onto one device, ready to answer queries.

    Args:
      workdir: the folder of the run, as given to ``fit`` or to ``mocme train``. None: the small model of the bundled
        graph that comes with the package.
      data_dir: the folder of the graph, if it has moved since training.
      features_dir: the folder of the feature files, if it has moved since training.
      graph: the graph, if it is already loaded.
      notify: called with one line before slow work; None for silence.
      check: called with the entities and the relations before the model is read. It may raise an error, for example if
        it misses a name.

    Raises:
      UserError: there is no checkpoint, or the graph is not the one that the model was trained on.
    """
    if workdir is None:
        workdir = atlas.MODEL
        if notify is not None:
            notify("no workdir given: using the model of atlas that comes with mocme_jax")
    for name, place in (("workdir", workdir), ("data_dir", data_dir), ("features_dir", features_dir)):
        check_place(name, place or "")
    places = dict(data_dir=data_dir, features_dir=features_dir, graph=graph)
    restored = restore_best(
        Path(workdir),
        **places,
        alone=True,
        notify=notify,
        check=lambda config, graph: None if check is None else check(*lookups(config, graph)),
    )
    return model_of(Path(workdir), restored, notify)


def lookups(
    config: ConfigDict, graph: KnowledgeGraph, notify: Callable[[str], None] | None = None
) -> tuple[Lookup, Lookup]:
    """Return the lookups of the entities and of the relations, with the readable names from the run's data folders."""
    folders, found = data_folders(config), []
    for kind, file, names in (
        ("entity", LABELS_FILE, graph.entities),
        ("relation", RELATION_LABELS_FILE, graph.relations),
    ):
        path = next((folder / file for folder in folders if (folder / file).exists()), None)
        labels = {} if path is None else read_labels(path, names, notify or (lambda line: None))
        found.append(Lookup(kind, names, labels))
    return found[0], found[1]


def model_of(workdir: Path, restored: Restored, notify: Callable[[str], None] | None = None) -> TrainedModel:
    """Make the ``TrainedModel`` of a checkpoint that was restored on one device (``alone=True``)."""
    graph, model = restored.dataset.graph, restored.model
    entities, relations = lookups(restored.config, graph, notify)
    inputs = builders.build_inputs(restored.config, graph, restored.mapper)
    # Applied once: encoding, explanations and new entities all start from the table as it was evaluated.
    before_encoding = builders.table_additions_of(restored.config, graph, workdir)
    params = restored.params._replace(structure=changed(restored.params.structure, before_encoding))
    encode = make_encode_program(model, entities=len(entities), mapper=restored.mapper)
    vectors, _ = encode(params, inputs)
    additions = builders.additions_of(restored.config, graph)
    splits = dict(zip(graph.splits, restored.dataset.known, strict=True))
    served = Served(
        model,
        params,
        inputs,
        tables_of(vectors, len(entities), restored, additions.scores),
        Facts(splits, len(entities), len(relations), additions),
    )
    return TrainedModel(
        workdir=workdir,
        served=served,
        graph=graph,
        entities=entities,
        relations=relations,
        saved=restored.saved,
        notify=notify,
    )


def tables_of(
    vectors: EntityVectors, entities: int, restored: Restored, additions: tuple[ScoreAddition, ...] = ()
) -> Tables:
    """Arrange encoded entities in blocks.

    Args:
      vectors: the output of the encoding program, which may be split over devices and padded.
      entities: N.
      restored: the checkpoint.
      additions: score additions.
    """
    rows = [table[:entities] for table in restored.mapper.whole_tables(vectors, EntityVectors(ROWS, ROWS))]
    answers = in_blocks(rows[1])
    # One array if both roles are equal, which halves the memory.
    questions = answers if restored.model.encoder.experts == 1 else in_blocks(rows[0])
    return Tables(questions, answers, jax.numpy.int32(entities), additions_in_blocks(additions))
