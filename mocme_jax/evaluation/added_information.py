"""Complementarity, measured: the information about the answers that a part adds to the others.

    complementarity of a part = E[log p(answer | all parts)] - E[log p(answer | all parts but this one)]

in nats, with the expectation over held-out triples. Both terms are InfoNCE bounds (van den Oord et al., 2018) but for
the log of the number of candidates, which cancels. So this is the drop of the bound where a trained model has to do
without the part. It estimates ``I(part; answer | other parts)`` as far as the model uses it: a part that the model
learned to rely on, though another knows the same, counts too, because the model was not trained without it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mocme_jax.evaluation.metrics import mean_and_margin


class Added(NamedTuple):
    """What a part adds.

    Attributes:
      nats: the mean over triples.
      margin: half the width of the 95% interval around it; see ``mean_and_margin``.
      triples: how many there are.
    """

    nats: float
    margin: float | None
    triples: int


def added_information(whole: np.ndarray, without: np.ndarray) -> Added:
    """What a part adds, from log probabilities of the answers with it and without it.

    Args:
      whole, without: ``[2T]`` in nats: T triples asked for their tails, then the same for their heads. The two
        queries of a triple count as one observation.

    Raises:
      ValueError: there is no triple.
    """
    gains = np.asarray(whole, np.float64) - np.asarray(without, np.float64)
    if not len(gains):
        raise ValueError("no triples to measure information on")
    return Added(*mean_and_margin(gains), len(gains) // 2)


def by_relation(whole: np.ndarray, without: np.ndarray, relations: np.ndarray) -> dict[int, Added]:
    """The same for the triples of each relation ``[T]`` that occurs, the most frequent relation first."""
    found, counts = np.unique(relations, return_counts=True)
    order = found[np.argsort(-counts, kind="stable")]
    pairs = {relation: np.tile(relations == relation, 2) for relation in order.tolist()}
    return {relation: added_information(whole[rows], without[rows]) for relation, rows in pairs.items()}
