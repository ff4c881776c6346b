"""Measures the speed of training, encoding and filtered evaluation, and compares it with the limit of the device.

Prints the rate of each stage and its share of the fastest rate that the device could reach. It trains no model to the
end and keeps none. To compare two versions, pin both to one core:

  taskset -c 0 mocme benchmark --config=db15k --config.data.dir=FOLDER
"""

import sys

from mocme_jax.command_line import run
from mocme_jax.config_fields import PRECISIONS, Field, a_place
from mocme_jax.errors import UserError
from mocme_jax.flags import parse_command

OPTIONS = {
    "devices": Field((), "numbers of devices to measure, such as 1,2; none: parallel.devices", element=int, low=1),
    "mappers": Field(
        (), "mappers to measure, such as pmap,shard_map; none: parallel.mapper", choices=("pmap", "shard_map", "none")
    ),
    "precisions": Field((), "precisions to measure, such as float32,tf32; none: train.precision", choices=PRECISIONS),
    "entities": Field(
        (),
        "train on synthetic graphs of these numbers of entities, such as 1e4,1e5",
        element=float,
        low=10,
    ),
    "steps": Field(8, "training steps per timed call", low=1),
    "repeats": Field(5, "timed calls per stage; the stages alternate", low=1),
    "json": a_place("also write the measured numbers to this JSON file"),
    "trace": a_place("also write a trace of JAX's profiler to this folder"),
    "compare": Field(
        (), "measure nothing; print two or more files written by --json side by side", element=str, place=True
    ),
}


def main() -> None:
    """Reads the flags, then imports JAX and measures."""
    command = parse_command(sys.argv[1:], __doc__, OPTIONS, writes=False)
    options = dict(command.options)
    files = options.pop("compare")
    if len(files) == 1:
        raise UserError("--compare: name two files or more, separated by commas")
    from mocme_jax.measure.throughput import compare, measure

    if files:
        compare(files)
    else:
        measure(command.config, json_file=options.pop("json"), **options)


if __name__ == "__main__":
    run(main)
