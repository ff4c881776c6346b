"""What a JSON value must look like before it is used, written as a value of Python types: see ``misfit``."""

from collections.abc import Iterator
from typing import Any

LONGEST_TEXT = 20_000
"""Characters of a text or a name; what is told of names is cut anyway."""

DEEPEST = 20

_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", None: "nothing"}
_WORDS |= {dict: "a mapping", list: "a list"}


def misfit(value: Any, shape: Any) -> str | None:
    """The first part of a value that has not the wanted shape, in words; None where all is well.

    A shape is

    * ``str``, ``int``, ``bool``, ``float`` (any finite number) or ``None``;
    * ``{"name": shape}``, a mapping that has these names, and perhaps others; a name that ends in ``?`` may be missing;
    * ``{str: shape}``, a mapping of any names to values of one shape;
    * ``[shape]``, a list of such values;
    * ``(shape, shape)``, one of them;
    * ``object``, whatever JSON may hold, if it is not nested deeper than ``DEEPEST``.

    Args:
      value: as it was read.
      shape: see above.
    """
    return next(_misfits(value, shape, "it"), None)


def _misfits(value: Any, shape: Any, place: str) -> Iterator[str]:
    if isinstance(shape, tuple):
        if not any(misfit(value, one) is None for one in shape):
            yield f"{place} is {_kind(value)}, expected {' or '.join(map(_name, shape))}"
    elif isinstance(shape, list):
        if not isinstance(value, list):
            yield f"{place} is {_kind(value)}, expected a list"
            return
        for number, one in enumerate(value):
            yield from _misfits(one, shape[0], f"{place}[{number}]")
    elif isinstance(shape, dict):
        yield from _misfits_of_mapping(value, shape, place)
    elif shape is object:
        if not _shallow(value, DEEPEST):
            yield f"{place} is nested deeper than {DEEPEST}, or contains a number that is not finite or a text too long"
    elif not _is_scalar(value, shape):
        yield f"{place} is {_kind(value)}, expected {_name(shape)}"


def _misfits_of_mapping(value: Any, shape: dict, place: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{place} is {_kind(value)}, expected a mapping"
        return
    within = "" if place == "it" else f"{place}."
    for name, one in shape.items():
        if name is str:
            for key, part in value.items():
                yield from _misfits(key, str, f"a name in {place}")
                yield from _misfits(part, one, f"{within}{key[:60]}")
        elif name.removesuffix("?") in value:
            known = name.removesuffix("?")
            yield from _misfits(value[known], one, within + known)
        elif not name.endswith("?"):
            yield f"{within}{name} is missing"


def _is_scalar(value: Any, kind: type | None) -> bool:
    if kind is None:
        return value is None
    if kind is float:
        # A whole number may be too large for a float; NaN is not below anything.
        return type(value) in (int, float) and abs(value) < 1e300
    if kind is int:
        return type(value) is int and abs(value) < 1 << 62
    return type(value) is kind and (kind is not str or len(value) <= LONGEST_TEXT)


def _shallow(value: Any, levels: int) -> bool:
    if isinstance(value, dict | list):
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        return levels > 0 and all(_shallow(part, levels - 1) for part in parts)
    return any(_is_scalar(value, kind) for kind in (None, bool, float, str))


def _kind(value: Any) -> str:
    """A value in a few words: what kind it is, or itself where it is short."""
    if isinstance(value, dict | list):
        return _WORDS[type(value)]
    if isinstance(value, int) and abs(value) >= 1 << 62:
        return "a whole number out of range"
    return repr(value) if value is None or not isinstance(value, str) else repr(value[:40])


def _name(shape: Any) -> str:
    if isinstance(shape, dict | list):
        return _WORDS[type(shape)]
    return "anything" if shape is object else _WORDS[shape]
