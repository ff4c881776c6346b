"""MoCME as one Flax module: the encoder, the relations, and the score function's core."""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mocme_jax.model.encoder import Encoder, Encoding, Inputs, Panel
from mocme_jax.model.scoring import SCORES


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
      score: a word of ``SCORES``.
      core_width: d_r of TuckER's core; unused by the others.
      relation_init: standard deviation of the relation table at the start (RotatE's phases are uniform).
      features_in: where feature modalities take part: ``all`` encodings, ``questions`` (entities that are asked about,
        not answers), or ``heads`` (entities that are asked for their tails).
    """

    encoder: Encoder
    num_relations: int
    score: str
    core_width: int
    relation_init: float
    features_in: str

    def setup(self):
        score = SCORES[self.score]
        width = self.encoder.width
        shape = (2 * self.num_relations, score.relation_width(width, self.core_width))
        init = _uniform_phases if self.score == "rotate" else nn.initializers.normal(self.relation_init)
        self.relation = self.param("relation", init, shape)
        if score.has_core:
            self.core = self.param("core", nn.initializers.normal(width**-0.5), (shape[1], width, width))

    def encode_panel(self, inputs: Inputs) -> Panel:
        """The panel's parts; see ``Encoder.encode_panel``."""
        return self.encoder.encode_panel(inputs)

    def encode(
        self,
        inputs: Inputs,
        ids: jax.Array,
        panel: Panel,
        hidden: jax.Array | None = None,
        noise: jax.Array | None = None,
        *,
        answers: bool = False,
    ) -> Encoding:
        """Encodes entities ``[n]`` from all they carry; see ``Encoder``, of ``inputs``, ``panel`` and ``noise`` too.

        Args:
          ids: int32 ``[n]``.
          hidden: bool ``[n]``, True where the structure counts as missing; None hides none.
          answers: encode them as answers. Where features are for questions, those are encoded by their structure
            alone, but for entities whose structure is missing or hidden.
        """
        keep = None
        if hidden is not None:
            keep = jnp.ones((len(ids), self.encoder.modalities), bool).at[:, 0].set(~hidden)
        if answers and self.features_in != "all":
            structure = inputs.present[ids, 0] if hidden is None else inputs.present[ids, 0] & ~hidden
            keep = jnp.broadcast_to(~structure[:, None], (len(ids), self.encoder.modalities)).at[:, 0].set(structure)
        return self.encoder(inputs, ids, panel, keep, noise)

    def structure_alone(self, ids: jax.Array, panel: Panel) -> jax.Array:
        """Entities ``[n]`` as answers by their structure, which all of them must have: ``[n, d]``."""
        return self.encoder.structure_alone(ids, panel)

    def asked(self, vectors: EntityVectors, ids: jax.Array, relations: jax.Array) -> jax.Array:
        """The vectors ``[B, d]`` with which entities are asked about, for relation ids ``[B]`` in [0, 2R)."""
        if self.features_in == "all":
            return vectors.answers[ids]
        questions = vectors.questions[ids]
        if self.features_in == "questions":
            return questions
        return jnp.where((relations < self.num_relations)[:, None], questions, vectors.answers[ids])

    def query(self, heads: jax.Array, relations: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Query vectors for head vectors ``[B, d]`` and relation ids ``[B]`` in [0, 2R).

        Returns:
          ``q [B, d]``, to be matched against tails, and the relations' own rows ``[B, d_r]``.
        """
        rows = self.relation[relations]
        core = self.core if SCORES[self.score].has_core else None
        return SCORES[self.score].query(heads, rows, core), rows

    def __call__(self, inputs: Inputs) -> jax.Array:
        """Touches every parameter once, for ``init``."""
        panel = self.encode_panel(inputs)
        vectors = self.encode(inputs, inputs.panel[:1], panel).vectors
        return self.query(vectors, jnp.zeros((1,), jnp.int32))[0]


def choose_panel(present: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Ids of a panel in which every modality is represented.

    Args:
      present: bool ``[N, M]``, column 0 the structure.
      size: P; at most N are taken.
      seed: of the choice.

    Returns:
      int32 ``[min(P, N)]``, distinct: an equal share a modality of entities that have it, those with the most other
      modalities first, since pairs of modalities are estimated on entities that have both; then any entity.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(present))
    rich = order[np.argsort(-present[order].sum(axis=1), kind="stable")]
    share = -(-size // present.shape[1])
    chosen = [rich[present[rich, m]][:share] for m in range(1, present.shape[1])]
    ids = np.concatenate([*chosen, order])
    _, first = np.unique(ids, return_index=True)
    return ids[np.sort(first)][:size].astype(np.int32)
