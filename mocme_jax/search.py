"""Searches a space of configs for the best dev MRR. Test is never scored.

A space is a file in configs/search that gives a range for some config fields. A point is one value for each of them.
Points are drawn at random or by Optuna, and depend only on config.seed. Finished points are kept: rerunning the command
continues, also with more trials.
"""

import sys

from mocme_jax.command_line import run
from mocme_jax.config import bundled_configs
from mocme_jax.config_fields import Field
from mocme_jax.flags import parse_command, stopped_status_of

OPTIONS = {
    "space": Field("full", f"a search file, or one of {', '.join(bundled_configs('search'))}"),
    "trials": Field(
        20, "number of points to try, including those of earlier calls; the first is the config itself", low=1
    ),
    "minutes": Field(120.0, "minutes of training after which no new point is started", above=0),
    "sampler": Field(
        "random",
        "how points are drawn; random: at random; tpe: by Optuna's TPE, which learns from earlier points after the "
        "first ten (needs the extra search)",
        choices=("random", "tpe"),
    ),
    "pruner": Field(
        "none",
        "which points stop early; none: none; median: points whose best dev MRR is below the median of the finished "
        "points at the same epoch, from the sixth point and the second evaluation on",
        choices=("none", "median"),
    ),
}


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
