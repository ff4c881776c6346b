"""Flags of the commands: ``--config=FILE``, ``--workdir=DIR``, ``--config.FIELD=VALUE``, and each one's own.

Nothing here imports JAX, so that ``--help`` and a misspelt flag answer at once.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mocme_jax.config import (
    bundled_configs,
    check_known,
    describe,
    describe_field,
    flat,
    load_config,
    set_field,
    suggest,
    validate,
)
from mocme_jax.config_fields import FIELDS, Field, Value
from mocme_jax.config_values import check_value, parse_value, show
from mocme_jax.errors import UserError

if TYPE_CHECKING:
    from ml_collections import ConfigDict

DEFAULT_CONFIG = "atlas"
# Where a run found its data and on what it ran.
OF_A_MACHINE = ("data.dir", "data.features_dir", "parallel.")
_PREFIX = "config."


@dataclasses.dataclass(frozen=True)
class Command:
    """A command line with a config.

    Attributes:
      config: the configuration.
      workdir: the run's folder.
      options: the command's own.
      source: the config's name or file, as it was given.
    """

    config: ConfigDict
    workdir: Path
    options: dict[str, Value]
    source: str


def parse(argv: Sequence[str], doc: str) -> tuple[ConfigDict, Path]:
    """Reads ``--config``, ``--workdir`` and ``--config.FIELD`` flags.

    Args:
      argv: the arguments without the program's name. ``--flag=value`` and ``--flag value`` are the same,
        a true or false flag alone means true, the last of equal flags counts.
      doc: the command's docstring, shown by ``--help``.

    Returns:
      The validated configuration, and the workdir (default ``runs/<config name>``).

    Raises:
      UserError: an unknown flag or field, a value that is not allowed, a stray argument, a missing config.
      SystemExit: status 0, after ``--help`` was printed.
    """
    command = parse_command(argv, doc, {})
    return command.config, command.workdir


def parse_command(
    argv: Sequence[str], doc: str, options: Mapping[str, Field], workdir: str = "runs/{config}"
) -> Command:
    """`parse` for a command that has options of its own beside the config, such as ``--seeds=5``.

    Args:
      argv, doc: as for `parse`.
      options: the command's own.
      workdir: the default, with the names of config and options in braces.
    """
    flags, help_wanted = _split(argv, {**options, **_config_flags(workdir)}, with_config=True)
    chosen = dict(flags)
    source = chosen.get("config", DEFAULT_CONFIG)
    config, name = load_config(source)
    for flag, text in flags:
        if flag.startswith(_PREFIX):
            path = flag.removeprefix(_PREFIX)
            set_field(config, path, parse_value(path, FIELDS[path], text))
    validate(config)
    values = _option_values(flags, options)
    if help_wanted:
        _print_help(doc, {**_config_flags(workdir), **options}, "--config.FIELD=VALUE")
        print(f"\nFields of config {name}, set by --config.FIELD=VALUE:\n\n{describe(config)}")
        raise SystemExit(0)
    names = {option: Path(value).stem for option, value in values.items() if isinstance(value, str)}
    folder = chosen.get("workdir", workdir.format(config=name, **names))
    if not folder:
        raise UserError("--workdir: expected a folder, got nothing")
    return Command(config, Path(folder), values, source)


def parse_options(
    argv: Sequence[str], doc: str, options: Mapping[str, Field], required: Sequence[str] = ()
) -> dict[str, Value]:
    """Reads the flags of a command that has no config; absent ones have their field's default.

    Args:
      argv, doc: as for `parse`.
      options: the command's flags by name, without dashes.
      required: names that must be given.

    Raises:
      UserError, SystemExit: as for `parse`.
    """
    flags, help_wanted = _split(argv, options, with_config=False)
    if help_wanted:
        _print_help(doc, options, "")
        raise SystemExit(0)
    values = _option_values(flags, options)
    for name in required:
        if values[name] is None:
            raise UserError(f"--{name}=VALUE is missing: {options[name].meaning}")
    return values


def _config_flags(workdir: str = "runs/{config}") -> dict[str, Field]:
    bundled = ", ".join(bundled_configs())
    return {
        "config": Field(DEFAULT_CONFIG, f"a config file, FILE.py or FILE.py:ARGUMENT, or one of {bundled}"),
        "workdir": Field(re.sub(r"{(.*?)}", r"<\1>", workdir), "folder of what the command writes"),
    }


def _split(argv: Sequence[str], options: Mapping[str, Field], with_config: bool) -> tuple[list[tuple[str, str]], bool]:
    """Known flags (without dashes) and their texts in the given order, and whether help is wanted."""
    flags, help_wanted, rest = [], False, list(argv)
    while rest:
        argument = rest.pop(0)
        if argument in ("--help", "-h"):
            help_wanted = True
            continue
        if not argument.startswith("--") or argument == "--":
            known = ", ".join(f"--{name}" for name in options)
            raise UserError(f"stray argument {argument!r}: only flags are taken ({known}; see --help)")
        flag, equals, text = argument[2:].partition("=")
        field = _known_field(flag, options, with_config)
        if not equals:
            if rest and not rest[0].startswith("--"):
                text = rest.pop(0)
            elif field.kind is bool:
                text = "true"
            else:
                raise UserError(f"--{flag} needs a value: --{flag}=VALUE")
        flags.append((flag, text))
    return flags, help_wanted


def _known_field(flag: str, options: Mapping[str, Field], with_config: bool) -> Field:
    if flag in options:
        return options[flag]
    if with_config and flag.startswith(_PREFIX):
        path = flag.removeprefix(_PREFIX)
        check_known(path)
        return FIELDS[path]
    known = [*options, *(_PREFIX + path for path in FIELDS)] if with_config else list(options)
    # `--data.dir` for `--config.data.dir` is the likeliest slip of all.
    hint = suggest(_PREFIX + flag if _PREFIX + flag in known else flag, known, "--")
    raise UserError(f"unknown flag --{flag}{hint}")


def _option_values(flags: Sequence[tuple[str, str]], options: Mapping[str, Field]) -> dict[str, Value]:
    values = {name: field.default for name, field in options.items()}
    for flag, text in flags:
        if flag in options:
            value = parse_value(flag, options[flag], text, "--")
            values[flag] = check_value(flag, options[flag], value, "--")
    return values


def _print_help(doc: str, options: Mapping[str, Field], more: str) -> None:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    # A room that is a command as well is run by its __main__.
    module = None if spec is None else spec.name.removesuffix(".__main__")
    program = f"python {Path(sys.argv[0]).name}" if module is None else f"python -m {module}"
    values = {name: show(field.default) for name, field in options.items()}
    words = {"config": "FILE", "workdir": "DIR"}
    usage = " ".join(f"[--{name}={words.get(name, 'VALUE')}]" for name in options) + (f" [{more} ...]" if more else "")
    print(f"usage: {program} {usage}\n\n{inspect.cleandoc(doc)}\n\nFlags:")
    name_width = max(map(len, options), default=0) + 2
    value_width = min(18, max(map(len, values.values()), default=0))
    for name, field in options.items():
        print(*describe_field(f"--{name}", values[name], field, name_width, value_width), sep="\n")


def flags_of(config: Mapping[str, Any]) -> list[str]:
    """The flags that turn the default config into this one, but for the places of a machine."""
    default, own = flat(load_config(DEFAULT_CONFIG)[0]), flat(config)
    flags = ["--config.data.dir=FOLDER"] if own.get("data.dir") is not None else []
    for path, value in own.items():
        if path.startswith(OF_A_MACHINE):
            continue
        value = tuple(value) if isinstance(value, list) else value
        if value != default.get(path):
            # Who copies the command lets a shell read what the graph's folder was called.
            flags.append(f"--{_PREFIX}{path}={shlex.quote(show(value))}")
    return flags


def processes_of(config: ConfigDict) -> tuple[str | None, int, int]:
    """The coordinator, how many processes take part in a run, and which of them this is; see ``processes.joined``."""
    parallel = config.parallel
    return parallel.coordinator, parallel.processes, parallel.process
