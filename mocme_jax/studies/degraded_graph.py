"""A graph made poorer on purpose, to see what a model does without: noise for features, missing rows, fewer triples.

Each function can be the ``change_graph`` of a study file. What is taken at a share is a subset of what is taken at a
larger one, by the same seed; dev and test stay as they are.
"""

import numpy as np

from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph, Modality
from mocme_jax.errors import UserError


def with_noise(graph: KnowledgeGraph, seed: int, noise: float, noise_in: str | None = None) -> KnowledgeGraph:
    """The graph with normal noise, of its columns' means and deviations, in rows of one modality.

    Args:
      noise: share of the rows, in [0, 1], that are replaced.
      noise_in: the feature modality; not needed where the share is 0.

    Raises:
      UserError: there is no such modality.
    """
    names = [modality.name for modality in graph.modalities]
    if noise and noise_in not in names:
        raise UserError(f"{graph.name}: no modality {noise_in} for the noise; there are {', '.join(names)}")
    return graph.replace(modalities=tuple(noisy(m, noise, seed) if m.name == noise_in else m for m in graph.modalities))


def without_rows(graph: KnowledgeGraph, seed: int, missing: float) -> KnowledgeGraph:
    """The graph without a share ``missing``, in [0, 1], of each feature modality's rows."""
    thin = (thinned(modality, missing, [seed, place]) for place, modality in enumerate(graph.modalities))
    return graph.replace(modalities=tuple(thin))


def with_fewer_triples(graph: KnowledgeGraph, seed: int, triples: float) -> KnowledgeGraph:
    """The graph with a share ``triples``, in (0, 1], of its training triples.

    Raises:
      UserError: nothing is left to train on.
    """
    count = len(graph.train)
    kept = np.sort(np.random.default_rng(seed).permutation(count)[: round(triples * count)])
    if not len(kept):
        raise UserError(f"{graph.name}: {triples:g} of {count:,} training triples is 0 triples; raise the share")
    return graph.replace(train=np.asarray(graph.train[kept]))


def noisy(modality: Modality, share: float, seed: int) -> Modality:
    """With a share of the rows that are present replaced by noise."""
    order_rng, noise_rng = np.random.default_rng(seed).spawn(2)
    rows = np.flatnonzero(modality.present)
    known = modality.features[rows].astype(np.float64)
    # Drawn for all rows, so that a row's noise does not depend on the share.
    drawn = known.mean(axis=0) + known.std(axis=0) * noise_rng.standard_normal(known.shape)
    chosen = order_rng.permutation(len(rows))[: round(share * len(rows))]
    features = modality.features.copy()
    features[rows[chosen]] = drawn[chosen]
    return Modality(modality.name, features, modality.present)


def thinned(modality: Modality, share: float, seed: int | list[int]) -> Modality:
    """With a share of the rows that are present removed."""
    rows = np.flatnonzero(modality.present)
    gone = np.random.default_rng(seed).permutation(rows)[: round(share * len(rows))]
    present = modality.present.copy()
    present[gone] = False
    return Modality(modality.name, np.where(present[:, None], modality.features, 0), present)
