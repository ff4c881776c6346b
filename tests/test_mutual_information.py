"""MI estimators on correlated Gaussians, whose MI is known: -r/2 log(1 - rho^2) nats."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mocme_jax.method.complementarity import Complementarity, Vectors
from mocme_jax.method.complementarity import estimate as estimate_of_parts
from mocme_jax.method.mutual_information import ESTIMATORS, conditional_gaussian, gaussian, other_pairs

PLAIN = ESTIMATORS
ESTIMATORS = {name: one._replace(information=jax.jit(one.information)) for name, one in ESTIMATORS.items()}
infonce, club = ESTIMATORS["infonce"].information, ESTIMATORS["club"].information
WIDTH = 4
PANEL = 1000


def start(name, key=0, noise=0.0):
    """The estimator's first parameters, with noise so that none stands at zero."""
    if ESTIMATORS[name].init is None:
        return {}
    parameters = ESTIMATORS[name].init(jax.random.key(key), 3, WIDTH)
    return jax.tree.map(lambda x: x + noise * jax.random.normal(jax.random.key(1), x.shape), parameters)


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
    """MI ``[3, 3]`` on a panel, fitted first on other entities if the estimator learns."""
    # Shrinking the covariance lowers the Gaussian's estimate, the less so the larger the panel.
    rows = 8 * PANEL if name == "gaussian" else PANEL
    panel, known = correlated(rho, rows, 1), np.ones((rows, 3), bool)
    parameters = start(name)
    if ESTIMATORS[name].fit is not None:
        parameters = fitted(ESTIMATORS[name].fit, parameters, correlated(rho, 4000, 2))
    return np.asarray(ESTIMATORS[name].information(panel, known, parameters))


def fitted(fit, parameters, train, steps=300, rows=200):
    optimizer = optax.adam(optax.cosine_decay_schedule(0.03, steps))

    def step(carry, i):
        parameters, state = carry
        batch = jax.lax.dynamic_slice_in_dim(train, (i * rows) % len(train), rows)
        gradients = jax.grad(lambda p: fit(batch, jnp.ones((rows, 3), bool), p))(parameters)
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


@pytest.mark.parametrize("scale", [0.0, 5.0])
def test_infonce_does_not_exceed_log_panel(scale):
    """Not even with identical parts or a critic gone astray, where the truth is infinite."""
    for panel in (4, 32):
        parts = correlated(0.5, panel, 0)
        parts[:, 1] = parts[:, 0]
        bilinear = scale * jax.random.normal(jax.random.key(0), (3, 3, WIDTH, WIDTH))
        for parameters in ({}, {"bilinear": bilinear}):
            values = infonce(parts, np.ones((panel, 3), bool), parameters)
            chex.assert_tree_all_finite(values)
            assert float(values.max()) <= math.log(panel) + 1e-4


@pytest.mark.slow
def test_a_fitted_critic_is_a_tighter_bound():
    for rho in (0.5, 0.9):
        plain, fit = estimate("infonce", rho)[0, 1], estimate("infonce_bilinear", rho)[0, 1]
        assert plain <= fit < true_mi(rho)


@pytest.mark.slow
def test_a_fitted_critic_finds_what_a_cosine_cannot_see():
    """Negative correlation: the cosine sees less than nothing, the bilinear critic the same MI as positive."""
    sign = np.array([1, -1, 1], np.float32)[:, None]
    panel, known = correlated(0.9, 500, 1) * sign, np.ones((500, 3), bool)
    estimator, first = ESTIMATORS["infonce_bilinear"], start("infonce_bilinear")
    before = estimator.information(panel, known, first)[0, 1]
    parameters = fitted(estimator.fit, first, correlated(0.9, 4000, 2) * sign)
    assert before < 0
    assert 0.5 < estimator.information(panel, known, parameters)[0, 1] < true_mi(0.9)


def test_a_bilinear_critic_starts_as_the_cosine():
    panel, known = correlated(0.7, 30, 1), np.ones((30, 3), bool)
    np.testing.assert_allclose(
        infonce(panel, known, start("infonce_bilinear")), infonce(panel, known, {}), rtol=1e-4, atol=1e-4
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
def test_missing_parts_do_not_matter(name):
    information, panel = ESTIMATORS[name].information, correlated(0.7, 40, 1)
    known = np.random.default_rng(0).random((40, 3)) < 0.7
    parameters = start(name, noise=0.05)
    values = information(panel, known, parameters)
    wild = np.where(known[..., None], panel, 1e4 * panel[::-1] - 7)
    np.testing.assert_allclose(information(wild, known, parameters), values, rtol=1e-4, atol=1e-4)
    # A row that has nothing may as well not be there.
    rows = np.concatenate([panel, wild[:3]]), np.concatenate([known, np.zeros((3, 3), bool)])
    np.testing.assert_allclose(information(*rows, parameters), values, rtol=1e-4, atol=1e-4)
    gradients = jax.jit(jax.grad(lambda x: jnp.sum(information(x, known, parameters))))(wild)
    chex.assert_tree_all_finite(gradients)
    # And a panel in which a part is never seen still gives finite values.
    chex.assert_tree_all_finite(information(panel, np.zeros_like(known), parameters))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_order_of_the_panel_does_not_matter(name):
    panel, known = correlated(0.7, 40, 1), np.random.default_rng(0).random((40, 3)) < 0.7
    order, parameters = np.random.default_rng(1).permutation(40), start(name, noise=0.05)
    values = ESTIMATORS[name].information(panel, known, parameters)
    chex.assert_shape(values, (3, 3))
    again = ESTIMATORS[name].information(panel[order], known[order], parameters)
    np.testing.assert_allclose(again, values, rtol=1e-4, atol=1e-4)


def mean_over_both(values, known):
    """``[P, 3, 3] -> [3, 3]``, over the entities that have both parts."""
    both = known[:, :, None] & known[:, None, :]
    return np.where(both, values, 0).sum(axis=0) / both.sum(axis=0)


def loop_infonce(panel, known, bilinear):
    """InfoNCE, a pair and a panel entity at a time, in float64."""
    unit = lambda x: x / np.linalg.norm(x)  # noqa: E731
    values = np.zeros((len(panel), 3, 3))
    for e in range(len(panel)):
        for i in range(3):
            for j in range(3):
                kernel = 8 * (np.eye(WIDTH) + bilinear[i, j])
                x = unit(panel[e, i])
                joint = x @ kernel @ unit(panel[e, j])
                others = [x @ kernel @ unit(panel[p, j]) for p in range(len(panel)) if known[p, j]]
                mean = (math.exp(joint) + sum(math.exp(other) for other in others)) / len(others)
                values[e, i, j] = joint - math.log(mean)
    return mean_over_both(values, known)


@pytest.mark.parametrize("learned", [False, True])
def test_infonce_equals_the_loop(learned):
    panel = correlated(0.7, 15, 1).astype(np.float64)
    known = np.random.default_rng(0).random((15, 3)) < 0.6
    bilinear = learned * 0.3 * np.random.default_rng(2).standard_normal((3, 3, WIDTH, WIDTH))
    parameters = {"bilinear": bilinear.astype(np.float32)} if learned else {}
    values = infonce(panel.astype(np.float32), known, parameters)
    np.testing.assert_allclose(values, loop_infonce(panel, known, bilinear), rtol=1e-4, atol=1e-4)


def test_club_equals_the_loop_over_the_panel():
    """Its mean over the panel is computed from two moments; here from every panel entity's log density."""
    panel = correlated(0.7, 15, 1) + 0.5
    known = np.random.default_rng(0).random((15, 3)) < 0.6
    parameters = start("club", noise=0.3)
    mean, log_variance = (np.asarray(x, np.float64) for x in conditional_gaussian(panel, parameters))

    def log_q(x, e, i, j):
        m, v = mean[e, i, j], np.exp(log_variance[e, i, j])
        return float(np.sum(-0.5 * (x - m) ** 2 / v - 0.5 * np.log(2 * np.pi * v)))

    expected = np.zeros((15, 3, 3))
    for e in range(15):
        for i in range(3):
            for j in range(3):
                others = [log_q(panel[p, j], e, i, j) for p in range(15) if known[p, j]]
                expected[e, i, j] = log_q(panel[e, j], e, i, j) - np.mean(others)
    expected = mean_over_both(expected, known)
    np.testing.assert_allclose(club(panel, known, parameters), expected, rtol=1e-3, atol=1e-3)


def test_the_gaussian_estimate_is_the_closed_form_of_the_shrunk_covariance():
    panel = correlated(0.7, 40, 1, width=3) + 0.5
    known = np.random.default_rng(0).random((40, 3)) < 0.7
    values = jax.jit(gaussian)(panel, known)
    # Lanes of a vmap, as over seeds.
    lanes = jax.jit(jax.vmap(gaussian, in_axes=(0, None)))(jnp.stack([panel, 2 * panel]), known)
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
    panel, parameters = correlated(0.7, 40, 1), start(name, noise=0.05)
    known = np.random.default_rng(0).random((40, 3)) < 0.6
    fit = jax.jit(ESTIMATORS[name].fit)
    loss = fit(panel, known, parameters)
    wild = np.where(known[..., None], panel, 30 * panel[::-1] - 7)
    assert float(fit(wild, known, parameters)) == pytest.approx(float(loss), rel=1e-5)
    nothing = jax.value_and_grad(lambda p: fit(panel, np.zeros_like(known), p))(parameters)
    chex.assert_trees_all_equal(nothing, jax.tree.map(jnp.zeros_like, nothing))


def test_other_pairs():
    present = np.array([[True, False, True], [False, True, False]])
    expected = [[[i != j and row[i] and row[j] for j in range(3)] for i in range(3)] for row in present]
    np.testing.assert_array_equal(other_pairs(jnp.asarray(present)), expected)


@pytest.mark.parametrize("name", ["infonce", "gaussian"])
def test_what_learns_nothing_takes_numpy_arrays_alone(name):
    """Also through ``estimate``, uncompiled: width 4 is below what parts are projected to, which leaves them as is."""
    panel, known = correlated(0.9, 60, 3), np.ones((60, 3), bool)
    # ``estimate`` brings parts to unit mean square.
    panel = panel / np.sqrt((panel**2).mean(axis=-1, keepdims=True))
    expected = ESTIMATORS[name].information(panel, known, {})
    np.testing.assert_allclose(PLAIN[name].information(panel, known), expected, rtol=1e-4, atol=1e-4)
    through, fit = estimate_of_parts(Complementarity(PLAIN[name]), Vectors(panel), known)
    np.testing.assert_allclose(through, expected, rtol=1e-4, atol=1e-4)
    assert fit == 0
