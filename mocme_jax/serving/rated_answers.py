"""The best answers to queries given by ids, with their scores and probabilities."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from mocme_jax.serving.calibration import Calibration
from mocme_jax.serving.completion import Served, complete_questions, score_relations
from mocme_jax.serving.probability import Fit, shares


@dataclasses.dataclass(frozen=True)
class Answered:
    """Answers to Q queries as arrays.

    Attributes:
      ids: int ``[Q, k]``, best first; -1 if there are fewer answers.
      scores: float ``[Q, k]``.
      probability: float64 ``[Q, k]``; see ``Answer``.
      known: int8 ``[Q, k]``, the position of the split that holds the triple; -1 for none.
      share: float64 ``[Q, k]``, the shares from which the probabilities are; see ``probability``.
    """

    ids: np.ndarray
    scores: np.ndarray
    probability: np.ndarray
    known: np.ndarray
    share: np.ndarray

    def take(self, rows: np.ndarray) -> "Answered":
        """Return the answers to some of the queries."""
        return Answered(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))


def answer_entities(
    served: Served, calibration: Calibration, questions: np.ndarray, k: int, exclude: Sequence[str] = ()
) -> Answered:
    """Return the k best answers of queries for entities.

    Args:
      questions: int32 ``[Q, 2]``, entity and relation in [0, 2R).
      k: the number of answers.
      exclude: splits whose answers are left out.
    """
    fits = calibration.answers
    found = complete_questions(served, questions, k, fits.sharpness, exclude=exclude)
    known = served.facts.where(questions[:, :1], questions[:, 1:], found.ids)
    fit = Fit(*(value[questions[:, 1], None] for value in fits))
    scores = np.where(found.ids >= 0, found.scores, 0)
    share = shares(scores, found.log_totals[:, None], found.others[:, None], fit, counted=known < 0)
    return Answered(found.ids, found.scores, calibration.answers_curve(share), known, share)


def answer_relations(
    served: Served, calibration: Calibration, pairs: np.ndarray, k: int, exclude: Sequence[str] = ()
) -> Answered:
    """Return the k best relations between heads and tails ``[Q, 2]``; other arguments as for ``answer_entities``."""
    scores = score_relations(served, pairs).astype(np.float64)
    known = served.facts.where(pairs[:, :1], np.arange(scores.shape[1])[None], pairs[:, 1:])
    fit = calibration.relations
    total = np.logaddexp.reduce(np.where(known < 0, fit.sharpness * scores, -np.inf), axis=1)
    share = shares(scores, total[:, None], (known < 0).sum(axis=1)[:, None], fit, counted=known < 0)
    kept = np.where(np.isin(known, served.facts.places(exclude)), -np.inf, scores)
    order = np.argsort(-kept, axis=1, kind="stable")[:, :k]
    ids = np.where(np.isfinite(np.take_along_axis(kept, order, axis=1)), order, -1)
    columns = scores, calibration.relations_curve(share), known, share
    return Answered(ids, *(np.take_along_axis(x, order, axis=1) for x in columns))
