"""What a device encodes in a step: its share of the batch as questions and as answers, and of the candidates."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mocme_jax.method.encoder import Carried, Encoding
from mocme_jax.method.mocme import MoCME
from mocme_jax.parallel.candidates import Columns


class Fetched(NamedTuple):
    """What a step reads of the tables: of this device's n columns, and of the P of the panel, the same everywhere."""

    columns: Carried
    panel: Carried


class Roles(NamedTuple):
    """Encoded entities; B' is this device's share of the batch.

    Attributes:
      asked_heads, asked_tails: ``[B', d]``, heads as asked for their tails, and tails as asked for their heads.
      heads, tails: ``[B', d]``, as answers.
      columns: ``[n, d]``, this device's columns as answers.
      encoding: of what carries features.
    """

    asked_heads: jax.Array
    asked_tails: jax.Array
    heads: jax.Array
    tails: jax.Array
    columns: jax.Array
    encoding: Encoding


def encode_roles(
    model: MoCME,
    params: Any,
    fetched: Fetched,
    columns: Columns,
    key: jax.Array,
    *,
    batch: int,
    structure_dropout: float,
    feature_dropout: float,
) -> Roles:
    """Encodes this device's columns, and its heads and tails as questions.

    A draw belongs to a place in the whole list of columns, so that it does not depend on the devices. ``batch`` is B',
    heads on this device.
    """
    hide_key, noise_key = jax.random.split(key)
    panel: Any = model.apply(params, fetched.panel, method="encode_panel")
    hidden = None
    if structure_dropout:
        hidden = (jax.random.uniform(hide_key, columns.ids.shape) < structure_dropout)[columns.places]

    def encode(rows: int, answers: bool) -> Encoding:
        """The first so many columns."""
        carried = jax.tree.map(lambda x: x[:rows], fetched.columns)
        noise = None
        if feature_dropout and carried.features:
            ones = jnp.ones((rows, len(carried.features), model.encoder.width))
            noise = dropout(noise_key, columns.places[:rows], ones, feature_dropout)
        arguments = carried, panel, None if hidden is None else hidden[:rows], noise
        encoding: Any = model.apply(params, *arguments, answers=answers, method="encode")
        return encoding

    if model.features_in == "all":
        encoding = encode(len(columns.places), True)
        heads, tails = encoding.vectors[:batch], encoding.vectors[batch : 2 * batch]
        return Roles(heads, tails, heads, tails, encoding.vectors, encoding)
    # Whatever is trained on has a structure, which alone is its own encoding.
    alone = fetched.columns.structure
    vectors = alone if hidden is None else encode(len(columns.places), True).vectors
    heads, tails = vectors[:batch], vectors[batch : 2 * batch]
    both = model.features_in == "questions"
    encoding = encode(2 * batch if both else batch, False)
    asked_tails = encoding.vectors[batch:] if both else tails
    return Roles(encoding.vectors[:batch], asked_tails, heads, tails, vectors, encoding)


def dropout(key: jax.Array, rows: jax.Array, array: jax.Array, chance: float) -> jax.Array:
    """``[n, ...]`` with components hidden at random and the rest scaled up (Srivastava et al., JMLR 2014).

    Each row draws by its own key, its place in the whole batch ``rows [n]``, so that draws do not depend on the
    devices.
    """
    keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(rows)
    kept = jax.vmap(lambda one: jax.random.bernoulli(one, 1 - chance, array.shape[1:]))(keys)
    return jnp.where(kept, array / (1 - chance), 0)
