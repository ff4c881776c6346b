"""CMKF: complementarity-guided modality knowledge fusion, which weights the scores of the experts.

Each of the H experts encodes every entity and scores every triple; expert 0 is the structure. The fused score is
``sum_j query_j(h, r) answer_j(t) score_j(h, r, t)``. All weights are positive. Each is a product of one factor for
the entity and one for the relation.

An expert should weigh as much as it adds to the others about answers that the experts have not memorised. Therefore
``Complementarity`` is fitted on dev triples, on which no other parameter is trained. The fit maximises the InfoNCE
bound of the fused scores (``mutual_information.infonce_bound``), less a penalty.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

SHRINK = 3.0
"""Weight of the squared relation terms in the penalty. They draw a rare relation's weights towards those of all."""
SHRINK_COMMON = 0.3
"""Weight of the other squared terms. They keep the weights near 1 if there are only a few dev triples."""

FITTED_ON = ("dev", "train", "nothing")
"""The values of ``Fusion.fitted_on``."""


class Fusion(nn.Module):
    """Base class of fusions, which compute the weights of the experts as logarithms.

    Attributes:
      experts: the number of experts H.
      width: the width d of an expert.
      relations: the number of relations R.
    """

    experts: int
    width: int
    relations: int

    fitted_on = "nothing"
    """The triples that the parameters are fitted on. A fit on ``dev`` starts from the initial parameters."""
    separable = True
    """Whether the weights of a query are a factor of its entity times a factor of its relation."""

    def entity(self, vectors: jax.Array, has: jax.Array, evidence: jax.Array, *, answers: bool) -> jax.Array:
        """Compute the log weights of the experts for entities in one role.

        Args:
          vectors: ``[n, H, d]``, the experts' encodings.
          has: bool ``[n, H]``, whether the expert has features of the entity; False for the structure.
          evidence: ``[n]``, log(1 + number of training triples of the entity).
          answers: True for candidate answers, False for the known entity of a query.

        Returns:
          ``[n, H]``.
        """
        raise NotImplementedError

    def relation(self, relations: jax.Array) -> jax.Array:
        """Compute the log weights ``[n, H]`` of the experts for relations ``[n]`` in [0, 2R)."""
        return jnp.zeros((len(relations), self.experts))

    def query(self, entity: jax.Array, relations: jax.Array) -> jax.Array:
        """Compute the log weights of the experts for queries.

        Args:
          entity: ``[n, H]``, those of the known entities, from ``entity``.
          relations: int ``[n]`` in [0, 2R).

        Returns:
          ``[n, H]``.
        """
        return entity + self.relation(relations)

    def penalty(self) -> jax.Array:
        """Compute the penalty in nats, a scalar that a fit on dev adds to the sum of the losses of all queries."""
        return jnp.zeros(())

    def __call__(self, vectors: jax.Array, has: jax.Array, evidence: jax.Array) -> None:
        """Use every parameter once, for ``init``."""
        for answers in (False, True):
            self.entity(vectors, has, evidence, answers=answers)
        self.relation(jnp.zeros((1,), jnp.int32))


class Complementarity(Fusion):
    """Log weights that are linear in the evidence, with a constant by available features and a term per relation.

    ``log query_j = a_j + b_j log(1 + n_h) + c_jr`` and ``log answer_j = a'_j + b'_j log(1 + n_t)``. Here n_h and n_t
    are the numbers of training triples of the head and the tail. ``a_j`` and ``a'_j`` have one value for entities with
    features for the expert and another for entities without.
    """

    fitted_on = "dev"

    def setup(self):
        """Create the parameters, all 0, so that all experts have the same weight at the start."""
        zeros = nn.initializers.zeros
        shape = (2, self.experts)
        self.has = self.param("has", zeros, shape)
        self.lacks = self.param("lacks", zeros, shape)
        self.evidence = self.param("evidence", zeros, shape)
        self.relations_table = self.param("relation", zeros, (2 * self.relations, self.experts))

    def entity(self, vectors, has, evidence, *, answers):
        """Compute log weights from the evidence and the available features; see ``Fusion.entity``."""
        side = int(answers)
        return jnp.where(has, self.has[side], self.lacks[side]) + self.evidence[side] * evidence[:, None]

    def relation(self, relations):
        """Return the relation terms; see ``Fusion.relation``."""
        return self.relations_table[relations]

    def penalty(self):
        """Compute the penalty, minus the log density of a Gaussian prior up to a constant; see ``Fusion.penalty``."""
        common = sum(jnp.sum(term**2) for term in (self.has, self.lacks, self.evidence))
        return SHRINK * jnp.sum(self.relations_table**2) + SHRINK_COMMON * common


class Mean(Fusion):
    """An ablation: all experts have the same weight."""

    def entity(self, vectors, has, evidence, *, answers):
        """Return zeros; see ``Fusion.entity``."""
        return jnp.zeros(has.shape, vectors.dtype)


class Gate(Fusion):
    """An ablation: log weights are dot products of encodings and learned vectors, one vector per expert and role."""

    fitted_on = "train"

    def setup(self):
        """Create the parameters, all 0."""
        self.kernel = self.param("kernel", nn.initializers.zeros, (2, self.experts, self.width))

    def entity(self, vectors, has, evidence, *, answers):
        """Compute log weights from the encodings; see ``Fusion.entity``."""
        return jnp.einsum("nhd,hd->nh", vectors, self.kernel[int(answers)])


class Attention(Fusion):
    """An ablation: log weights are dot products of encodings and a learned vector per role, divided by sqrt(d)."""

    fitted_on = "train"

    def setup(self):
        """Create the parameters, all 0."""
        self.kernel = self.param("kernel", nn.initializers.zeros, (2, self.width))

    def entity(self, vectors, has, evidence, *, answers):
        """Compute log weights from the encodings; see ``Fusion.entity``."""
        return jnp.einsum("nhd,d->nh", vectors, self.kernel[int(answers)]) / self.width**0.5


class RelationGate(Gate):
    """The gate of MoMoK: a softmax over the experts, with a temperature learned for each relation.

    ``query_j = H softmax_j(u_j · v_j / sigmoid(e_r))`` for the vectors v_j of the known entity, and the same without
    the temperature for an answer (Zhang et al., "Multiple Heads are Better than One", ICLR 2025; arXiv 2405.16869).
    MoMoK gates the experts inside each modality and averages the modalities; here the gate is over all experts. The
    factor H makes the mean weight 1, so training starts as with equal weights. There is no noise in training.
    """

    separable = False

    def setup(self):
        """Create the parameters, all 0."""
        super().setup()
        self.temperature = self.param("temperature", nn.initializers.zeros, (2 * self.relations,))

    def entity(self, vectors, has, evidence, *, answers):
        """Compute log weights of answers, and what ``query`` makes those of queries of."""
        found = super().entity(vectors, has, evidence, answers=answers)
        return _mean_one(found) if answers else found

    def query(self, entity, relations):
        """Compute log weights of queries; see ``Fusion.query``."""
        return _mean_one(entity / jax.nn.sigmoid(self.temperature[relations])[:, None])


def _mean_one(logits: jax.Array) -> jax.Array:
    """Return the logarithm of H times the softmax over H experts."""
    return jax.nn.log_softmax(logits, axis=-1) + jnp.log(float(logits.shape[-1]))


FUSIONS: dict[str, type[Fusion]] = {
    "complementarity": Complementarity,
    "mean": Mean,
    "gate": Gate,
    "attention": Attention,
    "relation_gate": RelationGate,
}


def only_fusion(variables: Any) -> Any:
    """Return the variables with gradients stopped for all parameters but those of the fusion."""
    params = variables["params"]
    stopped = {name: part if name == "fusion" else jax.lax.stop_gradient(part) for name, part in params.items()}
    return {**variables, "params": stopped}
