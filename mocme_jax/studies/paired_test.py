"""Whether two models differ in MRR, where both the seeds and the test triples are samples.

A difference that holds for these test triples may be luck of the seeds, and one that holds for every seed may be luck
of the triples. So both are random: the differences ``d [S, T]`` are a table with two crossed random factors, whose mean
has the variance

    (MS_seeds + MS_triples - MS_rest) / (S T)

by the usual mean squares, and degrees of freedom by Satterthwaite (Biometrics Bulletin 1946); it is the analysis of
many readers of many cases (Dorfman, Berbaum and Metz, Investigative Radiology 1992). Where the
estimate falls below that of one factor alone, the larger is taken: the test errs on the side of no difference.
"""

from typing import NamedTuple

import numpy as np
from scipy import stats


class Difference(NamedTuple):
    """``mean``: of the first less the second. ``p``: two-sided, that it is at least as large by chance."""

    mean: float
    p: float | None


def paired_difference(ranks: np.ndarray, reference: np.ndarray) -> Difference:
    """Difference in MRR of two models with the same seeds and test triples.

    Both queries of a triple are averaged first: they are not independent.

    Args:
      ranks, reference: ``[S, 2T]``, tails first, then heads, as ``Evaluator.ranks`` gives them.

    Returns:
      The difference; ``p`` is None for one seed, since nothing is known of other seeds then.
    """
    ranks, reference = np.asarray(ranks, np.float64), np.asarray(reference, np.float64)
    if ranks.shape != reference.shape:
        raise ValueError(f"ranks {ranks.shape} and {reference.shape} are not of the same seeds and triples")
    seeds = len(ranks)
    table = (1 / ranks - 1 / reference).reshape(seeds, 2, -1).mean(axis=1)
    mean, triples = float(table.mean()), table.shape[1]
    if seeds < 2 or triples < 2:
        return Difference(mean, None)
    by_seed, by_triple = table.mean(axis=1), table.mean(axis=0)
    rest = table - by_seed[:, None] - by_triple[None, :] + mean
    squares = np.array(
        [
            triples * np.var(by_seed, ddof=1),
            seeds * np.var(by_triple, ddof=1),
            (rest**2).sum() / ((seeds - 1) * (triples - 1)),
        ]
    )
    freedom = np.array([seeds - 1, triples - 1, (seeds - 1) * (triples - 1)])
    combined = squares[0] + squares[1] - squares[2]
    variance = max(combined, squares[0], squares[1]) / (seeds * triples)
    if variance == 0:
        return Difference(mean, 1.0 if mean == 0 else 0.0)
    degrees = (variance * seeds * triples) ** 2 / np.sum(squares**2 / freedom)
    # A factor that carries all the variance leaves its own degrees of freedom, and no fewer.
    degrees = max(degrees, seeds - 1)
    return Difference(mean, float(2 * stats.t.sf(abs(mean) / np.sqrt(variance), degrees)))
