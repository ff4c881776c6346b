"""The complementarity of a part (modality or expert): the information about the answers that it adds to the others.

    complementarity of a part = E[log p(answer | all parts)] - E[log p(answer | all parts but this one)]

The unit is nats, and the expectation is over held-out triples. Up to the log of the number of candidates, which
cancels, both terms are InfoNCE bounds (van den Oord et al., 2018). So this is the drop of the bound when a trained
model does without the part. It estimates ``I(part; answer | other parts)`` as far as the model uses the part. The model
is not retrained, so a part on which it relies counts, even if another part holds the same information.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mocme_jax.evaluation.metrics import mean_and_margin


class Added(NamedTuple):
    """The information that a part adds.

    Attributes:
      nats: the mean over triples.
      margin: half the width of the 95% confidence interval; None for fewer than two triples. See ``mean_and_margin``.
      triples: the number of triples.
    """

    nats: float
    margin: float | None
    triples: int


def added_information(whole: np.ndarray, without: np.ndarray) -> Added:
    """Compute the information that a part adds from log probabilities of the answers with and without the part.

    Args:
      whole: ``[2T]`` in nats, with the part: the tail queries of T triples, then their head queries.
      without: ``[2T]`` in nats, without the part.

    The two queries of a triple count as one observation.

    Raises:
      ValueError: there are no triples.
    """
    gains = np.asarray(whole, np.float64) - np.asarray(without, np.float64)
    if not len(gains):
        raise ValueError("no triples to measure information on")
    return Added(*mean_and_margin(gains), len(gains) // 2)


def by_relation(whole: np.ndarray, without: np.ndarray, relations: np.ndarray) -> dict[int, Added]:
    """Compute the information that a part adds for each relation, the most frequent relation first.

    Args:
      whole: see ``added_information``.
      without: see ``added_information``.
      relations: int ``[T]``, the relation of each triple.
    """
    found, counts = np.unique(relations, return_counts=True)
    order = found[np.argsort(-counts, kind="stable")]
    pairs = {relation: np.tile(relations == relation, 2) for relation in order.tolist()}
    return {relation: added_information(whole[rows], without[rows]) for relation, rows in pairs.items()}
