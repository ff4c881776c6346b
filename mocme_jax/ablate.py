"""Ablations: what each part of MoCME brings, over several seeds, with a paired test against the full model.

A study is a file of configs/studies: a name for each cell, and the config fields that it changes. All seeds of a cell
train together as one compiled program. Finished cells are kept and never run again; after Ctrl-C or SIGTERM the same
command goes on where it was.
"""

import sys

from mocme_jax.command_line import run
from mocme_jax.config import baseline_of, bundled_configs
from mocme_jax.config_fields import Field
from mocme_jax.flags import parse_command

OPTIONS = {
    "study": Field("components", f"a study file, or one of {', '.join(bundled_configs('studies'))}"),
    "seeds": Field(5, "how many, from config.seed on, trained together", low=1),
    "cells": Field((), "cells to run beside the first, by name; all, where none is named"),
}


def main() -> None:
    """Reads the flags, then imports JAX and runs the study."""
    command = parse_command(sys.argv[1:], __doc__, OPTIONS, "studies/{config}-{study}")
    from mocme_jax.training.preemption import Preemption

    with Preemption() as preemption:
        from mocme_jax.studies.study import run_study

        alone = baseline_of(command.source)
        run_study(command.config, workdir=command.workdir, **command.options, alone=alone, preemption=preemption)


if __name__ == "__main__":
    run(main)
