"""Measures training steps, encoding and filtered evaluation beside what the device can do at most, in one run.

Pin it to compare: taskset -c 0 python -m mocme_jax.benchmark --config=db15k --config.data.dir=FOLDER
"""

import sys

from mocme_jax.command_line import run
from mocme_jax.config_fields import PRECISIONS, Field
from mocme_jax.errors import UserError
from mocme_jax.flags import parse_command

OPTIONS = {
    "devices": Field((), "device counts to measure; none: parallel.devices", element=int, low=1),
    "mappers": Field((), "mappers to measure; none: parallel.mapper", choices=("pmap", "shard_map", "none")),
    "precisions": Field((), "precisions to measure; none: train.precision", choices=PRECISIONS),
    "entities": Field((), "train on synthetic graphs of so many entities, such as 1e4,1e5", element=float, low=10),
    "steps": Field(8, "training steps a timed call", low=1),
    "repeats": Field(5, "timed calls of each stage, taken in turns", low=1),
    "json": Field(None, "also write the figures to this file", kind=str),
    "trace": Field(None, "also write a profiler trace to this folder", kind=str),
    "compare": Field((), "measure nothing: files of --json, side by side", element=str),
}


def main() -> None:
    """Reads the flags, then imports JAX and measures."""
    command = parse_command(sys.argv[1:], __doc__, OPTIONS)
    options = dict(command.options)
    files = options.pop("compare")
    if len(files) == 1:
        raise UserError("--compare: name two files or more, separated by commas")
    if files:
        from mocme_jax.measure.throughput import compare

        compare(files)
        return
    from mocme_jax.measure.throughput import measure

    measure(command.config, json_file=options.pop("json"), **options)


if __name__ == "__main__":
    run(main)
