"""Searches a space of configs for the best dev MRR. Test is never scored.

A space is a file in configs/search that gives a range for some config fields. A point is one value for each of them.
Points are drawn at random or by Optuna, and depend only on config.seed. Finished points are kept: rerunning the command
continues, also with more trials.
"""

import sys

from mocme_jax.command_line import run
from mocme_jax.flags import parse_command, stopped_status_of
from mocme_jax.studies.search_options import OPTIONS


def main() -> int:
    """Reads the flags, then imports JAX and searches."""
    command = parse_command(sys.argv[1:], __doc__, OPTIONS, "studies/{config}-search-{space}")
    from mocme_jax.training.preemption import Preemption

    with Preemption(stopped_status_of(command.config)) as preemption:
        from mocme_jax.studies.parameter_search import search

        search(command.config, workdir=command.workdir, **command.options, preemption=preemption)
    return preemption.status


if __name__ == "__main__":
    run(main)
