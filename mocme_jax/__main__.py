"""Runs a command of mocme_jax: ``mocme train --config=atlas`` is ``python -m mocme_jax.train --config=atlas``."""

import importlib
import inspect
import sys

import mocme_jax
from mocme_jax.command_line import run
from mocme_jax.config_values import suggest
from mocme_jax.errors import UserError

# In the order in which they are used. The values are modules.
COMMANDS = {
    "train": "train",
    "evaluate": "evaluate",
    "predict": "predict",
    "explore": "explore",
    "report": "report.__main__",
    "prepare": "prepare",
    "audit": "audit",
    "resplit": "resplit",
    "ablate": "ablate",
    "search": "search",
    "coldstart": "coldstart",
    "export": "export",
    "benchmark": "benchmark",
    "plan": "plan",
}


def main() -> int | None:
    """Runs the command that the first argument names, with the arguments that follow it."""
    name, *rest = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h"):
        print(_overview())
        return None
    if name == "--version":
        print(f"mocme_jax {mocme_jax.__version__}")
        return None
    if name not in COMMANDS:
        raise UserError(f"unknown command {name}{suggest(name, COMMANDS)}")
    # The help of the command reads its own name here.
    sys.argv = [f"mocme {name}", *rest]
    return _module(name).main()


def entry() -> None:
    """The console script ``mocme``."""
    run(main)


def _module(name: str):
    return importlib.import_module(f"mocme_jax.{COMMANDS[name]}")


def _overview() -> str:
    lines = [f"  {name:<10}  {inspect.getdoc(_module(name)).splitlines()[0]}" for name in COMMANDS]
    return "\n".join(
        [
            "usage: mocme COMMAND [FLAGS]\n",
            "Multi-modal knowledge graph completion with a mixture of complementary modality experts (MoCME).\n",
            "Commands:",
            *lines,
            "\nmocme COMMAND --help lists the flags of a command; mocme --version prints the version.",
        ]
    )


if __name__ == "__main__":
    entry()
