"""The Flax module ``MoCME``: encoders and relations of the experts, and the fusion of their scores."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mocme_jax.method.complementarity import Fusion
from mocme_jax.method.encoder import STRUCTURE_INIT, Carried, Encoder, Encoding
from mocme_jax.method.scoring import Score
from mocme_jax.method.vector_fusion import VectorFusion

RELATION_INIT = 0.001
"""Initial standard deviation of the relation table. Phases are uniform instead."""


class Params(NamedTuple):
    """All learned parameters.

    Attributes:
      model: the Flax variables of ``MoCME``, replicated on every device.
      structure: the structure table ``[N, H d]``, one row per entity. It may be sharded over devices.
    """

    model: Any
    structure: jax.Array


class EntityVectors(NamedTuple):
    """Entities as one vector per role, in which the vectors of all experts are weighted for the entity.

    The score of a triple is a function of the head's vector in ``questions``, the relation, and the tail's vector in
    ``answers``; see ``MoCME.query`` and ``MoCME.match``.

    Attributes:
      questions: ``[N, W]``, the entities as the known entity of a query.
      answers: ``[N, W]``, the entities as candidate answers.
    """

    questions: jax.Array
    answers: jax.Array


def _uniform_phases(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jax.random.uniform(key, shape, minval=-np.pi, maxval=np.pi)


class MoCME(nn.Module):
    """The model. Call its methods through ``apply(..., method="encode")`` and so on.

    Each weight is a product of a factor of the entity and a factor of the relation. If scores are linear in the
    vectors, the fused model is therefore one model of the same kind with width W = H d, whose entity and relation rows
    are multiplied by the weights. Distances are not linear. For them the H log weights are appended to the vectors, so
    W = H (d + 1). The same holds for ``questions`` if the fusion's weights are no such product (``separable``).

    Attributes:
      encoder: the entity encoder, unbound.
      fusion: the fusion, unbound.
      num_relations: the number of relations R. The relation table has 2R rows; row r + R is the reciprocal relation of
        r.
      score: the score function of each expert.
      core_width: the width d_r of TuckER's core; unused by other score functions.
    """

    encoder: Encoder | VectorFusion
    fusion: Fusion
    num_relations: int
    score: Score
    core_width: int

    @property
    def vector_width(self) -> int:
        """The width W of an entity's vector in one role; see ``EntityVectors``."""
        weights = 0 if self.score.linear or self.encoder.experts == 1 else self.encoder.experts
        return self.encoder.structure_width + weights

    def setup(self):
        """Create the relations' parameters."""
        width, experts = self.encoder.width, self.encoder.experts
        own = self.score.relation_width(width, self.core_width)
        init = _uniform_phases if self.score.phases else nn.initializers.normal(RELATION_INIT)
        self.relation = self.param("relation", init, (2 * self.num_relations, experts * own))
        if self.score.has_core:
            self.core = self.param("core", nn.initializers.normal(width**-0.5), (experts, own, width, width))

    def encode(self, carried: Carried) -> Encoding:
        """Encode entities with every expert; see ``Encoder``."""
        return self.encoder(carried)

    def expert_queries(self, vectors: jax.Array, relations: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Compute the query vectors of each expert.

        Args:
          vectors: ``[B, H, d]``, the experts' encodings of the heads.
          relations: int ``[B]`` in [0, 2R).

        Returns:
          The query vectors ``[B, H, d]``, to be matched with each expert's own tails, and the relation rows
          ``[B, H, d_r]``.
        """
        rows = self.relation[relations].reshape(*vectors.shape[:2], -1)
        if not self.score.has_core:
            return self.score.query(vectors, rows, None), rows
        return jax.vmap(self.score.query, in_axes=(1, 1, 0), out_axes=1)(vectors, rows, self.core), rows

    def log_weights(self, encoding: Encoding, *, answers: bool) -> jax.Array:
        """Compute the log weights ``[n, H]`` of the experts for n entities in one role; see ``Fusion.entity``."""
        return self.fusion.entity(encoding.vectors, encoding.has, encoding.evidence, answers=answers)

    def relation_log_weights(self, relations: jax.Array) -> jax.Array:
        """Compute the log weights ``[n, H]`` of the experts for relations ``[n]`` in [0, 2R)."""
        return self.fusion.relation(relations)

    def query_log_weights(self, encoding: Encoding, relations: jax.Array) -> jax.Array:
        """Compute the log weights ``[n, H]`` of the experts for queries of n entities and relations ``[n]``."""
        return self.fusion.query(self.log_weights(encoding, answers=False), relations)

    def shares(self, encoding: Encoding, relations: jax.Array | None = None) -> jax.Array:
        """Compute each expert's share of the weights of entities in queries.

        Args:
          encoding: n encoded entities.
          relations: int ``[n]`` in [0, 2R), the relation of each query; None to leave out the relation's weights.

        Returns:
          ``[n, H]``; rows sum to 1.
        """
        if relations is None:
            return jax.nn.softmax(self.log_weights(encoding, answers=False), axis=-1)
        return jax.nn.softmax(self.query_log_weights(encoding, relations), axis=-1)

    def fusion_penalty(self) -> jax.Array:
        """Compute the penalty of the fusion, a scalar; see ``Fusion.penalty``."""
        return self.fusion.penalty()

    def entity_vectors(self, encoding: Encoding) -> EntityVectors:
        """Convert encoded entities to one vector ``[n, W]`` per role."""
        if self.encoder.experts == 1:
            # A single expert needs no weight.
            alone = encoding.vectors[:, 0]
            return EntityVectors(alone, alone)
        asked, answering = (self.log_weights(encoding, answers=answers) for answers in (False, True))
        questions = self._weighed(encoding.vectors, asked, at_once=self._weighs_questions)
        return EntityVectors(questions, self._weighed(encoding.vectors, answering, at_once=self.score.linear))

    def without(self, questions: jax.Array, expert: int | jax.Array) -> jax.Array:
        """Return query-role vectors in which one expert has weight 0. Reads no parameters.

        Args:
          questions: ``[..., W]``, from ``EntityVectors.questions``; may be sharded over devices.
          expert: the position of the expert in [0, H); -1: no expert.
        """
        columns = jnp.arange(questions.shape[-1])
        if self._weighs_questions:
            return jnp.where(columns // self.encoder.width == expert, 0, questions)
        # Its exponential is 0 in float32.
        hidden = (columns == self.encoder.structure_width + expert) & (expert >= 0)
        return jnp.where(hidden, -1000.0, questions)

    def query(self, questions: jax.Array, relations: jax.Array) -> jax.Array:
        """Compute query vectors for ``match`` and ``pair``.

        Args:
          questions: ``[B, W]``, the known entities, from ``EntityVectors.questions``.
          relations: int ``[B]`` in [0, 2R).

        Returns:
          ``[B, W]``.
        """
        if self.encoder.experts == 1:
            return self.expert_queries(questions[:, None], relations)[0][:, 0]
        vectors, weights = self._apart(questions, weighed=self._weighs_questions)
        queries, weights = self.expert_queries(vectors, relations)[0], self.fusion.query(weights, relations)
        return self._weighed(queries, weights, at_once=self.score.linear)

    def match(self, queries: jax.Array, answers: jax.Array) -> jax.Array:
        """Compute the fused scores of all queries and candidates. Reads no parameters.

        Args:
          queries: ``[B, W]``, from ``query``.
          answers: ``[C, W]``, from ``EntityVectors.answers``.

        Returns:
          ``[B, C]``.
        """
        if self.encoder.experts == 1 or self.score.linear:
            return self.score.match(queries, answers)
        (q, of_queries), (t, of_answers) = (self._apart(one, weighed=False) for one in (queries, answers))
        return sum(
            jnp.exp(of_queries[:, j, None] + of_answers[:, j]) * self.score.match(q[:, j], t[:, j])
            for j in range(self.encoder.experts)
        )

    def pair(self, queries: jax.Array, answers: jax.Array) -> jax.Array:
        """Compute the fused scores row by row. Reads no parameters.

        Args:
          queries: ``[B, W]``, from ``query``.
          answers: ``[B, W]``, from ``EntityVectors.answers``.

        Returns:
          ``[B]``.
        """
        if self.encoder.experts == 1 or self.score.linear:
            return self.score.pair(queries, answers)
        (q, of_queries), (t, of_answers) = (self._apart(one, weighed=False) for one in (queries, answers))
        return jnp.sum(jnp.exp(of_queries + of_answers) * self.score.pair(q, t), axis=1)

    @property
    def _weighs_questions(self) -> bool:
        """Whether ``EntityVectors.questions`` are multiplied by their weights, before the relation is known."""
        return self.score.linear and self.fusion.separable

    def _weighed(self, vectors: jax.Array, weights: jax.Array, *, at_once: bool) -> jax.Array:
        """Join vectors ``[n, H, d]`` with log weights ``[n, H]`` to ``[n, W]``: their product, or side by side."""
        if at_once:
            return (vectors * jnp.exp(weights)[:, :, None]).reshape(len(vectors), -1)
        return jnp.concatenate([vectors.reshape(len(vectors), -1), weights], axis=1)

    def _apart(self, joined: jax.Array, *, weighed: bool) -> tuple[jax.Array, jax.Array]:
        """Invert ``_weighed``: return vectors ``[n, H, d]`` and the log weights ``[n, H]`` that are not yet applied."""
        count, experts = len(joined), self.encoder.experts
        if weighed:
            return joined.reshape(count, experts, -1), jnp.zeros((count, experts), joined.dtype)
        return joined[:, :-experts].reshape(count, experts, -1), joined[:, -experts:]

    def __call__(self, carried: Carried) -> None:
        """Use every parameter once, for ``init``."""
        encoding = self.encode(carried)
        self.fusion(encoding.vectors, encoding.has, encoding.evidence)
        self.expert_queries(encoding.vectors[:1], jnp.zeros((1,), jnp.int32))


def init_params(model: MoCME, key: jax.Array, rows: int) -> Params:
    """Make initial parameters.

    Args:
      model: the model.
      key: PRNG key.
      rows: the number of rows of the structure table. The initial value of a row does not depend on it.
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
