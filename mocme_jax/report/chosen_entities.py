"""Chosen entities: what each carries, how its modalities and views are weighed, what it looks like."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from markupsafe import Markup

from mocme_jax.data.features.image_folder import image_files
from mocme_jax.data.features.image_layout import read_image
from mocme_jax.report.run_measurements import Measured

if TYPE_CHECKING:
    from PIL import Image

DEFAULT_COUNT = 8
_SIDE = 128
"""Pixels of a picture's longer side in the page."""
_MOST_PICTURES = 3


class Entity(NamedTuple):
    """One entity: readable and full ``name``, training ``facts``, weights by modality, and of views, and pictures."""

    label: str
    name: str
    facts: int
    pattern: str
    modality: dict[str, float]
    view: dict[str, list[float]]
    pictures: list[Markup]


def choose(measured: Measured, keys: Sequence[str], count: int = DEFAULT_COUNT) -> list[int]:
    """Ids of the entities asked for, or of one per pattern and then more, those with most facts first."""
    if keys:
        return list(dict.fromkeys(measured.model.entities.ids(keys).tolist()))
    facts = _facts(measured)
    by_facts = np.argsort(-facts, kind="stable").tolist()
    patterns, numbers = np.unique(np.asarray(measured.patterns, object).astype(str), return_counts=True)
    frequent = patterns[np.argsort(-numbers, kind="stable")].tolist()
    queues = {pattern: [] for pattern in frequent}
    for index in by_facts:
        if len(queue := queues[measured.patterns[index]]) < count:
            queue.append(index)
    found: list[int] = []
    for turn in range(count):
        found += [queues[pattern][turn] for pattern in frequent if turn < len(queues[pattern])]
    kept = found[:count]
    return sorted(kept, key=lambda index: frequent.index(measured.patterns[index]))


def describe(measured: Measured, ids: Sequence[int], images: Path | None) -> list[Entity]:
    """What the report tells of entities; ``images`` is a folder of pictures named for them, see ``image_folder``."""
    model, weights = measured.model, measured.weights
    files = {} if images is None else image_files(images, model.entities.names)[0]
    facts = _facts(measured)
    return [
        Entity(
            model.entities.readable[index],
            model.entities.names[index],
            int(facts[index]),
            measured.patterns[index],
            dict(zip(measured.modalities, weights.modality[index].tolist(), strict=True)),
            {
                name: weights.view[index, place].tolist()
                for place, name in enumerate(measured.modalities)
                if weights.present[index, place]
            },
            [read_image(path, _thumbnail) for path in files.get(index, [])[:_MOST_PICTURES]],
        )
        for index in ids
    ]


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
