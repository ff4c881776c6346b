"""The five score functions against their papers' formulas, written as scalar loops."""

import cmath

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mocme_jax.method import scoring
from mocme_jax.method.scoring import SCORES

WIDTH, CORE_WIDTH = 6, 4


def as_complex(x):
    half = len(x) // 2
    return [complex(x[j], x[half + j]) for j in range(half)]


def distmult(h, r, t, core):
    return sum(h[j] * r[j] * t[j] for j in range(len(h)))


def complex_(h, r, t, core):
    return sum(a * b * c.conjugate() for a, b, c in zip(*map(as_complex, (h, r, t)), strict=True)).real


def rotate(h, r, t, core):
    """R holds phases."""
    return -sum(abs(a * cmath.exp(1j * phase) - c) for a, phase, c in zip(as_complex(h), r, as_complex(t), strict=True))


def transe(h, r, t, core):
    return -sum(abs(h[j] + r[j] - t[j]) for j in range(len(h)))


def tucker(h, r, t, core):
    total = 0.0
    for a in range(len(r)):
        for b in range(len(h)):
            for c in range(len(t)):
                total += core[a, b, c] * r[a] * h[b] * t[c]
    return total


FORMULAS = {"distmult": distmult, "complex": complex_, "rotate": rotate, "transe": transe, "tucker": tucker}


def example(name, rows=5, candidates=7, seed=0):
    rng = np.random.default_rng(seed)
    width = SCORES[name].relation_width(WIDTH, CORE_WIDTH)
    heads, relations, tails = (
        rng.standard_normal(shape).astype(np.float32) for shape in ((rows, WIDTH), (rows, width), (candidates, WIDTH))
    )
    core = rng.standard_normal((CORE_WIDTH, WIDTH, WIDTH)).astype(np.float32) if SCORES[name].has_core else None
    return heads, relations, tails, core


def brute_force(name, heads, relations, tails, core):
    core = None if core is None else core.astype(np.float64)
    return np.array(
        [
            [FORMULAS[name](h.tolist(), r.tolist(), t.tolist(), core) for t in tails]
            for h, r in zip(heads, relations, strict=True)
        ]
    )


def test_every_score_has_a_formula_here():
    assert set(FORMULAS) == set(SCORES)


@pytest.mark.parametrize("name", SCORES)
def test_match_and_pair_equal_the_formula(name):
    heads, relations, tails, core = example(name)
    expected = brute_force(name, heads, relations, tails, core)
    score = SCORES[name]
    q = score.query(heads, relations, core)
    chex.assert_shape(q, heads.shape)
    np.testing.assert_allclose(score.match(q, jnp.asarray(tails)), expected, rtol=2e-5, atol=2e-5)
    paired = score.pair(q, jnp.asarray(tails[:5]))
    np.testing.assert_allclose(paired, np.diag(expected[:, :5]), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", SCORES)
def test_query_takes_leading_axes(name):
    heads, relations, _, core = example(name, rows=6)
    flat = SCORES[name].query(heads, relations, core)
    nested = SCORES[name].query(heads.reshape(2, 3, -1), relations.reshape(2, 3, -1), core)
    np.testing.assert_allclose(nested.reshape(6, -1), flat, rtol=1e-6, atol=1e-6)


def test_scores_that_tell_directions_apart():
    """DistMult and TransE's mirror aside, swapping head and tail must change an asymmetric score."""
    for name in ("complex", "rotate", "transe", "tucker"):
        heads, relations, tails, core = example(name, rows=1, candidates=1)
        there = brute_force(name, heads, relations, tails, core)
        back = SCORES[name].match(SCORES[name].query(tails, relations, core), jnp.asarray(heads))
        assert abs(float(back[0, 0]) - there[0, 0]) > 1e-3, name


@pytest.mark.parametrize("name", ["rotate", "transe"])
@pytest.mark.parametrize(("rows", "candidates", "width"), [(1, 1, 2), (3, 5, 10), (4, 3, 14), (7, 4, 48)])
def test_distances_come_in_blocks_that_need_not_divide(name, rows, candidates, width):
    """Values and gradients of all against all are those of the pairs, whatever number of coordinates is left over."""
    rng = np.random.default_rng(0)
    q, tails = (rng.standard_normal((count, width)).astype(np.float32) for count in (rows, candidates))
    weights = rng.standard_normal((rows, candidates)).astype(np.float32)
    score = SCORES[name]
    expected = [[float(score.pair(x, t)) for t in tails] for x in q]
    np.testing.assert_allclose(score.match(jnp.asarray(q), jnp.asarray(tails)), expected, rtol=1e-4, atol=1e-4)

    def by_pair(q, t):
        pairs = score.pair(jnp.repeat(q, candidates, axis=0), jnp.tile(t, (rows, 1)))
        return jnp.sum(weights.reshape(-1) * pairs)

    by_match = jax.grad(lambda q, t: jnp.sum(weights * score.match(q, t)), (0, 1))(q, tails)
    chex.assert_trees_all_close(by_match, jax.grad(by_pair, (0, 1))(q, tails), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", SCORES)
def test_gradients_are_finite_where_everything_is_zero(name):
    heads, relations, tails, core = jax.tree.map(jnp.zeros_like, example(name))
    score = SCORES[name]

    def total(h, r, t):
        q = score.query(h, r, core)
        moduli = jnp.sum(score.moduli(h) ** 3)
        return jnp.sum(score.match(q, t)) + jnp.sum(score.pair(q[:5], t[:5])) + moduli

    value, gradients = jax.value_and_grad(total, (0, 1, 2))(heads, relations, tails)
    chex.assert_tree_all_finite((value, gradients))


def test_tail_on_its_query_is_the_highest_distance_score():
    """A tail that equals the query scores (almost) 0, the maximum of a negative distance."""
    for name in ("rotate", "transe"):
        heads, relations, _, _ = example(name)
        q = SCORES[name].query(heads, relations)
        np.testing.assert_allclose(SCORES[name].pair(q, q), np.zeros(5), atol=1e-6)


@pytest.mark.parametrize("name", SCORES)
def test_moduli(name):
    x = np.random.default_rng(3).standard_normal((4, WIDTH)).astype(np.float32)
    complex_pairs = name in ("complex", "rotate")
    expected = [[abs(z) for z in as_complex(row.tolist())] for row in x] if complex_pairs else np.abs(x)
    np.testing.assert_allclose(SCORES[name].moduli(jnp.asarray(x)), expected, rtol=1e-6)


def test_rotation_keeps_moduli():
    heads, relations, _, _ = example("rotate")
    q = SCORES["rotate"].query(heads, relations)
    np.testing.assert_allclose(scoring.complex_moduli(q), scoring.complex_moduli(heads), rtol=1e-5)


@pytest.mark.parametrize("name", ["complex", "distmult", "rotate", "transe"])
def test_a_reciprocal_relation_scores_the_triple_turned_round(name):
    heads, relations, tails, core = example(name)
    turned = np.asarray(SCORES[name].reciprocal(relations))
    for h, r, back, t in zip(heads, relations, turned, tails, strict=False):
        assert FORMULAS[name](t, back, h, core) == pytest.approx(FORMULAS[name](h, r, t, core), rel=1e-5)
