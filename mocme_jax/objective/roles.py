"""What a step encodes: the batch's entities as questions and as answers, and the candidates."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mocme_jax.model.encoder import Encoding, Inputs
from mocme_jax.model.mocme import MoCME
from mocme_jax.objective.shares import AXIS, dropout, padded, share


class Roles(NamedTuple):
    """Encoded entities; B' is this device's share of the batch.

    Attributes:
      asked_heads, asked_tails: ``[B', d]``, heads as asked for their tails, and tails as asked for their heads.
      heads, tails: ``[B', d]``, as answers.
      entities: ``[2B + C, d]``, the whole batch's heads, tails and the pool as answers, on every device.
      encoding: of the share that carries features.
    """

    asked_heads: jax.Array
    asked_tails: jax.Array
    heads: jax.Array
    tails: jax.Array
    entities: jax.Array
    encoding: Encoding


def make_roles(model: MoCME, *, structure_dropout: float, feature_dropout: float, devices: int) -> Callable:
    """``(params, inputs, heads [B], tails [B], pool [C], key) -> Roles``, to be called under the named axis.

    Entities are shared out over the devices, encoded and gathered. Draws are made for the whole batch.
    """

    def roles(params, inputs: Inputs, heads: jax.Array, tails: jax.Array, pool: jax.Array, key: jax.Array) -> Roles:
        hide_key, noise_key = jax.random.split(key)
        panel = model.apply(params, inputs, method="encode_panel")
        size, ids = len(heads), padded(jnp.concatenate([heads, tails, pool]), devices)
        hidden = None
        if structure_dropout:
            hidden = jax.random.uniform(hide_key, ids.shape) < structure_dropout

        def encode(ids, hidden, answers):
            noise = None
            if feature_dropout and inputs.features:
                rows = share(jnp.arange(len(ids)), devices)
                ones = jnp.ones((len(rows), len(inputs.features), model.encoder.width))
                noise = dropout(noise_key, rows, ones, feature_dropout)
            hidden = None if hidden is None else share(hidden, devices)
            arguments = inputs, share(ids, devices), panel, hidden, noise
            encoding = model.apply(params, *arguments, answers=answers, method="encode")
            return gathered(encoding.vectors), encoding

        def shared(vectors):
            """This device's heads and tails of gathered vectors of the batch."""
            return share(vectors[:size], devices), share(vectors[size : 2 * size], devices)

        if model.features_in == "all":
            entities, encoding = encode(ids, hidden, answers=True)
            answers = shared(entities)
            return Roles(*answers, *answers, entities[: 2 * size + len(pool)], encoding)
        if hidden is None:
            # Whatever is trained on has a structure; without features it is quick to encode.
            entities = gathered(model.apply(params, share(ids, devices), panel, method="structure_alone"))
        else:
            entities, _ = encode(ids, hidden, answers=True)
        answers = shared(entities)
        both = model.features_in == "questions"
        asked_ids = padded(ids[: 2 * size if both else size], devices)
        asked_hidden = None if hidden is None else padded(hidden[: 2 * size if both else size], devices)
        questions, encoding = encode(asked_ids, asked_hidden, answers=False)
        asked_tails = share(questions[size : 2 * size], devices) if both else answers[1]
        entities = entities[: 2 * size + len(pool)]
        return Roles(share(questions[:size], devices), asked_tails, *answers, entities, encoding)

    return roles


def gathered(vectors: jax.Array) -> jax.Array:
    """Every device's rows, on every device."""
    return jax.lax.all_gather(vectors, AXIS, tiled=True)
