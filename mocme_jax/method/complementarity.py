"""CMKF: complementarity-guided fusion of what the experts say.

Each of H experts encodes every entity, asks and answers for itself; expert 0 is the structure. The fused score of a
triple is ``sum_j question_j(h, r) answer_j(t) score_j(h, r, t)``, with positive weights that are factors of one number
for the entity and one for the relation. What an expert says is worth what it adds to the others about answers that the
experts have not learned by heart: complementarity's weights are fitted on triples that nothing else is trained on, by
the InfoNCE bound on what fused scores tell of the answers (``mutual_information.infonce_bound``).
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

SHRINK = 0.01
"""Weight of the squared terms of relations in the fit: a rare relation's weights are drawn to those of all."""


class Fusion(nn.Module):
    """How experts are weighed; a subclass says by what. Weights are given as logarithms.

    Attributes:
      experts: H.
      width: d of an expert.
      relations: R.
    """

    experts: int
    width: int
    relations: int

    fitted_on = "nothing"
    """What the parameters are fitted on: ``held_out`` triples, ``train`` triples, or ``nothing``, without any."""

    def entity(self, vectors: jax.Array, has: jax.Array, evidence: jax.Array, *, answers: bool) -> jax.Array:
        """Log weights ``[n, H]`` of the experts for entities that are asked about, or that answer.

        Args:
          vectors: ``[n, H, d]``, the experts' own encodings.
          has: bool ``[n, H]``, whether an expert has features to encode; False for the structure.
          evidence: ``[n]``, log(1 + training triples of the entity).
          answers: whether the entities answer.
        """
        raise NotImplementedError

    def relation(self, relations: jax.Array) -> jax.Array:
        """Log weights ``[n, H]`` of the experts for relations ``[n]`` in [0, 2R)."""
        return jnp.zeros((len(relations), self.experts))

    def penalty(self) -> jax.Array:
        """What is added to the loss of the fit, a scalar."""
        return jnp.zeros(())

    def __call__(self, vectors: jax.Array, has: jax.Array, evidence: jax.Array) -> None:
        """Touches every parameter once, for ``init``."""
        for answers in (False, True):
            self.entity(vectors, has, evidence, answers=answers)
        self.relation(jnp.zeros((1,), jnp.int32))


class Complementarity(Fusion):
    """Log weights are linear in what an expert has and in the evidence, with a term for the relation that is asked.

    ``log question_j = a_j + b_j log(1 + n_h) + c_jr`` and ``log answer_j = a'_j + b'_j log(1 + n_t)``, n being the
    entity's training triples and a one number if it has features for the expert and another if it has not.
    """

    fitted_on = "held_out"

    def setup(self):
        """Creates the parameters, all 0: experts weigh the same at the start."""
        zeros = nn.initializers.zeros
        shape = (2, self.experts)
        self.has = self.param("has", zeros, shape)
        self.lacks = self.param("lacks", zeros, shape)
        self.evidence = self.param("evidence", zeros, shape)
        self.relations_table = self.param("relation", zeros, (2 * self.relations, self.experts))

    def entity(self, vectors, has, evidence, *, answers):
        """See ``Fusion``."""
        side = int(answers)
        return jnp.where(has, self.has[side], self.lacks[side]) + self.evidence[side] * evidence[:, None]

    def relation(self, relations):
        """See ``Fusion``."""
        return self.relations_table[relations]

    def penalty(self):
        """Of the relations' terms."""
        return SHRINK * jnp.sum(self.relations_table**2)


class Mean(Fusion):
    """Every expert weighs the same: no complementarity."""

    def entity(self, vectors, has, evidence, *, answers):
        """See ``Fusion``."""
        return jnp.zeros(has.shape, vectors.dtype)


class Gate(Fusion):
    """Log weights are learned functions of what an expert says: its encoding times a vector of its own."""

    fitted_on = "train"

    def setup(self):
        """Creates the parameters."""
        self.kernel = self.param("kernel", nn.initializers.zeros, (2, self.experts, self.width))

    def entity(self, vectors, has, evidence, *, answers):
        """See ``Fusion``."""
        return jnp.einsum("nhd,hd->nh", vectors, self.kernel[int(answers)])


class Attention(Fusion):
    """Log weights are each expert's encoding times one learned vector for all, over sqrt(d)."""

    fitted_on = "train"

    def setup(self):
        """Creates the parameters."""
        self.kernel = self.param("kernel", nn.initializers.zeros, (2, self.width))

    def entity(self, vectors, has, evidence, *, answers):
        """See ``Fusion``."""
        return jnp.einsum("nhd,d->nh", vectors, self.kernel[int(answers)]) / self.width**0.5


FUSIONS: dict[str, type[Fusion]] = {
    "complementarity": Complementarity,
    "mean": Mean,
    "gate": Gate,
    "attention": Attention,
}


def only_fusion(variables: Any) -> Any:
    """The variables, with gradients into those of the fusion alone."""
    params = variables["params"]
    stopped = {name: part if name == "fusion" else jax.lax.stop_gradient(part) for name, part in params.items()}
    return {**variables, "params": stopped}
