"""The paired test against simulated studies whose truth is known, and against SciPy where one factor is left."""

import numpy as np
import pytest
from scipy import stats

from mocme_jax.studies.paired_test import paired_difference


def ranks_of(reciprocal):
    return 1 / reciprocal


def simulated(rng, *, effect=0.0, seeds=5, triples=400, by_seed=0.01, by_triple=0.1, noise=0.2):
    """Reciprocal ranks of two models whose difference has a part of the seed, one of the triple, and noise."""
    base = 0.5 + 0.02 * rng.standard_normal((seeds, 2 * triples))
    part = by_seed * rng.standard_normal((seeds, 1)) + np.tile(by_triple * rng.standard_normal((1, triples)), (1, 2))
    return base + effect + part + noise * rng.standard_normal((seeds, 2 * triples)), base


def test_the_mean_is_the_difference_in_mrr():
    rng = np.random.default_rng(0)
    ranks, reference = rng.integers(1, 50, (3, 80)), rng.integers(1, 50, (3, 80))
    difference = paired_difference(ranks, reference)
    assert difference.mean == pytest.approx((1 / ranks).mean() - (1 / reference).mean())
    assert paired_difference(reference, ranks).mean == pytest.approx(-difference.mean)
    assert paired_difference(reference, ranks).p == pytest.approx(difference.p)


def test_the_same_model_does_not_differ_and_one_seed_says_nothing():
    ranks = np.random.default_rng(0).integers(1, 50, (3, 80))
    assert paired_difference(ranks, ranks) == (0.0, 1.0)
    assert paired_difference(ranks[:1], ranks[1:2]).p is None
    with pytest.raises(ValueError, match="not of the same seeds"):
        paired_difference(ranks, ranks[:2])


@pytest.mark.parametrize("spread", [dict(by_seed=0.02), dict(by_seed=0.0), dict(by_triple=0.0, by_seed=0.02)])
def test_without_a_difference_five_in_a_hundred_are_found_or_fewer(spread):
    rng = np.random.default_rng(1)
    found = np.mean([paired_difference(*map(ranks_of, simulated(rng, **spread))).p < 0.05 for _ in range(400)])
    # Two standard errors of a share of 400; leaving out either factor finds three times as many.
    assert found < 0.05 + 2 * np.sqrt(0.05 * 0.95 / 400)


def test_a_test_over_triples_alone_would_find_too_many():
    """Why the seeds are a factor: their luck moves all triples alike."""
    rng = np.random.default_rng(1)

    def by_triples(ranks, reference):
        table = (1 / ranks - 1 / reference).reshape(5, 2, -1).mean(axis=(0, 1))
        return stats.ttest_1samp(table, 0).pvalue

    found = np.mean(
        [
            by_triples(*map(ranks_of, simulated(rng, by_seed=0.02, by_triple=0.02, noise=0.05))) < 0.05
            for _ in range(200)
        ]
    )
    assert found > 0.3


def test_a_difference_that_is_there_is_found():
    rng = np.random.default_rng(2)
    found = [paired_difference(*map(ranks_of, simulated(rng, effect=0.05))) for _ in range(50)]
    assert np.mean([one.p < 0.05 for one in found]) > 0.9
    assert np.mean([one.mean for one in found]) > 0.04


def test_where_seeds_are_all_alike_it_is_the_test_over_triples():
    """With seeds that agree, the variance is that of the triples, as in a paired t test over them."""
    rng = np.random.default_rng(3)
    one, base = simulated(rng, seeds=1, by_seed=0, noise=0)
    ranks, reference = np.repeat(1 / one, 4, axis=0), np.repeat(1 / base, 4, axis=0)
    table = (1 / ranks - 1 / reference)[0].reshape(2, -1).mean(axis=0)
    found = paired_difference(ranks, reference)
    assert found.p == pytest.approx(stats.ttest_1samp(table, 0).pvalue, rel=1e-6, abs=1e-12)


def test_where_triples_are_all_alike_it_is_the_test_over_seeds():
    rng = np.random.default_rng(4)
    effect = 0.01 + 0.01 * rng.standard_normal((4, 1))
    reference, ranks = np.full((4, 60), 0.5), 0.5 + np.broadcast_to(effect, (4, 60))
    found = paired_difference(1 / ranks, 1 / reference)
    assert found.p == pytest.approx(stats.ttest_1samp(effect.ravel(), 0).pvalue, rel=1e-6)
