"""The function ``load``, which reads a finished run and returns its model."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from mocme_jax.additions.addition import changed
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
    places = dict(data_dir=data_dir, features_dir=features_dir, graph=graph)
    return load_checkpoint(workdir, notify=notify, check=check, **places)[0]


def load_checkpoint(
    workdir: str | os.PathLike | None,
    *,
    notify: Callable[[str], None] | None = None,
    check: Callable[[Lookup, Lookup], None] | None = None,
    **places: Any,
) -> tuple[TrainedModel, Restored]:
    """Load a run as ``load`` does, and also return its checkpoint as it was restored on one device.

    ``places`` are ``data_dir``, ``features_dir`` and ``graph`` of ``load``.
    """
    if workdir is None:
        workdir = atlas.MODEL
        if notify is not None:
            notify("no workdir given: using the model of atlas that comes with mocme_jax")
    for name, place in {"workdir": workdir, **places}.items():
        if name != "graph":
            check_place(name, place or "")
    workdir = Path(workdir)
    restored = restore_best(
        workdir,
        **places,
        alone=True,
        notify=notify,
        check=lambda config, graph: None if check is None else check(*_lookups(config, graph)),
    )
    graph, module = restored.dataset.graph, restored.model
    entities, relations = _lookups(restored.config, graph, notify)
    inputs = builders.build_inputs(restored.config, graph, restored.mapper)
    # Applied once: encoding, explanations and new entities all start from the table as it was evaluated.
    before_encoding = builders.table_additions_of(restored.config, graph, workdir)
    params = restored.params._replace(structure=changed(restored.params.structure, before_encoding))
    encode = make_encode_program(module, entities=len(entities), mapper=restored.mapper)
    vectors, _ = encode(params, inputs)
    additions = builders.additions_of(restored.config, graph)
    splits = dict(zip(graph.splits, restored.dataset.known, strict=True))
    whole = restored.mapper.whole_tables(vectors, EntityVectors(ROWS, ROWS))
    answers = in_blocks(whole.answers[: len(entities)])
    # One array if both roles are equal, which halves the memory.
    questions = answers if module.encoder.experts == 1 else in_blocks(whole.questions[: len(entities)])
    tables = Tables(questions, answers, jax.numpy.int32(len(entities)), additions_in_blocks(additions.scores))
    served = Served(module, params, inputs, tables, Facts(splits, len(entities), len(relations), additions))
    model = TrainedModel(workdir, served, graph, entities, relations, restored.saved, notify)
    return model, restored


def _lookups(
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
