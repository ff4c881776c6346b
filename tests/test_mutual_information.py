"""MI estimators on correlated Gaussians, whose MI is known: -r/2 log(1 - rho^2) nats."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mocme_jax.method.mutual_information import (
    ESTIMATORS,
    conditional_gaussian,
    gaussian_mean,
    other_pairs,
)

ESTIMATORS = {name: (jax.jit(estimator), init, fit) for name, (estimator, init, fit) in ESTIMATORS.items()}
infonce, club = ESTIMATORS["infonce"][0], ESTIMATORS["club"][0]
WIDTH = 4
ENTITIES, PANEL = 2000, 1000


def true_mi(rho, width=WIDTH):
    return -width / 2 * math.log(1 - rho**2)


def correlated(rho, rows, seed, width=WIDTH):
    """Parts ``[rows, 3, width]``: 0 and 1 have correlation rho in each coordinate, 2 is independent of both."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, 3, width))
    x[:, 1] = rho * x[:, 0] + math.sqrt(1 - rho**2) * x[:, 1]
    return x.astype(np.float32)


@functools.cache
def estimate(name, rho):
    """Mean over fresh entities of the pointwise values ``[3, 3]``, fitted first on others where there is a fit."""
    estimator, init, fit = ESTIMATORS[name]
    panel, known = correlated(rho, PANEL, 1), np.ones((PANEL, 3), bool)
    parameters = init(jax.random.key(0), 3, WIDTH)
    if fit is not None:
        train = correlated(rho, 4000, 2)
        small_panel, small_known = panel[:100], known[:100]
        parameters = fitted(fit, parameters, train, small_panel, small_known)
    values = estimator(correlated(rho, ENTITIES, 3), panel, known, parameters)
    return np.mean(values, axis=0)


def fitted(fit, parameters, train, panel, known, steps=300, rows=200):
    optimizer = optax.adam(optax.cosine_decay_schedule(0.03, steps))

    def step(carry, i):
        parameters, state = carry
        batch = jax.lax.dynamic_slice_in_dim(train, (i * rows) % len(train), rows)
        gradients = jax.grad(lambda p: jnp.mean(fit(batch, panel, known, jnp.ones((rows, 3), bool), p)))(parameters)
        updates, state = optimizer.update(gradients, state)
        return (optax.apply_updates(parameters, updates), state), None

    train = jnp.asarray(train)
    start = (parameters, optimizer.init(parameters))
    return jax.jit(lambda start: jax.lax.scan(step, start, jnp.arange(steps))[0][0])(start)


@pytest.mark.parametrize("rho", [0.5, 0.7, 0.9])
def test_gaussian_is_within_five_percent(rho):
    values = estimate("gaussian", rho)
    for i, j in ((0, 1), (1, 0)):
        assert values[i, j] == pytest.approx(true_mi(rho), rel=0.05)
    np.testing.assert_allclose([values[0, 2], values[2, 1]], 0, atol=0.03)


@pytest.mark.parametrize("rho", [0.5, 0.9, 0.99])
def test_infonce_stays_below_the_truth_and_below_log_panel(rho):
    value = estimate("infonce", rho)[0, 1]
    assert value < min(true_mi(rho), math.log(PANEL))
    # At a low correlation a critic this sharp bounds by less than 0.
    assert value > (0 if rho > 0.5 else -2)


@pytest.mark.parametrize("panel", [4, 32])
@pytest.mark.parametrize("scale", [0.0, 5.0])
def test_no_infonce_value_exceeds_log_panel(panel, scale):
    """Not even with identical parts or a critic gone astray, where the truth is infinite."""
    parts = correlated(0.5, 64, 0)
    parts[:, 1] = parts[:, 0]
    others = correlated(0.5, panel, 1)
    bilinear = scale * jax.random.normal(jax.random.key(0), (3, 3, WIDTH, WIDTH))
    for parameters in ({}, {"bilinear": bilinear}):
        values = infonce(parts, others, np.ones((panel, 3), bool), parameters)
        chex.assert_tree_all_finite(values)
        assert float(values.max()) <= math.log(panel) + 1e-4


def test_a_fitted_critic_is_a_tighter_bound():
    for rho in (0.5, 0.9):
        plain, fit = estimate("infonce", rho)[0, 1], estimate("infonce_bilinear", rho)[0, 1]
        assert plain <= fit < true_mi(rho)


def test_a_fitted_critic_finds_what_a_cosine_cannot_see():
    """Negative correlation: the cosine sees less than nothing, the bilinear critic the same MI as positive."""
    sign = np.array([1, -1, 1], np.float32)[:, None]
    panel, known = correlated(0.9, 100, 1) * sign, np.ones((100, 3), bool)
    estimator, init, fit = ESTIMATORS["infonce_bilinear"]
    fresh = correlated(0.9, 500, 3) * sign
    start = init(None, 3, WIDTH)
    before = np.mean(estimator(fresh, panel, known, start), axis=0)[0, 1]
    parameters = fitted(fit, start, correlated(0.9, 4000, 2) * sign, panel, known)
    after = np.mean(estimator(fresh, panel, known, parameters), axis=0)[0, 1]
    assert before < 0
    assert 0.5 < after < true_mi(0.9)


def test_a_bilinear_critic_starts_as_the_cosine():
    parts, panel, known = correlated(0.7, 20, 0), correlated(0.7, 30, 1), np.ones((30, 3), bool)
    _, init, _ = ESTIMATORS["infonce_bilinear"]
    np.testing.assert_allclose(
        infonce(parts, panel, known, init(None, 3, WIDTH)), infonce(parts, panel, known, {}), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("rho", [0.5, 0.7, 0.9])
def test_club_is_above_the_truth_once_fitted(rho):
    """With the true conditional, CLUB's value is known as well: r rho^2 / (1 - rho^2)."""
    values = estimate("club", rho)
    assert values[0, 1] > true_mi(rho)
    assert values[1, 0] > true_mi(rho)
    assert values[0, 1] == pytest.approx(WIDTH * rho**2 / (1 - rho**2), rel=0.15)
    np.testing.assert_allclose(values[0, 2], 0, atol=0.1)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimate_increases_with_correlation(name):
    values = [estimate(name, rho)[0, 1] for rho in (0.5, 0.7, 0.9)]
    assert values[0] < values[1] < values[2]
    assert values[0] > estimate(name, 0.5)[0, 2]


@pytest.mark.parametrize("name", ESTIMATORS)
def test_missing_panel_entries_do_not_matter(name):
    estimator, init, _ = ESTIMATORS[name]
    parts, panel = correlated(0.7, 10, 0), correlated(0.7, 40, 1)
    known = np.random.default_rng(0).random((40, 3)) < 0.7
    parameters = init(jax.random.key(0), 3, WIDTH)
    parameters = jax.tree.map(lambda x: x + 0.05 * jax.random.normal(jax.random.key(1), x.shape), parameters)
    values = estimator(parts, panel, known, parameters)
    wild = np.where(known[..., None], panel, 1e4 * panel[::-1] - 7)
    np.testing.assert_allclose(estimator(parts, wild, known, parameters), values, rtol=1e-4, atol=1e-4)
    # A row that has nothing may as well not be there.
    rows = np.concatenate([panel, wild[:3]]), np.concatenate([known, np.zeros((3, 3), bool)])
    np.testing.assert_allclose(estimator(parts, *rows, parameters), values, rtol=1e-4, atol=1e-4)
    gradients = jax.jit(jax.grad(lambda x: jnp.sum(estimator(x, wild, known, parameters))))(parts)
    chex.assert_tree_all_finite(gradients)
    # And a panel in which a part is never seen still gives finite values.
    chex.assert_tree_all_finite(estimator(parts, panel, np.zeros_like(known), parameters))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_value_depends_on_its_own_entity_alone(name):
    estimator, init, _ = ESTIMATORS[name]
    parts, panel, known = correlated(0.7, 10, 0), correlated(0.7, 40, 1), np.ones((40, 3), bool)
    parameters = init(jax.random.key(0), 3, WIDTH)
    values = estimator(parts, panel, known, parameters)
    chex.assert_shape(values, (10, 3, 3))
    np.testing.assert_allclose(
        estimator(parts[[7, 2]], panel, known, parameters), values[np.array([7, 2])], rtol=1e-4, atol=1e-4
    )


def loop_infonce(parts, panel, known, bilinear):
    """Pointwise InfoNCE, a pair and a panel entity at a time, in float64."""
    unit = lambda x: x / np.linalg.norm(x)  # noqa: E731
    values = np.zeros((len(parts), 3, 3))
    for e in range(len(parts)):
        for i in range(3):
            for j in range(3):
                kernel = 8 * (np.eye(WIDTH) + bilinear[i, j])
                x = unit(parts[e, i])
                joint = x @ kernel @ unit(parts[e, j])
                others = [x @ kernel @ unit(panel[p, j]) for p in range(len(panel)) if known[p, j]]
                mean = (math.exp(joint) + sum(math.exp(other) for other in others)) / len(others)
                values[e, i, j] = joint - math.log(mean)
    return values


@pytest.mark.parametrize("learned", [False, True])
def test_infonce_equals_the_loop(learned):
    parts, panel = (x.astype(np.float64) for x in (correlated(0.7, 6, 0), correlated(0.7, 15, 1)))
    known = np.random.default_rng(0).random((15, 3)) < 0.6
    bilinear = learned * 0.3 * np.random.default_rng(2).standard_normal((3, 3, WIDTH, WIDTH))
    parameters = {"bilinear": bilinear.astype(np.float32)} if learned else {}
    values = infonce(parts.astype(np.float32), panel.astype(np.float32), known, parameters)
    np.testing.assert_allclose(values, loop_infonce(parts, panel, known, bilinear), rtol=1e-4, atol=1e-4)


def test_club_equals_the_loop_over_the_panel():
    """Its mean over the panel is computed from two moments; here from every panel entity's log density."""
    parts, panel = correlated(0.7, 6, 0), correlated(0.7, 15, 1) + 0.5
    known = np.random.default_rng(0).random((15, 3)) < 0.6
    _, init, _ = ESTIMATORS["club"]
    parameters = init(jax.random.key(0), 3, WIDTH)
    parameters = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(1), x.shape), parameters)
    mean, log_variance = (np.asarray(x, np.float64) for x in conditional_gaussian(parts, parameters))

    def log_q(x, e, i, j):
        m, v = mean[e, i, j], np.exp(log_variance[e, i, j])
        return float(np.sum(-0.5 * (x - m) ** 2 / v - 0.5 * np.log(2 * np.pi * v)))

    expected = np.zeros((6, 3, 3))
    for e in range(6):
        for i in range(3):
            for j in range(3):
                others = [log_q(panel[p, j], e, i, j) for p in range(15) if known[p, j]]
                expected[e, i, j] = log_q(parts[e, j], e, i, j) - np.mean(others)
    np.testing.assert_allclose(club(parts, panel, known, parameters), expected, rtol=1e-3, atol=1e-3)


def test_gaussian_equals_log_densities_of_the_shrunk_covariance():
    parts, panel = correlated(0.7, 6, 0, width=2), correlated(0.7, 30, 1, width=2) + 0.5
    known = np.random.default_rng(0).random((30, 3)) < 0.7
    values = ESTIMATORS["gaussian"][0](parts, panel, known, {})

    def log_normal(x, mean, covariance):
        offset = x - mean
        return -0.5 * (offset @ np.linalg.inv(covariance) @ offset + math.log(np.linalg.det(2 * np.pi * covariance)))

    for i, j in ((0, 1), (2, 0), (1, 2)):
        both = known[:, i] & known[:, j]
        rows = np.concatenate([panel[both, i], panel[both, j]], axis=1).astype(np.float64)
        share = 4 / (4 + len(rows))
        covariance = np.cov(rows.T, bias=True)
        covariance = (1 - share) * covariance + share * np.diag(np.diag(covariance))
        mean = rows.mean(axis=0)
        for e in range(6):
            x, y = parts[e, i].astype(np.float64), parts[e, j].astype(np.float64)
            expected = log_normal(np.concatenate([x, y]), mean, covariance)
            expected -= log_normal(x, mean[:2], covariance[:2, :2]) + log_normal(y, mean[2:], covariance[2:, 2:])
            assert float(values[e, i, j]) == pytest.approx(expected, abs=1e-3)


def test_the_gaussian_mean_is_the_closed_form_of_the_shrunk_covariance():
    panel = correlated(0.7, 40, 1, width=3) + 0.5
    known = np.random.default_rng(0).random((40, 3)) < 0.7
    values = jax.jit(gaussian_mean)(panel, known)
    # Lanes of a vmap, as over seeds.
    lanes = jax.jit(jax.vmap(gaussian_mean, in_axes=(0, None)))(jnp.stack([panel, 2 * panel]), known)
    np.testing.assert_allclose(lanes, np.stack([values, values]), atol=1e-4)
    for i, j in ((0, 1), (2, 0), (1, 2)):
        both = known[:, i] & known[:, j]
        rows = np.concatenate([panel[both, i], panel[both, j]], axis=1).astype(np.float64)
        share = 6 / (6 + len(rows))
        covariance = np.cov(rows.T, bias=True)
        covariance = (1 - share) * covariance + share * np.diag(np.diag(covariance))
        logs = [np.linalg.slogdet(part)[1] for part in (covariance[:3, :3], covariance[3:, 3:], covariance)]
        assert float(values[i, j]) == pytest.approx((logs[0] + logs[1] - logs[2]) / 2, abs=1e-4)


@pytest.mark.parametrize("name", ["infonce_bilinear", "club"])
def test_fit_reads_present_pairs_only(name):
    _, init, fit = ESTIMATORS[name]
    parts, panel, known = correlated(0.7, 10, 0), correlated(0.7, 40, 1), np.ones((40, 3), bool)
    present = np.random.default_rng(0).random((10, 3)) < 0.6
    parameters = jax.tree.map(
        lambda x: x + 0.05 * jax.random.normal(jax.random.key(1), x.shape), init(jax.random.key(0), 3, WIDTH)
    )
    fit = jax.jit(lambda *args, fit=fit: jnp.mean(fit(*args)))
    loss = fit(parts, panel, known, present, parameters)
    wild = np.where(present[..., None], parts, 30 * parts[::-1] - 7)
    assert float(fit(wild, panel, known, present, parameters)) == pytest.approx(float(loss), rel=1e-5)
    nothing = jax.value_and_grad(lambda p: fit(parts, panel, known, np.zeros_like(present), p))(parameters)
    chex.assert_trees_all_equal(nothing, jax.tree.map(jnp.zeros_like, nothing))


def test_other_pairs():
    present = np.array([[True, False, True], [False, True, False]])
    expected = [[[i != j and row[i] and row[j] for j in range(3)] for i in range(3)] for row in present]
    np.testing.assert_array_equal(other_pairs(jnp.asarray(present)), expected)
