"""The encoder's inputs for all entities as tables on the devices, and the lookup of rows."""

from typing import NamedTuple

import jax

from mocme_jax.method.encoder import Carried
from mocme_jax.parallel.mesh import ROWS, WHOLE
from mocme_jax.parallel.sharded_tables import take


class Inputs(NamedTuple):
    """The encoder's inputs other than the structure, for N entities, or for this device's S if tables are sharded.

    Attributes:
      features: one array ``[N, d_m]`` per feature modality.
      present: bool ``[N, M]``, whether the entity has the modality. Column 0 is the structure.
      evidence: ``[N]``, log(1 + number of training triples of the entity).
    """

    features: tuple[jax.Array, ...]
    present: jax.Array
    evidence: jax.Array


def inputs_spec(split: bool) -> Inputs:
    """Return which parts of the inputs are sharded over the devices."""
    word = ROWS if split else WHOLE
    return Inputs(word, word, word)


def look_up(structure: jax.Array, inputs: Inputs, ids: jax.Array, *, split: bool) -> Carried:
    """Look up the encoder's inputs for this device's entities ``ids [n]``, on whichever device they are."""
    return Carried(
        take(structure, ids, split),
        tuple(take(features, ids, split) for features in inputs.features),
        take(inputs.present, ids, split).astype(bool),
        take(inputs.evidence, ids, split),
    )
