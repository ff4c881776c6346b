"""Runs an ablation study: trains variants of a config over several seeds and compares them with a paired test.

A study is a file in configs/studies. It names its variants, called cells, and the config fields that each one changes;
the first cell is the reference. All seeds of a cell train together as one compiled program. Finished cells are kept:
after Ctrl-C or SIGTERM, rerunning the same command continues.
"""

import sys

from mocme_jax.command_line import run
from mocme_jax.config import baseline_of, bundled_configs
from mocme_jax.config_fields import Field
from mocme_jax.flags import parse_command, stopped_status_of

OPTIONS = {
    "study": Field("components", f"a study file, or one of {', '.join(bundled_configs('studies'))}"),
    "seeds": Field(5, "number of seeds: config.seed and the numbers after it; they train together", low=1),
    "cells": Field((), "names of the cells to run in addition to the first, separated by commas; none: all"),
}


def main() -> int:
    """Reads the flags, then imports JAX and runs the study."""
    command = parse_command(sys.argv[1:], __doc__, OPTIONS, "studies/{config}-{study}")
    from mocme_jax.training.preemption import Preemption

    with Preemption(stopped_status_of(command.config)) as preemption:
        from mocme_jax.studies.study import run_study

        alone = baseline_of(command.source)
        run_study(command.config, workdir=command.workdir, **command.options, alone=alone, preemption=preemption)
    return preemption.status


if __name__ == "__main__":
    run(main)
