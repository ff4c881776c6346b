"""Searches a space of configurations on dev alone: test is never scored.

A space is a file of configs/search: config fields, each with its range. Points are drawn at random, or by Optuna, and
follow from config.seed. What was tried is kept and never tried again, so that a search can be stopped with Ctrl-C and
made longer.
"""

import sys

from mocme_jax.command_line import run
from mocme_jax.flags import parse_command
from mocme_jax.studies.search_options import OPTIONS


def main() -> None:
    """Reads the flags, then imports JAX and searches."""
    command = parse_command(sys.argv[1:], __doc__, OPTIONS, "studies/{config}-search-{space}")
    from mocme_jax.training.preemption import Preemption

    with Preemption() as preemption:
        from mocme_jax.studies.parameter_search import search

        search(command.config, workdir=command.workdir, **command.options, preemption=preemption)


if __name__ == "__main__":
    run(main)
