"""What all entities carry, as tables on the devices, and the rows of it that are wanted."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mocme_jax.method.encoder import Carried
from mocme_jax.parallel.device_axis import gathered, padded_size, share
from mocme_jax.parallel.mesh import ROWS, WHOLE
from mocme_jax.parallel.sharded_tables import take


class Inputs(NamedTuple):
    """What entities carry beside the structure; N rows, or this device's S where tables are split.

    Attributes:
      features: one ``[N, d_m]`` a feature modality.
      present: bool ``[N, M]``; column 0 is the structure.
      panel: int32 ``[P]`` entity ids, always whole.
    """

    features: tuple[jax.Array, ...]
    present: jax.Array
    panel: jax.Array


def inputs_spec(split: bool) -> Inputs:
    """Which parts of the inputs are split over the devices."""
    word = ROWS if split else WHOLE
    return Inputs(word, word, WHOLE)


def look_up(structure: jax.Array, inputs: Inputs, ids: jax.Array, *, split: bool) -> Carried:
    """What this device's entities ``ids [n]`` carry, wherever it lies."""
    return Carried(
        take(structure, ids, split),
        tuple(take(features, ids, split) for features in inputs.features),
        take(inputs.present, ids, split).astype(bool),
    )


def look_up_everywhere(structure: jax.Array, inputs: Inputs, ids: jax.Array, *, split: bool, devices: int) -> Carried:
    """What entities carry whose ids ``[n]`` are the same on every device; each looks up a share of them."""
    if not split:
        return look_up(structure, inputs, ids, split=False)
    filled = jnp.resize(ids, (padded_size(len(ids), devices),))
    own = look_up(structure, inputs, share(filled, devices), split=True)
    return jax.tree.map(lambda rows: gathered(rows)[: len(ids)], own)
