"""MoCME as one Flax module: the encoder, the relations, and the score function's core."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mocme_jax.method.encoder import STRUCTURE_INIT, Carried, Encoder, Encoding, Panel
from mocme_jax.method.scoring import Score

RELATION_INIT = 0.001
"""Standard deviation of the relation table at the start; phases start uniform."""


class Params(NamedTuple):
    """What is learned.

    Attributes:
      model: the Flax variables of ``MoCME``, the same on every device.
      structure: ``[N, d]``, one row per entity; it may be split over the devices.
    """

    model: Any
    structure: jax.Array


class EntityVectors(NamedTuple):
    """Encoded entities: ``questions`` and ``answers``, ``[N, d]`` each, the same array where they do not differ."""

    questions: jax.Array
    answers: jax.Array


def _uniform_phases(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jax.random.uniform(key, shape, minval=-np.pi, maxval=np.pi)


class MoCME(nn.Module):
    """Holds the parameters; call its methods through ``apply(..., method="encode")`` and so on.

    Attributes:
      encoder: the entity encoder, unbound.
      num_relations: R; the table holds 2R rows, r + R being the reciprocal of r.
      score: the score function.
      core_width: d_r of TuckER's core; unused by the others.
      features_in: where feature modalities take part: ``all`` encodings, ``questions`` (entities that are asked about,
        not answers), or ``heads`` (entities that are asked for their tails).
    """

    encoder: Encoder
    num_relations: int
    score: Score
    core_width: int
    features_in: str

    def setup(self):
        """Creates the relations' parameters."""
        width = self.encoder.width
        shape = (2 * self.num_relations, self.score.relation_width(width, self.core_width))
        init = _uniform_phases if self.score.phases else nn.initializers.normal(RELATION_INIT)
        self.relation = self.param("relation", init, shape)
        if self.score.has_core:
            self.core = self.param("core", nn.initializers.normal(width**-0.5), (shape[1], width, width))

    def encode_panel(self, carried: Carried) -> Panel:
        """What is estimated on the panel; see ``Encoder.encode_panel``."""
        return self.encoder.encode_panel(carried)

    def encode(
        self,
        carried: Carried,
        panel: Panel,
        hidden: jax.Array | None = None,
        noise: jax.Array | None = None,
        *,
        answers: bool = False,
    ) -> Encoding:
        """Encodes entities ``[n]`` from all they carry.

        Args:
          carried, panel, noise: see ``Encoder``.
          hidden: bool ``[n]``, True where the structure counts as missing; None hides none.
          answers: encode them as answers. Where features are for questions, those are encoded by their structure
            alone, but for entities whose structure is missing or hidden.
        """
        keep = None
        if hidden is not None:
            keep = jnp.ones(carried.present.shape, bool).at[:, 0].set(~hidden)
        if answers and self.features_in != "all":
            structure = carried.present[:, 0] if hidden is None else carried.present[:, 0] & ~hidden
            keep = jnp.broadcast_to(~structure[:, None], carried.present.shape).at[:, 0].set(structure)
        return self.encoder(carried, panel, keep, noise)

    def asked(self, questions: jax.Array, answers: jax.Array, relations: jax.Array) -> jax.Array:
        """The vectors ``[B, d]`` with which entities are asked about, out of both of theirs, for relations ``[B]``."""
        if self.features_in == "all":
            return answers
        if self.features_in == "questions":
            return questions
        return jnp.where((relations < self.num_relations)[:, None], questions, answers)

    def query(self, heads: jax.Array, relations: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Query vectors for head vectors ``[B, d]`` and relation ids ``[B]`` in [0, 2R).

        Returns:
          ``q [B, d]``, to be matched against tails, and the relations' own rows ``[B, d_r]``.
        """
        rows = self.relation[relations]
        return self.score.query(heads, rows, self.core if self.score.has_core else None), rows

    def __call__(self, carried: Carried) -> jax.Array:
        """Touches every parameter once, for ``init``."""
        panel = self.encode_panel(carried)
        vectors = self.encode(carried, panel).vectors
        return self.query(vectors[:1], jnp.zeros((1,), jnp.int32))[0]


def init_params(model: MoCME, key: jax.Array, rows: int) -> Params:
    """Initial parameters, with so many rows in the structure table.

    A row's initial value does not depend on how many there are.
    """
    encoder = model.encoder
    model_key, table_key = jax.random.split(key)
    nobody = Carried(
        jnp.zeros((2, encoder.width)),
        tuple(jnp.zeros((2, width)) for width in encoder.widths),
        jnp.ones((2, encoder.modalities), bool),
    )
    table = STRUCTURE_INIT * jax.random.normal(table_key, (rows, encoder.width))
    return Params(model.init(model_key, nobody), table)
