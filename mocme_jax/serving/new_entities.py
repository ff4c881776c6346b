"""Entities that are added after training, encoded from their features and an inferred, fitted or missing structure."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mocme_jax.data.features.raw_values import encode_raw, is_raw
from mocme_jax.data.features.similarity import NEIGHBOURS, SHARPNESS, joined_units, nearest
from mocme_jax.data.features.standardise import standardise
from mocme_jax.data.graph.knowledge_graph import Modality, make_modality
from mocme_jax.errors import UserError
from mocme_jax.method.encoder import Carried
from mocme_jax.method.mocme import Params
from mocme_jax.parallel.entity_tables import Inputs
from mocme_jax.serving import compiled_queries as programs
from mocme_jax.serving.compiled_queries import Tables, additions_in_blocks
from mocme_jax.serving.completion import Served, in_batches
from mocme_jax.serving.fitted_structure import Fitting, fit_structure, given_answers
from mocme_jax.serving.top_candidates import in_blocks
from mocme_jax.training.device_data import evidence

_ROWS = 256


def infer_structure(
    structure: np.ndarray, old: Sequence[np.ndarray], new: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Infer structure rows for new entities: the mean of their neighbours' rows, scaled to the neighbours' mean length.

    The structure expert knows nothing about such entities. Neither does an expert of a modality that they lack, because
    its vector is then a row of the structure table too. An inferred row works better than none.

    The mean of different rows is short, and a short row has low scores for all answers. Neighbours are the
    ``NEIGHBOURS`` entities with the highest sum of cosines over the modalities, weighted by its ``SHARPNESS``-th power.

    Args:
      structure: float ``[N, H d]``, rows of the existing entities.
      old: features of the existing entities by modality (at least one), ``[N, d_m]``. Rows of zeros are missing.
      new: features of the new entities by modality on the same scale, ``[n, d_m]``. Rows of zeros are missing.

    Returns:
      float32 ``[n, H d]``, and bool ``[n]``, whether the row could be inferred. Other rows are zeros.
    """
    count = len(new[0])
    rows = np.zeros((count, structure.shape[1]), np.float32)
    lengths = np.linalg.norm(structure, axis=1)
    old_units, new_units = joined_units(old), joined_units(new)
    for start in range(0, count, _ROWS):
        part = slice(start, start + _ROWS)
        ids, weights = nearest(new_units[part] @ old_units.T, NEIGHBOURS)
        weights = weights**SHARPNESS
        weights = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
        mean = np.einsum("nk,nkd->nd", weights, structure[ids])
        wanted = np.sum(weights * lengths[ids], axis=1)
        rows[part] = mean * (wanted / np.maximum(np.linalg.norm(mean, axis=1), 1e-12))[:, None]
    return rows, np.any(rows, axis=1)


Features = Mapping[str, np.ndarray | Sequence[Any]]

STRUCTURES = ("inferred", "missing")


def read_features(modalities: Sequence[Modality], features: Features, count: int) -> list[Modality]:
    """Return the features of new entities, in the order of the graph's modalities and on their scale.

    Args:
      modalities: the graph's modalities, with rows as they were read.
      features: by modality, vectors ``[n, d_m]`` as in the graph's feature files, with a row of NaN for a missing one,
        or n raw values (see ``encode_raw``). Modalities that are left out are missing.
      count: the number of new entities n.

    Raises:
      UserError: a modality is unknown, the number or width of rows is wrong, a number is not finite, or a raw value
        cannot be encoded.
    """
    widths = {modality.name: modality.features.shape[1] for modality in modalities}
    for name in features:
        if name not in widths:
            raise UserError(f"features {name!r}: the model has {', '.join(widths) or 'no feature modality'}")
    found = []
    for modality in modalities:
        given = features.get(modality.name)
        width = widths[modality.name]
        if given is None:
            found.append(Modality(modality.name, np.zeros((count, width), np.float32), np.zeros(count, bool)))
            continue
        if isinstance(given, str | Path | Mapping):
            raise UserError(f"features {modality.name}: give a list, one value per entity, in the order of the names")
        if any(map(is_raw, given)) or all(value is None for value in given):
            if len(given) != count:
                raise UserError(f"features {modality.name}: {len(given)} values for {count} entities")
            given = encode_raw(modality, given)
        rows = np.asarray(given)
        if rows.shape != (count, width):
            raise UserError(f"features {modality.name}: expected {count} rows of width {width}, got {list(rows.shape)}")
        found.append(standardise(make_modality(modality.name, rows), modality.scale))
    return found


def extended(
    served: Served,
    modalities: Sequence[Modality],
    triples: np.ndarray,
    count: int,
    *,
    infer: bool,
    fitting: Fitting | None,
) -> Served:
    """Add entities to a model.

    Args:
      modalities: the features of the new entities, standardised.
      triples: int32 ``[T, 3]``, known triples of the new entities, which count as training triples.
      count: the number of new entities n.
      infer: whether to infer their structure from entities with similar features; otherwise it is missing.
      fitting: how to fit their structure to their triples; None for no fit.
    """
    total = served.facts.num_entities + count
    features = [modality.features for modality in modalities]
    structure, has = np.zeros((count, served.model.encoder.structure_width), np.float32), np.zeros(count, bool)
    if infer and features:
        # Rows of entities that were added before are inferred themselves, or missing.
        known = len(served.params.structure) - served.added
        old = [np.asarray(rows[:known]) for rows in served.inputs.features]
        structure, has = infer_structure(np.asarray(served.params.structure[:known]), old, features)
    present = np.stack([has, *(modality.present for modality in modalities)], axis=1)
    counts = evidence(triples, total)[served.facts.num_entities :]
    fresh = Carried(
        jnp.asarray(structure), tuple(map(jnp.asarray, features)), jnp.asarray(present), jnp.asarray(counts)
    )
    facts = served.facts.extended(triples, total)
    given = given_answers(triples, served.facts.num_entities, served.model.num_relations)
    if fitting is not None and len(given):
        fresh = fit_structure(served, fresh, facts, given, fitting)
    encoded = in_batches(functools.partial(programs.encode_some, served.model, served.params.model), fresh)

    def longer(blocks: jax.Array, rows: np.ndarray) -> jax.Array:
        old = blocks.reshape(-1, blocks.shape[-1])[: served.facts.num_entities]
        return in_blocks(jnp.concatenate([old, rows]))

    tables = served.tables
    answers = longer(tables.answers, encoded.answers)
    questions = answers if tables.questions is tables.answers else longer(tables.questions, encoded.questions)
    whole = jax.tree.map(lambda *parts: jnp.concatenate(parts), Carried(served.params.structure, *served.inputs), fresh)
    return Served(
        served.model,
        Params(served.params.model, whole.structure),
        Inputs(*whole[1:]),
        Tables(questions, answers, jnp.int32(total), additions_in_blocks(facts.additions.scores)),
        facts,
        served.added + count,
    )
