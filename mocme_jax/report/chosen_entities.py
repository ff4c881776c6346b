"""Chosen entities: what each carries, how the experts are weighed for it, what it looks like."""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from mocme_jax.data.features.entity_files import entity_files
from mocme_jax.data.media.pictures import read_image
from mocme_jax.report.expert_weights import Bar, bar
from mocme_jax.report.finished_run import Finished
from mocme_jax.report.run_measurements import Measured

if TYPE_CHECKING:
    from PIL import Image

DEFAULT_COUNT = 8
_SIDE = 128
"""Pixels of a picture's longer side in the page."""
_MOST_PICTURES = 3


def choose(measured: Measured, keys: Sequence[str], count: int = DEFAULT_COUNT) -> list[int]:
    """Ids of the entities asked for, or of one per pattern and then more, those with most facts first."""
    if keys:
        return list(dict.fromkeys(measured.model.entities.ids(keys).tolist()))
    facts = _facts(measured)
    by_facts = np.argsort(-facts, kind="stable").tolist()
    patterns, numbers = np.unique(np.asarray(measured.patterns, object).astype(str), return_counts=True)
    frequent = patterns[np.argsort(-numbers, kind="stable")].tolist()
    queues = [[i for i in by_facts if measured.patterns[i] == pattern][:count] for pattern in frequent[:count]]
    kept = [i for turn in itertools.zip_longest(*queues) for i in turn if i is not None][:count]
    return sorted(kept, key=lambda index: frequent.index(measured.patterns[index]))


def chosen_entities(
    weighed: Sequence[tuple[Finished, Measured]], colours: Mapping[str, int], keys: Sequence[str], images: Path | None
) -> list[dict[str, Any]]:
    """What the report tells of entities, and their weights in each run that has them; chosen in the first run.

    Args:
      weighed: runs with several experts.
      colours: of the experts.
      keys: names that were asked for; none for the report's own choice.
      images: a folder of pictures named for entities, see ``entity_files``, or None.
    """
    if not weighed:
        return []
    first = weighed[0][1]
    names, readable, facts = first.model.entities.names, first.model.entities.readable, _facts(first)
    files = {} if images is None else entity_files(images, names, "image")[0]
    places = [{name: index for index, name in enumerate(one.model.entities.names)} for _, one in weighed]

    def weights(run: Finished, one: Measured, index: int) -> Bar:
        return bar(run.name, "", one.named(one.weights.entity[index]), colours)

    return [
        {
            "label": readable[index],
            "name": names[index],
            "facts": int(facts[index]),
            "pattern": first.patterns[index],
            "pictures": [read_image(path, _thumbnail) for path in files.get(index, [])[:_MOST_PICTURES]],
            "runs": [
                weights(*pair, place[names[index]])
                for pair, place in zip(weighed, places, strict=True)
                if names[index] in place
            ],
        }
        for index in choose(first, keys)
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
