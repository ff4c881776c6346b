"""A graph made poorer on purpose, to see what a model does without: noise for features, missing rows, fewer triples.

What is taken at a share is a subset of what is taken at a larger one, by the same seed.
"""

import numpy as np

from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph, Modality
from mocme_jax.errors import UserError


def degrade(
    graph: KnowledgeGraph,
    *,
    noise_in: str | None = None,
    noise: float = 0.0,
    missing: float = 0.0,
    triples: float = 1.0,
    seed: int = 0,
) -> KnowledgeGraph:
    """The graph with noise in one modality, rows missing in all of them, and a share of its training triples.

    Args:
      graph: with its dev split settled; dev and test stay as they are.
      noise_in: the feature modality that gets the noise.
      noise: share of its rows, in [0, 1], that are replaced by normal noise with its columns' means and deviations.
      missing: share of each feature modality's rows, in [0, 1], that are removed.
      triples: share of the training triples, in (0, 1], that is kept.
      seed: of the choices.

    Raises:
      UserError: there is no such modality, or nothing is left to train on.
    """
    modalities = graph.modalities
    if noise:
        names = [modality.name for modality in modalities]
        if noise_in not in names:
            raise UserError(f"{graph.name}: noise in {noise_in}, but its feature modalities are {', '.join(names)}")
        modalities = [noisy(m, noise, seed) if m.name == noise_in else m for m in modalities]
    if missing:
        modalities = [thinned(modality, missing, [seed, place]) for place, modality in enumerate(modalities)]
    train = graph.train
    if triples < 1:
        kept = np.sort(np.random.default_rng(seed).permutation(len(train))[: round(triples * len(train))])
        train = np.asarray(train[kept])
        if not len(train):
            raise UserError(f"{graph.name}: {triples:g} of {len(graph.train):,} training triples leaves none")
    return graph.replace(modalities=tuple(modalities), train=train)


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
