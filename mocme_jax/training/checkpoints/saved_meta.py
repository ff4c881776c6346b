"""The validation of a checkpoint's metadata when it is read, because a digest may be forged as well."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from mocme_jax.data.readers.json_shape import misfit
from mocme_jax.training.checkpoints.checkpoint_files import Unreadable
from mocme_jax.training.checkpoints.run_position import FORMAT, Position

# Steps and checkpoint numbers are int32 in the state.
_MOST_STEPS = 1 << 30
# The longest path that Linux takes.
_LONGEST = 4096

_VALUE = (None, bool, float, str, [(None, bool, float, str)])
_POSITION = {field.name: type(field.default) for field in dataclasses.fields(Position)}
META = {
    "config": {str: (*_VALUE, {str: _VALUE})},
    "parts": {str: str},
    "fingerprint": str,
    "version": str,
    "position": _POSITION,
    "checksums": {str: int},
    # Earlier versions have neither.
    "places?": {str: str},
    "lanes?": (None, [_POSITION]),
}
"""The shape of the metadata; see ``json_shape``. The values of the config are checked where they are used."""


def checked(meta: Any, number: int) -> dict:
    """Validate the metadata of a checkpoint; for another format, return only its format and version.

    Args:
      meta: the metadata.
      number: the number of the checkpoint's folder.

    Raises:
      Unreadable: a part is missing or not possible for a run. The message names the part.
    """
    if not isinstance(meta, dict):
        raise Unreadable(f"meta is a {type(meta).__name__}, expected a mapping")
    if meta.get("format") != FORMAT or isinstance(meta["format"], bool):
        return {"format": _short(meta.get("format")), "version": _short(meta.get("version"))}
    if wrong := misfit(meta, META):
        raise Unreadable(f"its meta is not valid: {wrong}")
    for name in META:
        part = name.removesuffix("?")
        if any(len(text) > _LONGEST or "\0" in text for text in _texts(meta.get(part))):
            raise Unreadable(f"its meta is not valid: {part} has a text too long or with a zero byte")
    positions = {"position": [meta["position"]], "lanes": meta.get("lanes") or []}
    wrong = next((part for part, found in positions.items() if not all(map(_is_possible, found))), None)
    if not wrong and Position(**meta["position"]).number != number:
        wrong = "position"
    if not wrong and not all(0 <= one < 1 << 32 for one in meta["checksums"].values()):
        wrong = "checksums"
    if wrong:
        raise Unreadable(f"its meta is not valid: {wrong} is not possible")
    return meta


def _short(value: Any) -> str | int | None:
    return value if value is None or isinstance(value, int) else str(value)[:40]


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts of a value and of all values in it, with the names."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from _texts(part)


def _is_possible(position: Mapping[str, Any]) -> bool:
    steps = [value for name, value in position.items() if _POSITION.get(name) is int]
    return (
        position.keys() == _POSITION.keys()
        and all(0 <= one < _MOST_STEPS for one in steps)
        and -1 <= position["best_mrr"] <= 1
        and 0 <= position["minutes"] < 1e12
        and position["best_step"] <= position["step"]
        and position["best_epoch"] <= position["epoch"]
        and position["diverged"] <= position["step"]
    )
