"""Texts, files and numbers of new entities, encoded as those of the graph were."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mocme_jax.data.features.attribute_values import attribute_rows
from mocme_jax.data.features.entity_files import files_modality
from mocme_jax.data.features.text_features import DEFAULT_ENCODER, encode_texts
from mocme_jax.data.graph.knowledge_graph import Modality
from mocme_jax.data.media.file_encoders import encoders_of
from mocme_jax.errors import UserError


def is_raw(value: Any) -> bool:
    """Whether a value is a text, the path of a file, a list of paths, or numbers by attribute; else it is a vector."""
    first = value[0] if isinstance(value, list | tuple) and len(value) else value
    return isinstance(first, str | Path | Mapping)


def can_encode(modality: Modality) -> bool:
    """Whether raw values can be encoded as the graph's were.

    Where a model of another package made the features they can't: its name stands in a file that may come from a
    stranger, and must not choose what is fetched and loaded.
    """
    if modality.name == "numeric":
        return bool(modality.attributes)
    if modality.name == "text":
        return modality.made_by == DEFAULT_ENCODER
    return modality.made_by in encoders_of(modality.name)


def encode_raw(modality: Modality, given: Sequence[Any]) -> np.ndarray:
    """Features float32 ``[n, d]`` of n new entities; a row of NaN where there is nothing.

    Args:
      modality: the graph's, as it was read.
      given: one value per entity, None where it lacks the modality. For ``text`` a text; for ``image``, ``audio`` and
        ``video`` the path of a file, or a list of paths, of which the mean vector counts; for ``numeric`` numbers by
        attribute, see attribute_rows.

    Raises:
      UserError: it is not known how the graph's features were made, they were made by something that is not loaded for
        a name in a file, a file can't be read, or a value does not fit.
    """
    name, width = modality.name, modality.features.shape[1]
    rows = np.full((len(given), width), np.nan, np.float32)
    present = np.array([_is_there(value) for value in given], bool)
    values = [value for value in given if _is_there(value)]
    if not values:
        return rows
    if not can_encode(modality):
        if not modality.made_by:
            raise UserError(
                f"features {name}: the graph's feature file does not name its encoder, so new values cannot be "
                f"encoded the same way; give vectors of width {width}, or train on a file that mocme_jax.prepare wrote"
            )
        raise UserError(
            f"features {name}: the graph's features were encoded with {modality.made_by[:60]!r}; encode the new "
            f"values with it and give vectors of width {width}"
        )
    if name == "numeric":
        attributes = modality.attributes or {}
        found = attribute_rows(attributes, [_of_kind(name, value, Mapping) for value in values], width)
        # Of an entity all of whose numbers are missing there is nothing.
        found[~found[:, len(attributes) : 2 * len(attributes)].any(axis=1)] = np.nan
    elif name == "text":
        found = encode_texts([_of_kind(name, value, str) for value in values])
    else:
        lists = [value if isinstance(value, list | tuple) else [value] for value in values]
        files = {place: [Path(_of_kind(name, one, str | Path)) for one in some] for place, some in enumerate(lists)}
        found = files_modality(name, files, len(files), modality.made_by).features
    if found.shape[1] != width:
        raise UserError(
            f"features {name}: {modality.made_by} gives vectors of width {found.shape[1]}, but the graph's features "
            f"have width {width}; the feature file names the wrong encoder"
        )
    rows[present] = found
    return rows


def _is_there(value: Any) -> bool:
    return (
        value is not None
        and not (isinstance(value, str) and not value.strip())
        and not (isinstance(value, list | tuple | Mapping) and not len(value))
    )


def _of_kind(name: str, value: Any, kind: Any) -> Any:
    if not isinstance(value, kind):
        wanted = {"text": "a text", "numeric": "numbers by attribute"}.get(name, "the path of a file")
        raise UserError(f"features {name}: expected {wanted}, found {str(value)[:60]!r}")
    return value
