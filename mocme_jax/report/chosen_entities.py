"""Chosen entities: what each carries, what it looks like, how its test queries are answered."""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from mocme_jax.data.features.entity_files import entity_files
from mocme_jax.data.graph.known_tails import reciprocal
from mocme_jax.data.media.pictures import read_image
from mocme_jax.report.answered_queries import LISTED, MOST_QUERIES, known_answers, queries_of
from mocme_jax.report.run_measurements import Measured

if TYPE_CHECKING:
    from PIL import Image

COUNT = 6
_SIDE = 128
"""Pixels of a picture's longer side in the page."""
_MOST_PICTURES = 2


def choose(measured: Measured, keys: Sequence[str], pictured: Collection[int] = (), count: int = COUNT) -> list[int]:
    """Ids of the entities asked for, or of some that test asks about, in turn from the most frequent patterns.

    Args:
      keys: names that are asked for; none for this choice. It looks at no answer.
      pictured: entities with a picture, which come first; then those with most queries, then those with most facts.
      count: how many.
    """
    if keys:
        return list(dict.fromkeys(measured.model.entities.ids(keys).tolist()))
    queries, facts = _queries(measured), _facts(measured)
    shown = np.isin(np.arange(len(facts)), list(pictured))
    order = np.lexsort((-facts, -np.minimum(queries, MOST_QUERIES), ~shown, queries == 0)).tolist()
    patterns, numbers = np.unique(np.asarray(measured.patterns, object).astype(str), return_counts=True)
    frequent = patterns[np.argsort(-numbers, kind="stable")].tolist()
    queues = [[i for i in order if measured.patterns[i] == pattern][:count] for pattern in frequent[:count]]
    kept = [i for turn in itertools.zip_longest(*queues) for i in turn if i is not None]
    # Those without a query or a picture are taken where there are no others.
    return sorted(kept, key=lambda index: (queries[index] == 0, not shown[index]))[:count]


def chosen_entities(measured: Measured, keys: Sequence[str], images: Path | None) -> list[dict[str, Any]]:
    """Of each chosen entity what it is, its pictures, and its first test queries with their answers.

    Args:
      keys: names that were asked for; none for the report's own choice.
      images: a folder of pictures named for entities, see ``entity_files``, or None.
    """
    names, readable, facts = measured.model.entities.names, measured.model.entities.readable, _facts(measured)
    files = {} if images is None else entity_files(images, names, "image")[0]
    rows = [
        {
            "label": readable[index],
            "name": names[index],
            "facts": int(facts[index]),
            "pattern": measured.patterns[index],
            "pictures": [read_image(path, _thumbnail) for path in files.get(index, [])[:_MOST_PICTURES]],
            "queries": queries_of(measured, index),
        }
        for index in choose(measured, keys, files)
    ]
    # Cards of one height stand beside each other.
    return sorted(rows, key=lambda row: -len(row["queries"]))


def _queries(measured: Measured) -> np.ndarray:
    """Distinct test queries about each entity whose known answers leave room for others: int ``[N]``."""
    asked = reciprocal(np.asarray(measured.model.graph.test), len(measured.model.relations))
    pairs = np.unique(asked[:, :2], axis=0)
    return np.bincount(pairs[known_answers(measured, pairs) < LISTED, 0], minlength=len(measured.patterns))


def _facts(measured: Measured) -> np.ndarray:
    """Training triples of each entity, at either end: int ``[N]``."""
    train = np.asarray(measured.model.graph.train)
    return np.bincount(train[:, [0, 2]].ravel(), minlength=len(measured.patterns))


def _thumbnail(image: Image.Image) -> Markup:
    """A small copy as a ``data:`` address: the bytes of the original, and what else it holds, stay behind."""
    small = image.convert("RGBA")
    small.thumbnail((_SIDE, _SIDE))
    written = io.BytesIO()
    small.save(written, format="PNG", optimize=True)
    return Markup("data:image/png;base64,") + base64.b64encode(written.getvalue()).decode("ascii")
