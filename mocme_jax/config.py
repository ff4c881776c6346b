"""The configuration of a run: defaults, checks, the text of ``--help``, and config files.

A configuration is an `ml_collections.ConfigDict` with the fields of `mocme_jax.config_fields.FIELDS`, nested
by their dots. It is read at the edge of the program only; inner functions take plain arguments.
"""

from __future__ import annotations

import difflib
import inspect
import re
import runpy
import textwrap
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mocme_jax.config_fields import FIELDS, RULES, SECTIONS, Field, Value
from mocme_jax.config_values import check_value, limits, show
from mocme_jax.errors import UserError

if TYPE_CHECKING:
    from ml_collections import ConfigDict

HELP_WIDTH = 100


def default_config() -> ConfigDict:
    """The default of every field; locked, so that a misspelt field is an error."""
    from ml_collections import config_dict

    config = config_dict.ConfigDict()
    for path, field in FIELDS.items():
        *groups, name = path.split(".")
        node = config
        for group in groups:
            if group not in node:
                node[group] = config_dict.ConfigDict()
            node = node[group]
        # A plain None would fix the field's type to None for good.
        node[name] = config_dict.placeholder(field.kind) if field.default is None else field.default
    return config.lock()


def get_field(config: Mapping[str, Any], path: str) -> Value:
    """The value at a dotted path."""
    node: Any = config
    for name in path.split("."):
        node = node[name]
    return node


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every value by its dotted path, of a ``ConfigDict`` or of a nested dict that JSON holds."""
    found = {}
    for name, value in config.items():
        found |= flat(value, f"{prefix}{name}.") if hasattr(value, "items") else {prefix + name: value}
    return found


def set_field(config: ConfigDict, path: str, value: Value) -> None:
    """Sets the value at a dotted path, once `check_value` has passed it.

    Raises:
      UserError: an unknown field, or a value that the field may not hold.
    """
    check_known(path)
    *groups, name = path.split(".")
    node = config
    for group in groups:
        node = node[group]
    node[name] = check_value(path, FIELDS[path], value, "config field ")


def check_known(path: str) -> None:
    """Raises a UserError, with the nearest field if one is near, when no field has this path."""
    if path in FIELDS:
        return
    if inside := [known for known in FIELDS if known.startswith(path + ".")]:
        raise UserError(f"config.{path} is a group of fields; set one of its own, such as config.{inside[0]}")
    raise UserError(f"unknown config field {path}{suggest(path, FIELDS)}")


def suggest(word: str, known: Collection[str], prefix: str = "") -> str:
    """``; did you mean data.dir?`` or a pointer to --help."""
    by_last = {path.rpartition(".")[2]: path for path in known}
    last = difflib.get_close_matches(word.rpartition(".")[2], by_last, 1, 0.65)
    near = difflib.get_close_matches(word, known, 1, 0.75) or [by_last[name] for name in last]
    return f"; did you mean {prefix}{near[0]}?" if near else "; --help lists them all"


def validate(config: ConfigDict) -> None:
    """Checks the fields, their types, their ranges and what several must hold together.

    Raises:
      UserError: one line for the first thing that is wrong.
    """
    paths = set(flat(config))
    for path in sorted(paths - FIELDS.keys()):
        check_known(path)
    for path, field in FIELDS.items():
        if path not in paths:
            raise UserError(f"config field {path} is missing; start a config file from default_config()")
        check_value(path, field, get_field(config, path))
    for rule in RULES:
        values = [get_field(config, path) for path in rule.fields]
        if not rule.holds(*values):
            got = ", ".join(f"{path}={show(value)}" for path, value in zip(rule.fields, values, strict=True))
            raise UserError(f"config {got}: {rule.meaning}")


def config_from_dict(values: Mapping[str, Any]) -> ConfigDict:
    """A configuration from the nested dict that ``config.to_dict()`` or JSON gives; the rest is default.

    Raises:
      UserError: an unknown field, or a value that its field may not hold.
    """
    config = default_config()
    for path, value in flat(values).items():
        set_field(config, path, value)
    validate(config)
    return config


# What a run by the structure alone leaves out.
STRUCTURE_ALONE = {
    "data.modalities": ("structure",),
    "model.experts": 0,
    "model.structure_dropout": 0.0,
    "model.feature_dropout": 0.0,
    "negatives.weighting": "uniform",
    "negatives.sampling": "uniform",
}


def structure_alone(config: ConfigDict, **tuned: Value) -> ConfigDict:
    """Makes a configuration that of its structural baseline, and returns it.

    Args:
      config: to be changed.
      tuned: the baseline's own values, by field with ``__`` for the dot, such as ``model__width=512``.
    """
    for path, value in {**STRUCTURE_ALONE, **{name.replace("__", "."): tuned[name] for name in tuned}}.items():
        set_field(config, path, value)
    return config


def baseline_of(name_or_path: str) -> dict[str, Value]:
    """What makes a config its structural baseline: what ``CONFIG:structure`` has of its own, if there is that.

    All of ``STRUCTURE_ALONE`` is in it, for flags may have changed what the two configs have in common.
    """
    config, _ = load_config(name_or_path)
    try:
        alone, _ = load_config(f"{name_or_path}:structure")
    except UserError:
        return dict(STRUCTURE_ALONE)
    own = [path for path in FIELDS if get_field(alone, path) != get_field(config, path)]
    if not own:
        return dict(STRUCTURE_ALONE)
    return {path: get_field(alone, path) for path in dict.fromkeys([*STRUCTURE_ALONE, *own])}


def describe(config: ConfigDict) -> str:
    """Every field by section, with the value `config` gives it, its meaning and what it may hold."""
    lines, section = [], None
    values = {path: show(get_field(config, path)) for path in FIELDS}
    widest = max(map(len, FIELDS))
    value_width = min(16, max(map(len, values.values())))
    for path, field in FIELDS.items():
        group = path.rpartition(".")[0]
        if group != section:
            section = group
            lines += ["", f"{SECTIONS.get(group, group)}:"]
        lines += describe_field(path, values[path], field, widest, value_width)
    return "\n".join(lines[1:])


def describe_field(name: str, value: str, field: Field, name_width: int, value_width: int) -> list[str]:
    """One field in three columns, its meaning wrapped; a long value moves the meaning to the next line."""
    bounds = limits(field)
    meaning = f"{field.meaning} [{bounds}]" if bounds else field.meaning
    head = f"  {name:<{name_width}}  {value:<{value_width}}  "
    indent = " " * (name_width + value_width + 6)
    wrapped = textwrap.wrap(meaning, HELP_WIDTH - len(indent), break_on_hyphens=False)
    if len(value) > value_width:
        return [head.rstrip(), *(indent + line for line in wrapped)]
    return [head + wrapped[0], *(indent + line for line in wrapped[1:])]


def bundled_configs(kind: str = "") -> dict[str, Path]:
    """The config files of the program, by name: inside the package in a wheel, beside it in a clone.

    Args:
      kind: the folder of other files among them, such as ``studies``.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "atlas.py").is_file():
            return {path.stem: path for path in sorted((folder / kind).glob("*.py")) if path.stem != "__init__"}
    return {}


def find_config(name_or_path: str, kind: str = "", flag: str = "--config") -> Path:
    """The file for a bundled config's name, such as ``db15k``, or for a path.

    Args:
      name_or_path: of the config.
      kind: see ``bundled_configs``.
      flag: that named it, for the message.

    Raises:
      UserError: there is no such file; the message lists the bundled ones.
    """
    bundled = bundled_configs(kind)
    if name_or_path in bundled:
        return bundled[name_or_path]
    if name_or_path and (path := Path(name_or_path)).is_file():
        return path.resolve()
    names = ", ".join(bundled)
    near = difflib.get_close_matches(Path(name_or_path).stem, bundled, 1)
    hint = f"; did you mean {flag}={near[0]}?" if near else ""
    raise UserError(f"{flag}={name_or_path}: no such file, nor one of the bundled {kind or 'configs'} {names}{hint}")


def load_config(name_or_path: str) -> tuple[ConfigDict, str]:
    """Runs a config file's ``get_config``.

    Args:
      name_or_path: what `find_config` takes; ``:ARG`` at its end is given to ``get_config(ARG)``.

    Returns:
      The configuration, not yet validated (flags may follow), and the config's name.

    Raises:
      UserError: no such config, or it fails; then the message names the file and the line.
    """
    name, colon, argument = name_or_path.partition(":")
    if Path(name_or_path).is_file() or not colon:
        name, argument = name_or_path, ""
    path = find_config(name)
    try:
        get_config = runpy.run_path(str(path)).get("get_config")
        if not callable(get_config):
            raise UserError(f"{path}: a config file needs a function get_config(arg=None)")
        if argument and not inspect.signature(get_config).parameters:
            raise UserError(f"{path}: get_config takes no argument, got :{argument}")
        config = get_config(argument) if argument else get_config()
    except UserError:
        raise
    except Exception as error:
        raise UserError(_explain(path, error)) from error
    if not hasattr(config, "to_dict"):
        raise UserError(f"{path}: get_config must return default_config(), changed; got {type(config).__name__}")
    return config, path.stem


def _explain(path: Path, error: Exception) -> str:
    line = error.lineno if isinstance(error, SyntaxError) else None
    trace = error.__traceback__
    while trace is not None and not isinstance(error, SyntaxError):
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    message = str(error)
    if unknown := re.search(r"Key \"(\w+)\" does not exist", message):
        message = f"unknown config field {unknown[1]}{suggest(unknown[1], FIELDS)}"
    elif wrong := re.search(
        r"Could not override field '(\w+)'.*?\. (.*) is of original type <class '(\w+)'>"
        r" and cannot be casted to type <class '(\w+)'>",
        message,
    ):
        message = f"config field {wrong[1]}: expected {wrong[4]}, got {wrong[2]}"
    else:
        message = f"{type(error).__name__}: {message.splitlines()[0] if message else ''}"
    return f"{path}, line {line}: {message}"
