"""Probabilities from scores, and measures of their calibration.

The probability of a candidate assumes that the query has exactly one missing answer, and says how likely it is this
candidate. The candidates are all entities except the other known answers of the query, as in filtered ranking. The
probability of a known answer is computed as if it were not known.

    share(e) = doubt / n + (1 - doubt) * exp(sharpness * score(e)) / sum over the n candidates of exp(sharpness * score)
    p(e)     = curve(share(e))

The sharpness is an inverse temperature (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017). The doubt
is the share of answers that the model cannot predict. Both maximise the likelihood of dev's answers. The curve is
fitted to how often dev's top answers are right (isotonic regression; Zadrozny and Elkan, KDD 2002). Shares sum to 1
over the candidates.
"""

from typing import NamedTuple

import numpy as np

SHARPNESSES = np.round(np.geomspace(0.1, 8.0, 23), 4).astype(np.float32)
DOUBTS = np.array([0.0, 0.003, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.65, 0.8])
# Relations with fewer dev queries in a direction share one fit.
ENOUGH = 100
BINS = 15
THRESHOLDS = (0.5, 0.7, 0.9, 0.95)


class Fit(NamedTuple):
    """The parameters that turn scores into shares; arrays with one entry per query for several queries.

    Attributes:
      sharpness: the inverse temperature.
      doubt: the share of answers that the model cannot predict, in [0, 1].
    """

    sharpness: float | np.ndarray
    doubt: float | np.ndarray


UNFITTED = Fit(1.0, 0.0)


class Weighed(NamedTuple):
    """The terms of the likelihood of Q gold answers, at G values of the sharpness.

    Attributes:
      gold: float64 ``[Q]``, the score of the gold answer.
      log_totals: float64 ``[G, Q]``, the log of the sum of exp(sharpness * score) over the other candidates.
      others: int ``[Q]``, the number of the other candidates.
    """

    gold: np.ndarray
    log_totals: np.ndarray
    others: np.ndarray

    def take(self, chosen: np.ndarray) -> "Weighed":
        """Return some of the queries."""
        return Weighed(self.gold[chosen], self.log_totals[:, chosen], self.others[chosen])


class Curve(NamedTuple):
    """A piecewise linear, increasing function through the points ``(share, right)``.

    Attributes:
      share: float64 ``[n]``.
      right: float64 ``[n]``.
    """

    share: np.ndarray
    right: np.ndarray

    def __call__(self, share: np.ndarray) -> np.ndarray:
        """Return the values of the function, float64 of the argument's shape."""
        return np.interp(share, self.share, self.right)


def fit_curve(share: np.ndarray, right: np.ndarray) -> Curve:
    """Fit how often answers with a given share are right, by isotonic regression through (0, 0).

    Args:
      share: float ``[n]`` in [0, 1].
      right: ``[n]`` in [0, 1], whether the answer is right.
    """
    from scipy.optimize import isotonic_regression

    order = np.argsort(share, kind="stable")
    fitted = isotonic_regression(np.asarray(right, np.float64)[order])
    starts = fitted.blocks
    counts = np.diff(starts)
    # A point in the middle of each level, so that the curve is continuous.
    middle = np.add.reduceat(share[order], starts[:-1]) / counts
    level = fitted.x[starts[:-1]]
    return Curve(np.concatenate([[0.0], middle]), np.concatenate([[0.0], level]))


def shares(
    scores: np.ndarray, log_total: np.ndarray, others: np.ndarray, fit: Fit, *, counted: np.ndarray | bool
) -> np.ndarray:
    """Compute the shares of candidates.

    Args:
      scores: ``[...]``, scores of the candidates.
      log_total: the log of the sum of exp(sharpness * score) over the counted entities, at the fit's sharpness.
      others: the number of the counted entities.
      counted: whether the candidate is among the counted entities; otherwise it is added to them.
    """
    own = np.asarray(fit.sharpness * np.asarray(scores, np.float64))
    total = np.where(counted, log_total, np.logaddexp(log_total, own))
    number = np.maximum(others + ~np.asarray(counted), 1)
    return fit.doubt / number + (1 - fit.doubt) * np.exp(np.minimum(own - total, 0))


def fit_weighed(weighed: Weighed) -> Fit:
    """Return the fit that maximises the likelihood of the gold answers on the grid ``SHARPNESSES`` x ``DOUBTS``."""
    own = SHARPNESSES[:, None].astype(np.float64) * weighed.gold[None]
    share = np.exp(own - np.logaddexp(weighed.log_totals, own))
    uniform = 1.0 / (weighed.others + 1)
    likelihood = np.array(
        [[np.mean(np.log(np.maximum(doubt * uniform + (1 - doubt) * row, 1e-30))) for doubt in DOUBTS] for row in share]
    )
    best, doubt = np.unravel_index(np.argmax(likelihood), likelihood.shape)
    return Fit(float(SHARPNESSES[best]), float(DOUBTS[doubt]))


def fit_groups(weighed: Weighed, groups: np.ndarray, number: int) -> tuple[Fit, np.ndarray]:
    """Fit each group that has enough queries, and make one fit for all other groups.

    Args:
      weighed: Q queries.
      groups: int ``[Q]`` in ``[0, number)``, the group of each query.
      number: the number of groups.

    Returns:
      The fits as arrays ``[number]``, and bool ``[number]``, whether the group has its own fit.
    """
    counts = np.bincount(groups, minlength=number)
    own = counts >= ENOUGH
    few = ~own[groups]
    # With few remaining queries, their fit would be noise.
    shared = fit_weighed(weighed.take(few) if few.sum() >= ENOUGH else weighed)
    fits = [fit_weighed(weighed.take(groups == group)) if own[group] else shared for group in range(number)]
    sharpness, doubt = np.array(fits, np.float64).T
    return Fit(sharpness, doubt), own


class Bins(NamedTuple):
    """Answers in bins by probability; empty bins are left out.

    Attributes:
      confidence: ``[B]``, the mean probability.
      right: ``[B]``, the share of right answers.
      count: ``[B]``, the number of answers.
    """

    confidence: np.ndarray
    right: np.ndarray
    count: np.ndarray


def in_bins(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> Bins:
    """Group answers into bins of equal width by probability."""
    place = _bin_of(confidence, bins)
    count = np.bincount(place, minlength=bins)
    held = count > 0
    sums = [np.bincount(place, np.asarray(value, float), minlength=bins)[held] for value in (confidence, right)]
    return Bins(sums[0] / count[held], sums[1] / count[held], count[held])


def calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> float:
    """Compute the expected calibration error.

    It is the mean over bins of equal width of |mean confidence - share right|, weighted by the number of answers.
    """
    found = in_bins(confidence, right, bins)
    return float(found.count @ np.abs(found.confidence - found.right) / max(len(confidence), 1))


def error_by_chance(confidence: np.ndarray, bins: int = BINS) -> float:
    """Compute the calibration error to expect for this number of answers if the probabilities were exact.

    In a bin, the sum of p minus the number of right answers has mean 0 and variance sum p (1 - p). The mean absolute
    value of a normal variable is sqrt(2 / pi) standard deviations (Roelofs et al., AISTATS 2022).
    """
    variance = np.bincount(_bin_of(confidence, bins), confidence * (1 - confidence), minlength=bins)
    return float(np.sqrt(2 / np.pi * variance).sum() / max(len(confidence), 1))


def _bin_of(confidence: np.ndarray, bins: int) -> np.ndarray:
    return np.minimum((confidence * bins).astype(int), bins - 1)


def reliability(confidence: np.ndarray, right: np.ndarray) -> dict:
    """Return the calibration error, and how often a top answer above some probabilities is right, ready for JSON."""
    above = {}
    for threshold in THRESHOLDS:
        chosen = confidence > threshold
        share = float(right[chosen].mean()) if chosen.any() else None
        above[str(threshold)] = {"questions": int(chosen.sum()), "right": share}
    return {
        "questions": len(confidence),
        "error": calibration_error(confidence, right),
        "by_chance": error_by_chance(confidence),
        "mean": float(confidence.mean()) if len(confidence) else None,
        "right": float(right.mean()) if len(right) else None,
        "above": above,
    }
