"""Names and values of single fields: found from what a user writes, checked, written as text."""

import difflib
import math
from collections.abc import Collection
from typing import Any

from mocme_jax.config_fields import FIELDS, Field, Value
from mocme_jax.config_removed import REMOVED
from mocme_jax.errors import UserError, check_place

_WORDS = {str: "a word", int: "a whole number", float: "a number", bool: "true or false"}
_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def path_of(name: str) -> str:
    """Return the path of a field.

    Args:
      name: the path, or its last name alone, such as ``width``, if only one field has it. ``__`` stands for a dot.
        Unknown names are returned as they are.

    Raises:
      UserError: several fields have this last name.
    """
    name = name.replace("__", ".")
    found = [path for path in FIELDS if path == name or path.endswith(f".{name}")]
    if len(found) > 1 and name not in found:
        raise UserError(f"{name} is ambiguous: {' or '.join(found)}; give the full path")
    return name if len(found) != 1 else found[0]


def suggest(word: str, known: Collection[str], prefix: str = "") -> str:
    """Return a hint for an unknown word: ``; did you mean data.dir?``, or a pointer to ``--help``."""
    by_last = {path.rpartition(".")[2]: path for path in known}
    last = difflib.get_close_matches(word.rpartition(".")[2], by_last, 1, 0.65)
    near = difflib.get_close_matches(word, known, 1, 0.75) or [by_last[name] for name in last]
    return f"; did you mean {prefix}{near[0]}?" if near else "; --help lists them all"


def show(value: Value) -> str:
    """A value as it is written on the command line, where it is read back as itself."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, tuple | list):
        return ",".join(map(show, value)) if value else "()"
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return str(value)


def parse_value(path: str, field: Field, text: str, what: str = "config field ") -> Value:
    """The value that a command line's text stands for, checked.

    Args:
      path: the field's name in messages, after `what`.
      text: a word, a number, true or false, or elements separated by commas; ``none`` or nothing for a field
        that may be unset.

    Raises:
      UserError: the text is not of the field's type, or the value is one that the field may not hold.
    """
    value: Any = text
    if field.default is None and text.lower() in ("none", ""):
        value = None
    elif field.kind is tuple:
        inner = text.strip()
        if inner[:1] + inner[-1:] in ("()", "[]"):
            inner = inner[1:-1]
        parts = [part.strip().strip("'\"") for part in inner.split(",")]
        value = tuple(_number(field.element, part) for part in parts if part)
    else:
        value = _number(field.kind, text)
    return check_value(path, field, value, what)


def _number(kind: type | None, text: str) -> Value:
    """The number, or true or false, that a text stands for; the text itself where it stands for none."""
    try:
        return _TRUTH.get(text.lower(), text) if kind is bool else kind(text)
    except ValueError:
        return text


def check_value(path: str, field: Field, value: Any, what: str = "config field ") -> Value:
    """The value in the field's own type: an int becomes a float, a list a tuple, where the field asks for it.

    Raises:
      UserError: a wrong type, or a value outside of what the field allows; one line that names the field, the
        value and what is allowed.
    """
    if value is None and field.default is None:
        return None
    if field.kind is not tuple:
        return _check_scalar(path, field, field.kind, value, what)
    if not isinstance(value, tuple | list):
        raise UserError(f"{what}{path}: expected a tuple, got {value!r}")
    if field.length is not None and len(value) != field.length:
        raise UserError(f"{what}{path}: expected {field.length} values, got {len(value)}: {show(tuple(value))}")
    return tuple(_check_scalar(path, field, field.element, part, what) for part in value)


def _check_scalar(path: str, field: Field, kind: type, value: Any, what: str) -> Value:
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise UserError(f"{what}{path}: expected {_WORDS[kind]}, got {value!r}")
    if field.place:
        check_place(f"{what}{path}", value)
    inside = (
        (field.choices is None or value in field.choices)
        and (kind is not float or math.isfinite(value))
        and (field.low is None or value >= field.low)
        and (field.high is None or value <= field.high)
        and (field.above is None or value > field.above)
        and (field.below is None or value < field.below)
    )
    if not inside:
        near = difflib.get_close_matches(str(value), map(str, field.choices or ()), 1)
        gone = REMOVED.get(f"{path}={value}")
        wrong = f"{gone};" if gone else "is not allowed,"
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UserError(f"{what}{path}: {show(value)} {wrong} expected {allowed(field) or 'a finite number'}{hint}")
    return value


def allowed(field: Field) -> str:
    """What a field may hold beyond its type, such as ``at least 1``; empty if anything."""
    if field.choices is not None:
        return "one of " + ", ".join(map(str, field.choices))
    words = {"at least": field.low, "above": field.above, "at most": field.high, "below": field.below}
    return " and ".join(f"{word} {show(bound)}" for word, bound in words.items() if bound is not None)
