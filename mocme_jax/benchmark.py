"""Measures training and filtered evaluation on a graph: the configured model beside structure alone, in one run.

Pin it to compare: taskset -c 0 python -m mocme_jax.benchmark --config=db15k --config.data.dir=FOLDER
"""

import sys

from mocme_jax.command_line import run
from mocme_jax.config_fields import Field
from mocme_jax.flags import parse_command

OPTIONS = {
    "pool": Field(1024, "shared candidates a step, in place of negatives.pool", low=1),
    "steps": Field(8, "steps a timed call", low=1),
    "repeats": Field(5, "timed calls of each kind, taken in turns", low=1),
    "json": Field(None, "also write the figures to this file", kind=str),
}


def main() -> None:
    """Reads the flags, then imports JAX and measures."""
    command = parse_command(sys.argv[1:], __doc__, OPTIONS)
    from mocme_jax.training.speed import measure

    options = dict(command.options)
    measure(command.config, json_file=options.pop("json"), **options)


if __name__ == "__main__":
    run(main)
