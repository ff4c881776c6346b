"""The configuration of a run: defaults, validation, and config files.

A configuration is an ``ml_collections.ConfigDict`` with the fields of ``mocme_jax.config_fields.FIELDS``, nested by the
dots in their paths. It is read at the edge of the program only; inner functions take plain arguments.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import inspect
import re
import runpy
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mocme_jax.config_fields import FIELDS, RULES, Value
from mocme_jax.config_removed import REMOVED
from mocme_jax.config_values import check_value, show, suggest
from mocme_jax.errors import UserError

if TYPE_CHECKING:
    from ml_collections import ConfigDict


def default_config() -> ConfigDict:
    """Return a configuration with the default of every field.

    It is locked, so setting a misspelt field is an error. See the reference of config fields for all of them.
    """
    from ml_collections import config_dict

    config = config_dict.ConfigDict()
    for path, field in FIELDS.items():
        section, _, name = path.rpartition(".")
        if section and section not in config:
            config[section] = config_dict.ConfigDict()
        # A plain None would fix the type of the field to None.
        value = config_dict.placeholder(field.kind) if field.default is None else field.default
        (config[section] if section else config)[name] = value
    return config.lock()


def get_field(config: Mapping[str, Any], path: str) -> Value:
    """Return the value at a dotted path."""
    section, _, name = path.rpartition(".")
    return (config[section] if section else config)[name]


def flat(nested: Mapping[str, Any], prefix: str = "", *, between: str = ".") -> dict[str, Any]:
    """Flatten a ``ConfigDict`` or a nested dict from JSON.

    Args:
      nested: the values.
      prefix: prepended to every path.
      between: the separator of a path.

    Returns:
      The values by path, such as ``model.width``.
    """
    found = {}
    for name, value in nested.items():
        inner = hasattr(value, "items")
        found |= flat(value, f"{prefix}{name}{between}", between=between) if inner else {prefix + name: value}
    return found


def set_field(config: ConfigDict, path: str, value: Value) -> None:
    """Set the value at a dotted path.

    Raises:
      UserError: the field does not exist, or the value is not allowed.
    """
    check_known(path)
    section, _, name = path.rpartition(".")
    (config[section] if section else config)[name] = check_value(path, FIELDS[path], value)


def check_known(path: str) -> None:
    """Check that a field exists.

    Raises:
      UserError: no field has this path. The message says what replaced a removed field, or suggests a similar one.
    """
    if path in FIELDS:
        return
    if path in REMOVED:
        raise UserError(f"config field {path} {REMOVED[path]}")
    if inside := [known for known in FIELDS if known.startswith(path + ".")]:
        raise UserError(f"config.{path} is a group of fields; set one of them, such as config.{inside[0]}")
    raise UserError(f"unknown config field {path}{suggest(path, FIELDS)}")


def validate(config: ConfigDict) -> None:
    """Check the fields of a configuration, their types and ranges, and the rules between fields.

    Raises:
      UserError: a field is unknown, missing or invalid, or a rule is violated.
    """
    values = flat(config)
    for path in sorted(values.keys() - FIELDS.keys()):
        check_known(path)
    for path, field in FIELDS.items():
        if path not in values:
            raise UserError(f"config field {path} is missing; start a config file from default_config()")
        check_value(path, field, values[path])
    for rule in RULES:
        if not rule.holds(*(values[path] for path in rule.fields)):
            got = ", ".join(f"{path}={show(values[path])}" for path in rule.fields)
            raise UserError(f"config {got}: {rule.meaning}")


def config_from_dict(values: Mapping[str, Any]) -> ConfigDict:
    """Make a validated configuration from a nested dict, such as ``config.to_dict()`` or JSON.

    Missing fields get their defaults.

    Raises:
      UserError: a field is unknown or invalid.
    """
    config = default_config()
    for path, value in flat(values).items():
        set_field(config, path, value)
    validate(config)
    return config


# The changes that reduce a config to the structure alone.
STRUCTURE_ALONE = {
    "data.modalities": ("structure",),
    "negatives.weighting": "uniform",
    "negatives.sampling": "uniform",
}


def structure_alone(config: ConfigDict, **tuned: Value) -> ConfigDict:
    """Turn a config into its structural baseline, and return it.

    Args:
      config: the configuration, changed in place.
      tuned: the baseline's own values, by field with ``__`` for the dot, such as ``model__width=512``.

    Raises:
      UserError: a field is unknown or invalid.
    """
    for path, value in {**STRUCTURE_ALONE, **{name.replace("__", "."): tuned[name] for name in tuned}}.items():
        set_field(config, path, value)
    return config


def baseline_of(name_or_path: str) -> dict[str, Value]:
    """Return the changes that turn a config into its structural baseline.

    The result contains all of ``STRUCTURE_ALONE``, because flags may have changed fields that both configs share. If
    ``CONFIG:structure`` exists, its other values are included.

    Args:
      name_or_path: see ``find_config``.
    """
    config = load_config(name_or_path)[0]
    alone = structure_alone(load_config(name_or_path)[0])
    with contextlib.suppress(UserError):
        own = load_config(f"{name_or_path}:structure")[0]
        alone = own if own.data.modalities == alone.data.modalities else alone
    before, after = flat(config), flat(alone)
    return {path: after[path] for path in FIELDS if path in STRUCTURE_ALONE or after[path] != before[path]}


def bundled_configs(kind: str = "") -> dict[str, Path]:
    """Return the bundled config files by name: inside the package in a wheel, next to it in a clone.

    Args:
      kind: the subfolder, such as ``studies``; empty for configs.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "atlas.py").is_file():
            return {path.stem: path for path in sorted((folder / kind).glob("*.py")) if path.stem != "__init__"}
    return {}


def find_config(name_or_path: str, kind: str = "", flag: str = "--config") -> Path:
    """Find the file of a config.

    Args:
      name_or_path: the name of a bundled config, such as ``db15k``, or a path.
      kind: see ``bundled_configs``.
      flag: the command-line flag, for messages.

    Raises:
      UserError: there is no such file or name. The message lists the bundled names.
    """
    bundled = bundled_configs(kind)
    if name_or_path in bundled:
        return bundled[name_or_path]
    if name_or_path and (path := Path(name_or_path)).is_file():
        return path.resolve()
    if gone := REMOVED.get(f"{flag}={name_or_path}"):
        raise UserError(f"{flag}={name_or_path} {gone}")
    names = ", ".join(bundled)
    near = difflib.get_close_matches(Path(name_or_path).stem, bundled, 1)
    hint = f"; did you mean {flag}={near[0]}?" if near else ""
    raise UserError(f"{flag}={name_or_path}: no such file or bundled name; bundled: {names}{hint}")


def load_config(name_or_path: str) -> tuple[ConfigDict, str]:
    """Run ``get_config`` of a config file.

    Args:
      name_or_path: see ``find_config``. A suffix ``:ARG`` is passed on as ``get_config(ARG)``.

    Returns:
      The configuration, not yet validated because flags may follow, and the config's name.

    Raises:
      UserError: there is no such config, or it fails. The message names the file and the line.
    """
    name, colon, argument = name_or_path.partition(":")
    if Path(name_or_path).is_file() or not colon:
        name, argument = name_or_path, ""
    path = find_config(name)
    config = load_function(path, "get_config(arg=None)")(*([argument] if argument else []))
    if not hasattr(config, "to_dict"):
        raise UserError(f"{path}: get_config must return a changed default_config(), got {type(config).__name__}")
    return config, path.stem


def load_function(path: Path, signature: str) -> Callable[..., Any]:
    """Run a config, study or search file, and return one of its functions.

    Errors inside the function become a UserError that names the file and the line.

    Args:
      path: the file.
      signature: the expected signature, such as ``get_config(arg=None)``. The name before the parenthesis is looked up.

    Raises:
      UserError: the file fails, or has no such function.
    """
    name = signature.partition("(")[0]
    with _explained(path):
        function = runpy.run_path(str(path)).get(name)
    if not callable(function):
        raise UserError(f"{path}: expected a function {signature}, found none")

    @functools.wraps(function)
    def checked(*arguments: Any, **named: Any) -> Any:
        try:
            inspect.signature(function).bind(*arguments, **named)
        except TypeError as error:
            found = f"{name}{inspect.signature(function)}"
            raise UserError(f"{path}: expected a function {signature}, found {found}: {error}") from error
        with _explained(path):
            return function(*arguments, **named)

    return checked


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (UserError, KeyboardInterrupt):
        raise
    # SystemExit too: otherwise a file could end the program without a message.
    except (Exception, SystemExit) as error:
        raise UserError(_explain(path, error)) from error


def _explain(path: Path, error: BaseException) -> str:
    frames = list(traceback.walk_tb(error.__traceback__))
    line = next((line for frame, line in reversed(frames) if frame.f_code.co_filename == str(path)), None)
    if isinstance(error, SyntaxError):
        line = error.lineno
    message = str(error)
    of_config = bool(frames) and frames[-1][0].f_code.co_filename.endswith("config_dict.py")
    if of_config and isinstance(error, AttributeError | KeyError):
        # The error gives only the last name of the field.
        name = re.findall(r"\w+", message.replace('Key "', ""))[0]
        gone = next((old for old in REMOVED.keys() - FIELDS.keys() if f".{old}".endswith(f".{name}")), None)
        unknown = f"unknown config field {name}{suggest(name, FIELDS)}"
        message = unknown if gone is None else f"config field {gone} {REMOVED[gone]}"
    elif wrong := re.search(
        r"Could not override field '(\w+)'.*?\. (.*) is of original type <class '(\w+)'>"
        r" and cannot be casted to type <class '(\w+)'>",
        message,
    ):
        message = f"config field {wrong[1]}: expected {wrong[4]}, got {wrong[2]}"
    else:
        message = f"{type(error).__name__}: {message.splitlines()[0] if message else ''}"
    return f"{path}, line {line}: {message}"
