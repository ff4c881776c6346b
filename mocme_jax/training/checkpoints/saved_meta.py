"""The validation of a checkpoint's metadata when it is read, because a digest may be forged as well."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from mocme_jax.training.checkpoints.checkpoint_files import Unreadable
from mocme_jax.training.checkpoints.run_position import FORMAT, Position

# Steps and checkpoint numbers are int32 in the state.
_MOST_STEPS = 1 << 30
_LONGEST = 4096


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
    parts = {
        "config": _is_config,
        "parts": _is_texts,
        "fingerprint": _is_text,
        "version": _is_text,
        "position": lambda value: _is_position(value) and Position(**value).number == number,
        "checksums": _is_checksums,
    }
    wrong = [name for name, fits in parts.items() if not fits(meta.get(name))]
    # Earlier versions have neither.
    wrong += [] if _is_texts(meta.get("places", {})) else ["places"]
    lanes = meta.get("lanes")
    wrong += [] if lanes is None or (isinstance(lanes, list) and all(map(_is_position, lanes))) else ["lanes"]
    if wrong:
        raise Unreadable(f"its meta has no valid {wrong[0]}")
    return meta


def _short(value: Any) -> str | int | None:
    return value if value is None or isinstance(value, int) else str(value)[:40]


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST and "\0" not in value


def _is_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_text(name) and _is_text(text) for name, text in value.items())


def _is_checksums(value: Any) -> bool:
    return isinstance(value, dict) and all(type(one) is int and 0 <= one < 1 << 32 for one in value.values())


def _is_config(value: Any) -> bool:
    """Return whether it consists of values by name, and groups of these. Values are checked where they are used."""

    def is_value(one: Any) -> bool:
        if isinstance(one, float):
            return math.isfinite(one)
        if isinstance(one, list):
            return all(is_value(part) and not isinstance(part, list) for part in one)
        return one is None or isinstance(one, bool | int) or _is_text(one)

    def is_group(group: Any) -> bool:
        return isinstance(group, dict) and all(map(is_value, group.values()))

    return isinstance(value, dict) and all(is_value(one) or is_group(one) for one in value.values())


def _is_position(value: Any) -> bool:
    fields = {field.name: type(field.default) for field in dataclasses.fields(Position)}
    if not isinstance(value, Mapping) or value.keys() != fields.keys():
        return False
    if any(type(value[name]) not in ((int, float) if kind is float else (kind,)) for name, kind in fields.items()):
        return False
    numbers = [value[name] for name, kind in fields.items() if kind is int]
    return (
        all(0 <= one < _MOST_STEPS for one in numbers)
        and -1 <= value["best_mrr"] <= 1
        and 0 <= value["minutes"] < 1e12
        and value["best_step"] <= value["step"]
        and value["best_epoch"] <= value["epoch"]
        and value["diverged"] <= value["step"]
    )
