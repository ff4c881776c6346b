"""What all entities carry, as tables on the devices, and the rows of it that are wanted."""

from __future__ import annotations

from typing import NamedTuple

import jax

from mocme_jax.method.encoder import Carried
from mocme_jax.parallel.mesh import ROWS, WHOLE
from mocme_jax.parallel.sharded_tables import take


class Inputs(NamedTuple):
    """What entities carry beside the structure; N rows, or this device's S where tables are split.

    Attributes:
      features: one ``[N, d_m]`` a feature modality.
      present: bool ``[N, M]``; column 0 is the structure.
      evidence: ``[N]``, log(1 + training triples of the entity).
    """

    features: tuple[jax.Array, ...]
    present: jax.Array
    evidence: jax.Array


def inputs_spec(split: bool) -> Inputs:
    """Which parts of the inputs are split over the devices."""
    word = ROWS if split else WHOLE
    return Inputs(word, word, word)


def look_up(structure: jax.Array, inputs: Inputs, ids: jax.Array, *, split: bool) -> Carried:
    """What this device's entities ``ids [n]`` carry, wherever it lies."""
    return Carried(
        take(structure, ids, split),
        tuple(take(features, ids, split) for features in inputs.features),
        take(inputs.present, ids, split).astype(bool),
        take(inputs.evidence, ids, split),
    )
