"""Probabilities on questions whose true sharpness, doubt and reliability are known."""

import numpy as np
import pytest

from mocme_jax.serving import probability
from mocme_jax.serving.probability import (
    SHARPNESSES,
    Fit,
    Weighed,
    calibration_error,
    error_by_chance,
    fit_curve,
    reliability,
    shares,
)


def drawn(sharpness, doubt, questions=4000, candidates=30, seed=0):
    """Scores ``[Q, n]`` and answers that a model of this sharpness and doubt is right about."""
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal((questions, candidates)) * 3
    chance = np.exp(sharpness * scores)
    chance = doubt / candidates + (1 - doubt) * chance / chance.sum(axis=1, keepdims=True)
    answers = (chance.cumsum(axis=1) > rng.random((questions, 1))).argmax(axis=1)
    return scores, answers, chance


def weighed(scores, answers) -> Weighed:
    rows = np.arange(len(scores))
    gold = scores[rows, answers]
    others = scores.copy()
    others[rows, answers] = -np.inf
    totals = [np.log(np.exp(s * others).sum(axis=1)) for s in SHARPNESSES.astype(np.float64)]
    return Weighed(gold, np.array(totals), np.full(len(scores), scores.shape[1] - 1))


@pytest.mark.parametrize(("place", "doubt"), [(8, 0.0), (11, 0.2), (17, 0.05)])
def test_a_fit_finds_what_the_answers_were_drawn_from(place, doubt):
    scores, answers, _ = drawn(float(SHARPNESSES[place]), doubt)
    fit = probability.fit_weighed(weighed(scores, answers))
    assert abs(int(np.argmin(abs(SHARPNESSES - fit.sharpness))) - place) <= 1
    assert fit.doubt == pytest.approx(doubt, abs=0.05)


def test_shares_are_the_chances_and_sum_to_one():
    scores, _, chance = drawn(0.7, 0.1, questions=20)
    total = np.log(np.exp(0.7 * scores).sum(axis=1, keepdims=True))
    found = shares(scores, total, np.full((20, 1), 30), Fit(0.7, 0.1), counted=True)
    np.testing.assert_allclose(found, chance, rtol=1e-9)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    # A candidate that is not counted yet joins the others.
    without = np.log(np.exp(0.7 * scores[:, 1:]).sum(axis=1))
    one = shares(scores[:, 0], without, np.full(20, 29), Fit(0.7, 0.1), counted=False)
    np.testing.assert_allclose(one, chance[:, 0], rtol=1e-9)


def test_groups_with_enough_questions_have_a_fit_of_their_own():
    first, second = drawn(float(SHARPNESSES[6]), 0.0, 1500), drawn(float(SHARPNESSES[16]), 0.0, 1500, seed=1)
    few = drawn(1.0, 0.0, 5, seed=2)
    scores, answers = (np.concatenate(parts) for parts in zip(*(x[:2] for x in (first, second, few)), strict=True))
    groups = np.repeat([0, 2, 3], [1500, 1500, 5])
    fits, own = probability.fit_groups(weighed(scores, answers), groups, 4)
    assert own.tolist() == [True, False, True, False]
    assert fits.sharpness[0] < fits.sharpness[1] == fits.sharpness[3] < fits.sharpness[2]


def test_a_curve_rises_and_mends_overconfidence():
    rng = np.random.default_rng(0)
    share = rng.random(6000)
    right = rng.random(6000) < share**2
    curve = fit_curve(share, right)
    ends = curve(np.linspace(0, 1, 101))
    assert ends[0] == 0
    assert (np.diff(ends) >= 0).all()
    assert ends[-1] <= 1
    fresh = rng.random(6000)
    truth = rng.random(6000) < fresh**2
    assert calibration_error(fresh, truth) > 0.1
    assert calibration_error(curve(fresh), truth) < 0.03


def test_the_error_is_the_mean_gap_of_the_bins():
    confidence = np.array([0.1, 0.1, 0.9, 0.9])
    right = np.array([0.0, 1.0, 1.0, 1.0])
    assert calibration_error(confidence, right, bins=2) == pytest.approx(0.5 * 0.4 + 0.5 * 0.1)
    assert calibration_error(np.array([1.0, 1.0]), np.array([1.0, 0.0])) == pytest.approx(0.5)
    figures = reliability(confidence, right)
    assert figures["above"]["0.7"] == {"questions": 2, "right": 1.0}
    assert figures["above"]["0.95"] == {"questions": 0, "right": None}


@pytest.mark.parametrize("answers", [200, 2000])
def test_the_error_by_chance_is_what_right_probabilities_have(answers):
    rng = np.random.default_rng(0)
    confidence = rng.beta(0.7, 0.5, answers)
    drawn = [calibration_error(confidence, rng.random(answers) < confidence) for _ in range(300)]
    assert error_by_chance(confidence) == pytest.approx(np.mean(drawn), rel=0.03)
    assert error_by_chance(np.array([0.0, 1.0])) == 0.0
