"""The calibration of a run, which is fitted on dev, evaluated on test, and saved in the run's folder."""

import json
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from mocme_jax.data.graph.known_tails import reciprocal
from mocme_jax.data.readers.json_file import read_json
from mocme_jax.data.readers.json_shape import misfit
from mocme_jax.errors import UserError
from mocme_jax.serving import compiled_queries as programs
from mocme_jax.serving import probability
from mocme_jax.serving.completion import Served, complete_questions, in_batches, score_relations
from mocme_jax.serving.probability import UNFITTED, Curve, Fit, Weighed
from mocme_jax.serving.top_candidates import pairs_of
from mocme_jax.training.checkpoints.run_folder import write_json
from mocme_jax.training.checkpoints.sealed_checkpoints import digest_of

FILE = "calibration.json"
MEANING = (
    "the probability that this candidate is the missing answer, if the query has exactly one missing answer; "
    "candidates are all entities except the other known answers"
)
_SHARE = (float, None)
_JUDGED = {
    "questions": int,
    "error": float,
    "by_chance": float,
    "mean": _SHARE,
    "right": _SHARE,
    "above": {str(threshold): {"questions": int, "right": _SHARE} for threshold in probability.THRESHOLDS},
}
REPORT = {
    "meaning": str,
    "own_fits": int,
    "splits": {str: dict.fromkeys(("before", "after", "after, first ten", "relations"), _JUDGED)},
}
"""The shape of a report; see ``json_shape``."""

# The number of best answers per query whose probabilities are evaluated, in addition to the very best.
_LISTED = 10


class Calibration(NamedTuple):
    """The parameters that turn a run's scores into probabilities.

    Attributes:
      answers: sharpness and doubt ``[2R]`` of entity queries, by relation in [0, 2R).
      answers_curve: the curve of entity queries; see ``probability``.
      relations: sharpness and doubt of relation queries.
      relations_curve: the curve of relation queries.
      missing: ``[2R, 2]``, how often a query of each relation has an answer in dev. Column 0: train has no answer of
        the query; column 1: it has some.
      report: how it was fitted and evaluated, ready for JSON.
    """

    answers: Fit
    answers_curve: Curve
    relations: Fit
    relations_curve: Curve
    missing: np.ndarray
    report: dict


def identity_of(fingerprint: str, position: dict) -> dict:
    """Return what a calibration belongs to: the graph, and the epoch of the checkpoint."""
    return {"fingerprint": fingerprint, "best_epoch": position["best_epoch"], "best_mrr": position["best_mrr"]}


def read_calibration(workdir: Path, identity: dict) -> Calibration | None:
    """Read the calibration in a run's folder; None if there is none of this model, or if it was changed."""
    path = Path(workdir) / FILE
    try:
        kept = read_json(path)
        if kept.pop("digest", None) != digest_of(kept) or kept["of"] != identity:
            return None
        parts = [kept["answers"], kept["relations"]]
        fits, curves = (
            [kind(*(np.array(part[name], np.float64) for name in kind._fields)) for part in some]
            for kind, some in ((Fit, parts), (Curve, [part["curve"] for part in parts]))
        )
        if misfit(kept["report"], REPORT):
            return None  # written by an earlier version, or by somebody else
        found = Calibration(
            fits[0], curves[0], fits[1], curves[1], np.array(kept["missing"], np.float64), kept["report"]
        )
    except (UserError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return None
    return found if _is_possible(found) else None


def _is_possible(found: Calibration) -> bool:
    """Return whether a fit can produce these numbers, because the digest alone does not prove it."""
    queries = found.answers.sharpness.shape
    return (
        len(queries) == 1
        and found.answers.doubt.shape == queries
        and found.missing.shape == (*queries, 2)
        and found.relations.sharpness.shape == found.relations.doubt.shape == ()
        and all(np.isfinite(part).all() for part in (*found.answers, *found.relations, found.missing))
        and all(map(_is_rising, (found.answers_curve, found.relations_curve)))
    )


def _is_rising(curve: Curve) -> bool:
    inside = all(part.ndim == 1 and len(part) and ((part >= 0) & (part <= 1)).all() for part in curve)
    return inside and len(curve.share) == len(curve.right) and all((np.diff(part) >= 0).all() for part in curve)


def write_calibration(workdir: Path, identity: dict, calibration: Calibration) -> bool:
    """Write a calibration into a run's folder; return False if it cannot be written."""
    kept = {"of": identity, "report": calibration.report, "missing": calibration.missing}
    for name in ("answers", "relations"):
        fit, curve = getattr(calibration, name), getattr(calibration, f"{name}_curve")
        kept[name] = {**fit._asdict(), "curve": curve._asdict()}
    kept = json.loads(json.dumps(kept, allow_nan=False, default=np.ndarray.tolist))
    try:
        write_json(Path(workdir) / FILE, kept | {"digest": digest_of(kept)})
    except UserError:
        return False
    return True


def calibrate(served: Served, train: np.ndarray, dev: np.ndarray, test: np.ndarray) -> Calibration:
    """Fit a calibration on dev, and evaluate it on dev and test.

    Args:
      train: int32 ``[T, 3]``.
      dev: int32 ``[T, 3]``.
      test: int32 ``[T, 3]``; may be empty.
    """
    relations = served.model.num_relations
    asked = reciprocal(dev, relations)
    fits, own = probability.fit_groups(_weigh(served, asked), asked[:, 1], 2 * relations)
    share, right = _listed(served, asked, fits)
    curve = probability.fit_curve(share[:, 0], right[:, 0])
    between = _between(served, dev)
    relation_fit = probability.fit_weighed(_weigh_relations(dev, *between))
    relation_share, relation_right = _top_relations(dev, *between, relation_fit)
    relation_curve = probability.fit_curve(relation_share, relation_right)
    report = {"meaning": MEANING, "own_fits": int(own.sum()), "splits": {}}
    plain = _unfitted(relations)
    for name, triples in (("dev", dev), ("test", test)):
        if not len(triples):
            continue
        asked = reciprocal(triples, relations)
        before = _listed(served, asked, plain)
        after = (share, right) if name == "dev" else _listed(served, asked, fits)
        if name != "dev":
            relation_share, relation_right = _top_relations(triples, *_between(served, triples), relation_fit)
        report["splits"][name] = {
            "before": probability.reliability(before[0][:, 0], before[1][:, 0]),
            "after": probability.reliability(curve(after[0][:, 0]), after[1][:, 0]),
            "after, first ten": probability.reliability(curve(after[0]).ravel(), after[1].ravel()),
            "relations": probability.reliability(relation_curve(relation_share), relation_right),
        }
    missing = missing_shares(train, dev, served.facts.num_entities, relations)
    return Calibration(fits, curve, relation_fit, relation_curve, missing, report)


def judged(served: Served, calibration: Calibration, triples: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the top answers of both queries of each triple, as ``report`` evaluates them.

    Args:
      triples: int32 ``[T, 3]``.

    Returns:
      Their probabilities, float64 ``[2T]``, ``before`` and ``after`` the fit; and bool ``[2T]``, whether they are
      right.
    """
    asked = reciprocal(triples, served.model.num_relations)
    before, _ = _listed(served, asked, _unfitted(served.model.num_relations))
    after, right = _listed(served, asked, calibration.answers)
    return {"before": before[:, 0], "after": calibration.answers_curve(after[:, 0])}, right[:, 0]


def _unfitted(relations: int) -> Fit:
    return Fit(*(np.full(2 * relations, value) for value in UNFITTED))


def missing_shares(train: np.ndarray, dev: np.ndarray, num_entities: int, num_relations: int) -> np.ndarray:
    """Estimate from dev how often a query has a missing answer: float64 ``[2R, 2]``.

    This is the share of queries (entity, relation in [0, 2R)) that dev answers. Column 0: queries without an answer in
    train; column 1: queries with some. Each share is smoothed with one additional query at the overall share.

    Args:
      train: int ``[T, 3]``.
      dev: int ``[T, 3]``.
      num_entities: the number of entities N.
      num_relations: the number of relations R.
    """
    count = 2 * num_relations
    places = [
        np.unique(asked[:, 1].astype(np.int64) * num_entities + asked[:, 0])
        for asked in (reciprocal(triples, num_relations) for triples in (train, dev))
    ]
    known = np.bincount(places[0] // num_entities, minlength=count)
    answered = places[1] // num_entities
    again = np.isin(places[1], places[0])
    overall = len(places[1]) / (count * num_entities)
    share = [
        (np.bincount(answered[chosen], minlength=count) + overall) / (questions + 1)
        for chosen, questions in ((~again, num_entities - known), (again, known))
    ]
    return np.stack(share, axis=1)


def _weigh(served: Served, asked: np.ndarray) -> Weighed:
    """Compute the terms of the likelihood of queries with answers ``[Q, 3]``, at every sharpness of the grid."""

    def weigh(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        known, sharpnesses = served.facts.no_candidates(rows), jnp.asarray(probability.SHARPNESSES)
        pairs = pairs_of(*known, len(rows))
        gold, log_totals = programs.weigh_questions(*served.scorer, rows, pairs, sharpnesses)
        return gold, log_totals.T, served.facts.num_entities - np.bincount(known[0], minlength=len(rows))

    gold, log_totals, others = in_batches(weigh, asked)
    return Weighed(gold.astype(np.float64), log_totals.T.astype(np.float64), others)


def _listed(served: Served, asked: np.ndarray, fits: Fit) -> tuple[np.ndarray, np.ndarray]:
    """Return the shares of each query's first answers, float ``[Q, k]``, and whether they are right, bool ``[Q, k]``.

    Other known answers are filtered.
    """
    k = min(_LISTED, served.facts.num_entities)
    best = complete_questions(served, asked[:, :2], k, fits.sharpness, asked=asked[:, 2])
    fit = Fit(*(np.asarray(value)[asked[:, 1], None] for value in fits))
    share = probability.shares(best.scores, best.log_totals[:, None], best.others[:, None], fit, counted=True)
    return np.where(best.ids >= 0, share, 0), best.ids == asked[:, 2:]


def _between(served: Served, triples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores ``[T, R]`` of the relations between each triple's ends, and which other ones are known."""
    scores = score_relations(served, triples[:, [0, 2]]).astype(np.float64)
    every = np.arange(scores.shape[1])
    known = served.facts.where(triples[:, :1], every[None], triples[:, 2:]) >= 0
    known[np.arange(len(triples)), triples[:, 1]] = False
    return scores, known


def _weigh_relations(triples: np.ndarray, scores: np.ndarray, known: np.ndarray) -> Weighed:
    rows = np.arange(len(triples))
    gold = scores[rows, triples[:, 1]]
    others = np.where(known, -np.inf, scores)
    others[rows, triples[:, 1]] = -np.inf
    totals = [np.logaddexp.reduce(sharpness * others, axis=1) for sharpness in probability.SHARPNESSES.tolist()]
    return Weighed(gold, np.array(totals), np.isfinite(others).sum(axis=1))


def _top_relations(
    triples: np.ndarray, scores: np.ndarray, known: np.ndarray, fit: Fit
) -> tuple[np.ndarray, np.ndarray]:
    """Return the share ``[T]`` of the best relation between each triple's ends, and whether it is the triple's."""
    scores = np.where(known, -np.inf, scores)
    total = np.logaddexp.reduce(fit.sharpness * scores, axis=1)
    top = np.argmax(scores, axis=1)
    best = scores[np.arange(len(triples)), top]
    return probability.shares(best, total, (~known).sum(axis=1), fit, counted=True), top == triples[:, 1]
