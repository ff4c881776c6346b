"""Measures cold start: holds out entities with all their triples and predicts these triples from features alone.

Trains on the remaining graph with the given config, in WORKDIR/run. The structure of a held-out entity is inferred from
the entities with the most similar features. Prints the scores beside those of simple baselines and writes them to
WORKDIR/coldstart.json.
"""

import sys

from mocme_jax.command_line import run
from mocme_jax.config_fields import Field
from mocme_jax.flags import parse_command

OPTIONS = {
    "share": Field(0.1, "share of the entities that are held out", above=0, below=1),
    "held-seed": Field(0, "seed of the choice of held-out entities", low=0),
    "given": Field(
        0, "maximum number of triples per held-out entity that the model is given; the others are predicted", low=0
    ),
}


def main() -> None:
    """Reads the flags, then imports JAX, trains and measures."""
    command = parse_command(sys.argv[1:], __doc__, OPTIONS)
    from mocme_jax.serving.coldstart_study import study

    study(command.config, command.workdir, **command.options)


if __name__ == "__main__":
    run(main)
