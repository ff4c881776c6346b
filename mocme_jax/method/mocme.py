"""MoCME as one Flax module: the experts' encoders and relations, and the fusion of what they say."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mocme_jax.method.complementarity import Fusion
from mocme_jax.method.encoder import STRUCTURE_INIT, Carried, Encoder, Encoding
from mocme_jax.method.scoring import Score

RELATION_INIT = 0.001
"""Standard deviation of the relation table at the start; phases start uniform."""


class Params(NamedTuple):
    """What is learned.

    Attributes:
      model: the Flax variables of ``MoCME``, the same on every device.
      structure: ``[N, H d]``, one row per entity; it may be split over the devices.
    """

    model: Any
    structure: jax.Array


class EntityVectors(NamedTuple):
    """Entities as one vector in each role, ``[N, W]``: what all experts say, each weighed for the entity.

    The score of a triple is a function of the head's vector in ``questions``, the relation, and the tail's vector in
    ``answers``; see ``MoCME.query`` and ``MoCME.match``.
    """

    questions: jax.Array
    answers: jax.Array


def _uniform_phases(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jax.random.uniform(key, shape, minval=-np.pi, maxval=np.pi)


class MoCME(nn.Module):
    """Holds the parameters; call its methods through ``apply(..., method="encode")`` and so on.

    With weights that are factors of an entity's and a relation's, a fused model whose scores are products is one model
    of the same kind, W = H d wide, of entities and relations that are scaled by their weights. Distances are not linear
    in the vectors, so there the H log weights stand behind the vectors, W = H (d + 1).

    Attributes:
      encoder: the entity encoder, unbound.
      fusion: the weights of the experts, unbound.
      num_relations: R; the table holds 2R rows, r + R being the reciprocal of r.
      score: the score function of each expert.
      core_width: d_r of TuckER's core; unused by the others.
    """

    encoder: Encoder
    fusion: Fusion
    num_relations: int
    score: Score
    core_width: int

    def setup(self):
        """Creates the relations' parameters."""
        width, experts = self.encoder.width, self.encoder.experts
        own = self.score.relation_width(width, self.core_width)
        init = _uniform_phases if self.score.phases else nn.initializers.normal(RELATION_INIT)
        self.relation = self.param("relation", init, (2 * self.num_relations, experts * own))
        if self.score.has_core:
            self.core = self.param("core", nn.initializers.normal(width**-0.5), (experts, own, width, width))

    def encode(self, carried: Carried) -> Encoding:
        """What the experts say of entities; see ``Encoder``."""
        return self.encoder(carried)

    def expert_queries(self, vectors: jax.Array, relations: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Each expert's queries for heads ``[B, H, d]`` and relation ids ``[B]`` in [0, 2R).

        Returns:
          ``q [B, H, d]``, to be matched against each expert's own tails, and the relations' rows ``[B, H, d_r]``.
        """
        rows = self.relation[relations].reshape(*vectors.shape[:2], -1)
        if not self.score.has_core:
            return self.score.query(vectors, rows, None), rows
        return jax.vmap(self.score.query, in_axes=(1, 1, 0), out_axes=1)(vectors, rows, self.core), rows

    def log_weights(self, encoding: Encoding, *, answers: bool) -> jax.Array:
        """Log weights ``[n, H]`` of the experts for entities that are asked about, or that answer."""
        return self.fusion.entity(encoding.vectors, encoding.has, encoding.evidence, answers=answers)

    def relation_log_weights(self, relations: jax.Array) -> jax.Array:
        """Log weights ``[n, H]`` of the experts for relations ``[n]`` in [0, 2R)."""
        return self.fusion.relation(relations)

    def shares(self, encoding: Encoding, relations: jax.Array | None = None) -> jax.Array:
        """Each expert's share ``[n, H]`` of the weights with which entities are asked about, adding up to 1.

        For relations ``[n]`` in [0, 2R); None for none in particular.
        """
        weights = self.log_weights(encoding, answers=False)
        return jax.nn.softmax(weights if relations is None else weights + self.fusion.relation(relations), axis=-1)

    def fusion_penalty(self) -> jax.Array:
        """What is added to the loss of the fusion's fit, a scalar."""
        return self.fusion.penalty()

    def entity_vectors(self, encoding: Encoding) -> EntityVectors:
        """Both roles of encoded entities, ``[n, W]`` each."""
        if self.encoder.experts == 1:
            # An expert that is alone has nothing to be weighed against.
            alone = encoding.vectors[:, 0]
            return EntityVectors(alone, alone)
        questions, answers = (
            self._weighed(encoding.vectors, self.log_weights(encoding, answers=answers)) for answers in (False, True)
        )
        return EntityVectors(questions, answers)

    def without(self, questions: jax.Array, expert: int) -> jax.Array:
        """Questions ``[..., W]``, split over devices or not, in which an expert weighs nothing; reads no parameters."""
        width = self.encoder.width
        if self.score.linear:
            return questions.at[..., expert * width : (expert + 1) * width].set(0)
        # The exponential of it is 0 in float32.
        return questions.at[..., self.encoder.structure_width + expert].set(-1000.0)

    def query(self, questions: jax.Array, relations: jax.Array) -> jax.Array:
        """Query vectors ``[B, W]`` for questions ``[B, W]`` and relation ids ``[B]`` in [0, 2R), for ``match``."""
        if self.encoder.experts == 1:
            return self.expert_queries(questions[:, None], relations)[0][:, 0]
        vectors, weights = self._apart(questions)
        queries, weights = self.expert_queries(vectors, relations)[0], weights + self.fusion.relation(relations)
        return self._weighed(queries, weights)

    def match(self, queries: jax.Array, answers: jax.Array) -> jax.Array:
        """Fused scores ``[B, C]`` of queries ``[B, W]`` and answers ``[C, W]``; reads no parameters."""
        if self.encoder.experts == 1 or self.score.linear:
            return self.score.match(queries, answers)
        (q, of_queries), (t, of_answers) = self._apart(queries), self._apart(answers)
        return sum(
            jnp.exp(of_queries[:, j, None] + of_answers[:, j]) * self.score.match(q[:, j], t[:, j])
            for j in range(self.encoder.experts)
        )

    def pair(self, queries: jax.Array, answers: jax.Array) -> jax.Array:
        """The same row by row: ``[B, W], [B, W] -> [B]``."""
        if self.encoder.experts == 1 or self.score.linear:
            return self.score.pair(queries, answers)
        (q, of_queries), (t, of_answers) = self._apart(queries), self._apart(answers)
        return jnp.sum(jnp.exp(of_queries + of_answers) * self.score.pair(q, t), axis=1)

    def _weighed(self, vectors: jax.Array, weights: jax.Array) -> jax.Array:
        """``[n, H, d]`` by log weights ``[n, H]``: ``[n, W]``."""
        if self.score.linear:
            return (vectors * jnp.exp(weights)[:, :, None]).reshape(len(vectors), -1)
        return jnp.concatenate([vectors.reshape(len(vectors), -1), weights], axis=1)

    def _apart(self, joined: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The way back: vectors ``[n, H, d]`` and the log weights ``[n, H]`` they still want."""
        count, experts = len(joined), self.encoder.experts
        if self.score.linear:
            return joined.reshape(count, experts, -1), jnp.zeros((count, experts), joined.dtype)
        return joined[:, :-experts].reshape(count, experts, -1), joined[:, -experts:]

    def __call__(self, carried: Carried) -> None:
        """Touches every parameter once, for ``init``."""
        encoding = self.encode(carried)
        self.fusion(encoding.vectors, encoding.has, encoding.evidence)
        self.expert_queries(encoding.vectors[:1], jnp.zeros((1,), jnp.int32))


def init_params(model: MoCME, key: jax.Array, rows: int) -> Params:
    """Initial parameters, with so many rows in the structure table.

    A row's initial value does not depend on how many there are.
    """
    encoder = model.encoder
    model_key, table_key = jax.random.split(key)
    nobody = Carried(
        jnp.zeros((2, encoder.structure_width)),
        tuple(jnp.zeros((2, width)) for width in encoder.widths),
        jnp.ones((2, encoder.modalities), bool),
        jnp.zeros((2,)),
    )
    table = STRUCTURE_INIT * jax.random.normal(table_key, (rows, encoder.structure_width))
    return Params(model.init(model_key, nobody), table)
