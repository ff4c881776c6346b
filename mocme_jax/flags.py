"""Flags of the commands: ``--config=FILE``, ``--workdir=DIR``, ``--config.FIELD=VALUE``, and each one's own.

Nothing here imports JAX, so that ``--help`` and a misspelt flag answer at once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import re
import shlex
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mocme_jax import __version__
from mocme_jax.config import bundled_configs, check_known, flat, get_field, load_config, set_field, validate
from mocme_jax.config_fields import FIELDS, SECTIONS, Field, Value, a_place
from mocme_jax.config_values import allowed, parse_value, show, suggest
from mocme_jax.errors import UserError

if TYPE_CHECKING:
    from ml_collections import ConfigDict

DEFAULT_CONFIG = "atlas"
# Where a run found its data, as a command that repeats it on another machine writes it.
PLACES = {"data.dir": "FOLDER", "data.features_dir": "FEATURES"}
PLACES_MEANING = "FOLDER is the folder of the graph, and FEATURES is the folder of its feature files"
# Where a run found its data and on what it ran.
OF_A_MACHINE = (*PLACES, "parallel.")
# Columns of --help.
HELP_WIDTH = 100
_PREFIX = "config."

# Of the commands that read a finished run.
OF_A_RUN = {
    "workdir": a_place("folder of a run"),
    "data-dir": a_place("folder of the graph, if it has moved since the training"),
    "features-dir": a_place("folder of the feature files, if it has moved since the training"),
}
# Of commands that answer from the model that comes with the package if there is no run.
OF_A_RUN_OR_NONE = a_place("folder of a run; default: the model of atlas that comes with the package")


@dataclasses.dataclass(frozen=True)
class Command:
    """A command line with a config: ``source`` names it as it was given, ``options`` are the command's own."""

    config: ConfigDict
    workdir: Path
    options: dict[str, Value]
    source: str


def parse(argv: Sequence[str], doc: str) -> tuple[ConfigDict, Path]:
    """`parse_command` of a command without options of its own: its config and its workdir."""
    command = parse_command(argv, doc, {})
    return command.config, command.workdir


def parse_command(
    argv: Sequence[str], doc: str, options: Mapping[str, Field], workdir: str = "runs/{config}", *, writes: bool = True
) -> Command:
    """Reads ``--config``, ``--workdir``, ``--config.FIELD`` and a command's own flags, such as ``--seeds=5``.

    Args:
      argv: the arguments without the program's name. ``--flag=value`` and ``--flag value`` are the same,
        a true or false flag alone means true, the last of equal flags counts.
      doc: the command's docstring, shown by ``--help``.
      workdir: the default, with the names of config and options in braces.
      writes: whether the command writes to the workdir; only the help depends on it.

    Raises:
      UserError: an unknown flag or field, a value that is not allowed, an unexpected argument, a missing config.
      SystemExit: status 0, after ``--help`` was printed.
    """
    bundled = ", ".join(bundled_configs())
    shared = {
        "config": Field(DEFAULT_CONFIG, f"a config file, FILE.py or FILE.py:ARGUMENT, or a bundled config: {bundled}"),
        "workdir": Field(
            re.sub(r"{(.*?)}", r"<\1>", workdir),
            "folder that the command writes to" if writes else "accepted, but not used by this command",
            place=True,
        ),
    }
    texts = _texts(argv, {**options, **shared, **{_PREFIX + path: field for path, field in FIELDS.items()}})
    source = texts.get("config", DEFAULT_CONFIG)
    config, name = load_config(source)
    for flag, text in texts.items():
        if flag.startswith(_PREFIX):
            path = flag.removeprefix(_PREFIX)
            set_field(config, path, parse_value(path, FIELDS[path], text))
    validate(config)
    values = _values(texts, options)
    if "help" in texts:
        _print_help(doc, {**shared, **options}, more=["[--config.FIELD=VALUE ...]"])
        print(f"\nFields of config {name}, set by --config.FIELD=VALUE:\n\n{describe(config)}")
        raise SystemExit(0)
    names = {option: Path(value).stem for option, value in values.items() if isinstance(value, str)}
    folder = parse_value("workdir", shared["workdir"], texts.get("workdir", workdir.format(config=name, **names)), "--")
    if not folder:
        raise UserError("--workdir: expected a folder, got nothing")
    return Command(config, Path(folder), values, source)


def parse_options(
    argv: Sequence[str], doc: str, options: Mapping[str, Field], required: Sequence[str] = ()
) -> dict[str, Value]:
    """The flags of a command that has no config, by their Python names; absent ones have their field's default.

    Those that are ``required`` must be given.

    Raises:
      UserError, SystemExit: as for `parse_command`.
    """
    texts = _texts(argv, options)
    if "help" in texts:
        _print_help(doc, options, required)
        raise SystemExit(0)
    values = _values(texts, options)
    for name in required:
        if values[name] is None:
            raise UserError(f"--{name}=VALUE is missing: {options[name].meaning}")
    return values


def _texts(argv: Sequence[str], known: Mapping[str, Field]) -> dict[str, str]:
    """The texts of the flags, by their names without dashes; ``help`` among them where it is wanted."""
    texts, rest = {}, list(argv)
    while rest:
        argument = rest.pop(0)
        if argument in ("--help", "-h"):
            texts["help"] = ""
            continue
        if not argument.startswith("--") or argument == "--":
            raise UserError(f"unexpected argument {argument!r}; expected --flag=value; --help lists the flags")
        flag, equals, text = argument[2:].partition("=")
        if flag not in known:
            _refuse(flag, known)
        if not equals:
            if rest and not rest[0].startswith("--"):
                text = rest.pop(0)
            elif known[flag].kind is bool:
                text = "true"
            else:
                raise UserError(f"--{flag} needs a value: --{flag}=VALUE")
        texts[flag] = text
    return texts


def _refuse(flag: str, known: Mapping[str, Field]) -> None:
    if flag.startswith(_PREFIX) and "config" in known:
        check_known(flag.removeprefix(_PREFIX))
    # `--data.dir` for `--config.data.dir` is the likeliest slip of all.
    hint = suggest(_PREFIX + flag if _PREFIX + flag in known else flag, known, "--")
    raise UserError(f"unknown flag --{flag}{hint}")


def _values(texts: Mapping[str, str], options: Mapping[str, Field]) -> dict[str, Value]:
    """By Python names: ``data_dir`` for ``--data-dir``."""
    return {
        name.replace("-", "_"): parse_value(name, field, texts[name], "--") if name in texts else field.default
        for name, field in options.items()
    }


def _program() -> str:
    """How this command was called: ``mocme train``, or ``python -m mocme_jax.train``."""
    if sys.argv[0].startswith("mocme "):
        return sys.argv[0]
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    # A room that is a command as well is run by its __main__.
    return f"python {Path(sys.argv[0]).name}" if spec is None else f"python -m {spec.name.removesuffix('.__main__')}"


def _print_help(doc: str, options: Mapping[str, Field], required: Sequence[str] = (), more: Sequence[str] = ()) -> None:
    program = _program()
    words = {"config": "=FILE", "workdir": "=DIR"}
    flags = {
        name: f"--{name}{'' if field.kind is bool else words.get(name, '=VALUE')}" for name, field in options.items()
    }
    usage = " ".join([*(flag if name in required else f"[{flag}]" for name, flag in flags.items()), *more])
    lines = textwrap.wrap(usage, HELP_WIDTH - len(f"usage: {program} "), break_on_hyphens=False)
    usage = ("\n" + " " * len(f"usage: {program} ")).join(lines)
    print(f"usage: {program} {usage}\n\n{inspect.cleandoc(doc)}\n\nFlags:")
    # An empty text or tuple is "not set", as None is.
    defaults = {name: None if field.default in ("", ()) else field.default for name, field in options.items()}
    rows = {f"--{name}": (show(defaults[name]), field) for name, field in options.items()}
    print(*_table(rows, value_width=18), sep="\n")


def describe(config: ConfigDict) -> str:
    """Every field by section, with the value `config` gives it, its meaning and what it may hold."""
    rows = {path: (show(get_field(config, path)), field) for path, field in FIELDS.items()}
    lines, section = [], None
    for path, line in zip(FIELDS, _table(rows, value_width=16), strict=True):
        group = path.rpartition(".")[0]
        if group != section:
            section = group
            lines += ["", f"{SECTIONS[group]}:"]
        lines.append(line)
    return "\n".join(lines[1:])


def _table(rows: Mapping[str, tuple[str, Field]], value_width: int) -> list[str]:
    """Names, values and meanings in three columns, one text per row.

    A meaning is wrapped; after a value wider than its column, at most ``value_width``, it begins on the next line.
    """
    widest = max(map(len, rows), default=0)
    value_width = min(value_width, max((len(value) for value, _ in rows.values()), default=0))
    indent = " " * (widest + value_width + 6)
    table = []
    for name, (value, field) in rows.items():
        meaning = f"{field.meaning} [{bounds}]" if (bounds := allowed(field)) else field.meaning
        head = f"  {name:<{widest}}  {value:<{value_width}}  "
        first = head if len(value) <= value_width else f"{head.rstrip()}\n{indent}"
        wrapped = textwrap.wrap(meaning, HELP_WIDTH - len(indent), break_on_hyphens=False)
        table.append(first + f"\n{indent}".join(wrapped))
    return table


def flags_of(config: Mapping[str, Any]) -> list[str]:
    """The flags that turn the default config into this one, but for fields of a machine and fields that are gone.

    ``PLACES`` stand for the folders that the config names.
    """
    default, own = flat(load_config(DEFAULT_CONFIG)[0]), flat(config)
    flags = [f"--{_PREFIX}{path}={place}" for path, place in PLACES.items() if own.get(path) is not None]
    for path, value in own.items():
        if path.startswith(OF_A_MACHINE) or path not in default:
            continue
        value = tuple(value) if isinstance(value, list) else value
        if value != default[path]:
            # Who copies the command lets a shell read what the graph's folder was called.
            flags.append(f"--{_PREFIX}{path}={shlex.quote(show(value))}")
    return flags


def processes_of(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """How this process joins the others of its run; the arguments of ``processes.met``."""
    parallel = config.parallel
    # The fields in which processes of one run may differ.
    own = (*PLACES, "parallel.process")
    same = sorted((path, str(value)) for path, value in flat(config).items() if path not in own)
    return {
        "coordinator": parallel.coordinator,
        "count": parallel.processes,
        "process": parallel.process,
        "seconds": parallel.join_seconds,
        "run": hashlib.sha256(repr((__version__, str(workdir), same)).encode()).hexdigest()[:32],
    }


def stopped_status_of(config: ConfigDict) -> int:
    """The exit status of a command that a signal stopped before it was finished."""
    return config.parallel.stopped_status
