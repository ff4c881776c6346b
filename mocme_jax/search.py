"""Searches a space of configurations at random, on dev alone: test is never scored.

A space is a file of configs/search: config fields, each with its range. Points follow from config.seed; what was tried
is kept and never tried again, so that a search can be stopped with Ctrl-C and made longer.
"""

import sys

from mocme_jax.command_line import run
from mocme_jax.config import bundled_configs
from mocme_jax.config_fields import Field
from mocme_jax.flags import parse_command

OPTIONS = {
    "space": Field("full", f"a search file, or one of {', '.join(bundled_configs('search'))}"),
    "trials": Field(20, "points to try, with those tried before; the first is the config itself", low=1),
    "minutes": Field(120.0, "of training, after which no further point is begun", above=0),
}


def main() -> None:
    """Reads the flags, then imports JAX and searches."""
    command = parse_command(sys.argv[1:], __doc__, OPTIONS, "studies/{config}-search-{space}")
    from mocme_jax.training.preemption import Preemption

    with Preemption() as preemption:
        from mocme_jax.studies.random_search import search

        search(command.config, workdir=command.workdir, **command.options, preemption=preemption)


if __name__ == "__main__":
    run(main)
