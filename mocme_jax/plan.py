"""Estimates the memory per device and per host, the number of devices and the hours per epoch before you start a run.

Compiles training and evaluation for the given sizes on simulated CPU devices. No array of these sizes is allocated. The
settings are those of --config, as for train.
"""

import os
import sys

from mocme_jax.command_line import run
from mocme_jax.config_fields import Field, a_place
from mocme_jax.flags import parse_command

# What one device holds, in GB (10^9 bytes), as its maker's data sheet says.
DEVICE_MEMORY = {
    **{"t4": 16.0, "l4": 24.0, "a100-40": 40.0, "a100-80": 80.0, "h100": 80.0, "h200": 141.0},
    **{"tpu-v4": 32.0, "tpu-v5e": 16.0, "tpu-v5p": 95.0, "tpu-v6e": 32.0},
}
OPTIONS = {
    "entities": Field(1e6, "number of entities, such as 1e6", low=10),
    "triples": Field(1e7, "number of training triples", low=1),
    "relations": Field(500, "number of relations", low=1),
    "modalities": Field((512,), "widths of the feature modalities, such as 512,304", element=int, low=1),
    "evaluated": Field(1000, "number of dev triples, or of test triples if they are more", low=1),
    "processes": Field(1, "number of processes per node; each needs host memory of its own", low=1),
    "device": Field("h100", "kind of device; sets --memory", choices=tuple(DEVICE_MEMORY)),
    "memory": Field(None, "memory of one device in GB; overrides --device", kind=float, above=0),
    "most": Field(8, "largest number of devices to try", low=1, high=128),
    "benchmark": a_place("a file written by benchmark --json, from which the hours per epoch are estimated"),
}


def main() -> None:
    """Reads the flags, pretends to have as many devices, then imports JAX and plans."""
    command = parse_command(sys.argv[1:], __doc__, OPTIONS, writes=False)
    options = command.options
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["XLA_FLAGS"] = (
        f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={options['most']}".strip()
    )
    from mocme_jax.measure.host_memory import device_share
    from mocme_jax.measure.memory_plan import Sizes, plan

    numbers = (int(options["entities"]), options["relations"], int(options["triples"]))
    plan(
        command.config,
        Sizes(*numbers, options["modalities"], options["evaluated"]),
        source=command.source,
        memory=options["memory"] or DEVICE_MEMORY[options["device"]],
        share=device_share(options["device"], os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION")),
        processes=options["processes"],
        benchmark=options["benchmark"],
    )


if __name__ == "__main__":
    run(main)
