"""Measures the cold start of a graph: entities held out with all their triples, completed from their features alone.

Trains on the rest with the given config, into WORKDIR/run. The structure of the held-out entities is inferred from that
of entities that carry much the same. The figures, beside simple baselines, are printed and written to
WORKDIR/coldstart.json.
"""

import sys

from mocme_jax.command_line import run
from mocme_jax.config_fields import Field
from mocme_jax.flags import parse_command

OPTIONS = {
    "share": Field(0.1, "share of the entities that are held out", above=0, below=1),
    "held-seed": Field(0, "seed of the choice", low=0),
    "given": Field(0, "triples of each held-out entity that the model is told, at most; the others are asked", low=0),
}


def main() -> None:
    """Reads the flags, then imports JAX, trains and measures."""
    command = parse_command(sys.argv[1:], __doc__, OPTIONS)
    from mocme_jax.serving.coldstart_study import study

    study(command.config, command.workdir, **command.options)


if __name__ == "__main__":
    run(main)
