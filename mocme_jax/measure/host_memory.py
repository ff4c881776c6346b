"""What the host needs besides its devices: memory per process, by part."""

from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from mocme_jax.training.setup import builders
from mocme_jax.training.setup.settings import settings_of

# Python, JAX and compiled programs: 0.52 to 0.67 GB were measured on CPUs with a graph of 1,000 entities and width 8,
# the least with programs from the compilation cache.
_PROGRAM = 570_000_000
# A name as a Python text in a list, and in the table that finds it, as measured for names of 8 letters.
_NAME = 90
# The share of a state that a save holds compressed at its peak, as measured on a CPU (0.62 to 0.93 in five saves).
_COMPRESSED = 0.75
SAVING = "saving a checkpoint"
# A fact is a 64-bit number. Three copies are held while facts are sorted, in both directions of a triple.
_FACT = 3 * 8 * 2


class Need(NamedTuple):
    """The memory that a device or a process needs.

    Attributes:
      parts: bytes by part that are held for the whole run, in the order they are printed.
      stages: bytes by stage. Only one stage runs at a time.
      collective: bytes that one device's program gives to collectives in a step.
      saved: bytes of the state on all devices, which checkpoints hold.
      copied: bytes of a copy of the state that an evaluation and a save hold; part of their stage.
      mapped: those of the bytes that the processes of a node share, because they are a mapped file.
    """

    parts: dict[str, int]
    stages: dict[str, int]
    collective: int = 0
    saved: int = 0
    copied: int = 0
    mapped: int = 0

    @property
    def total(self) -> int:
        """The peak in bytes: all parts, and the largest stage."""
        return sum(self.parts.values()) + max(self.stages.values())

    def of_node(self, processes: int) -> int:
        """The peak in bytes of all processes of a node."""
        return processes * (self.total - self.mapped) + self.mapped


def host_need(config: ConfigDict, sizes: Any, saved: int, *, processes: int) -> Need:
    """Estimate what one process needs on its host.

    Args:
      sizes: see ``memory_plan.Sizes``.
      saved: bytes of the state on all devices.
      processes: the number of processes of the run, which share the devices equally.
    """
    shared = processes if settings_of(config).shard_entities else 1
    features = 4 * sizes.entities * sum(sizes.widths)
    parts = {
        "Python, JAX and compiled programs": _PROGRAM,
        "names": _NAME * sizes.entities,
        "features, shared by a node's processes if .npy": features,
        "triples": 12 * sizes.triples,
    } | builders.addition_bytes(config, sizes.entities, sizes.entities, sizes.relations)
    stages = {
        "reading features": features // shared,
        "indexing known answers": _FACT * sizes.triples // shared,
        # During training, Orbax holds a copy of this process's shards and the compressed part of that copy.
        SAVING: int((1 + _COMPRESSED) * saved) // shared,
    }
    return Need(parts, stages, mapped=features)


def device_share(kind: str | None, fraction: str | None) -> float:
    """Return the share of a device's memory that JAX takes.

    Args:
      kind: the kind of device, such as ``h100`` or ``tpu-v4``; None for a GPU of unknown kind.
      fraction: the value of ``XLA_PYTHON_CLIENT_MEM_FRACTION``; None if it is not set.
    """
    if kind is not None and kind.startswith("tpu"):
        return 1.0
    try:
        share = float(fraction) if fraction is not None else 0.75
    except ValueError:
        return 0.75
    return share if 0 < share <= 1 else 0.75


def bytes_of(tree: Any) -> int:
    """Return the bytes of a tree of arrays or shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
