"""What a modality tells of a triple, against what is known of Gaussians."""

import jax.numpy as jnp
import numpy as np
import pytest

from mocme_jax.data.audit.link_information import _gaussian, link_information
from mocme_jax.data.graph.knowledge_graph import Modality
from mocme_jax.method.mutual_information import gaussian


def graph_of(heads, tails, present=None):
    """A modality of entities 0..n-1 as heads and n..2n-1 as tails, and the triples that join them one to one."""
    n = len(heads)
    features = np.concatenate([heads, tails]).astype(np.float32)
    present = np.ones(2 * n, bool) if present is None else present
    triples = np.stack([np.arange(n), np.zeros(n, int), np.arange(n, 2 * n)], axis=1).astype(np.int32)
    return Modality("text", np.where(present[:, None], features, 0), present), triples


def ends(correlation, n=4000, width=16, seed=0):
    rng = np.random.default_rng(seed)
    heads, noise = rng.standard_normal((2, n, width))
    return heads, correlation * heads + np.sqrt(1 - correlation**2) * noise


@pytest.mark.parametrize("correlation", [0.3, 0.6, 0.9])
def test_of_correlated_gaussians_it_is_the_closed_form(correlation):
    found = link_information(*graph_of(*ends(correlation)))
    # Each of 16 columns tells -log(1 - rho^2) / 2; the sphere and the shrinking of the covariance take a little.
    known = -16 * np.log(1 - correlation**2) / 2
    assert 0.8 * known < found < 1.02 * known


def test_the_host_and_the_model_estimate_alike():
    heads, tails = ends(0.6, n=300, width=4)
    panel = jnp.asarray(np.stack([heads, tails], axis=1), jnp.float32)
    by_model = gaussian(panel, jnp.ones((300, 2), bool))[0, 1]
    assert _gaussian(heads, tails) == pytest.approx(float(by_model), rel=1e-3)


def test_noise_tells_nothing_however_wide_it_is():
    for width in (8, 32, 300):
        rng = np.random.default_rng(width)
        assert link_information(*graph_of(*rng.standard_normal((2, 500, width)))) < 0.1


def test_hubs_alone_tell_nothing():
    rng = np.random.default_rng(0)
    heads, hubs = rng.standard_normal((2000, 16)), rng.standard_normal((5, 16))
    assert link_information(*graph_of(heads, hubs[rng.integers(5, size=2000)])) < 0.1


def test_it_does_not_depend_on_the_direction_the_centre_or_the_unit():
    heads, tails = ends(0.6)
    found = link_information(*graph_of(heads, tails))
    assert link_information(*graph_of(100 + 7 * heads, 100 + 7 * tails)) == pytest.approx(found, rel=1e-3)
    assert link_information(*graph_of(tails, heads)) == pytest.approx(found, rel=0.02)


def test_triples_whose_ends_do_not_both_carry_it_tell_nothing():
    heads, tails = ends(0.9, n=3000)
    rng = np.random.default_rng(1)
    present = np.ones(6000, bool)
    present[2000:3000] = False
    broken = heads.copy()
    broken[2000:] = rng.standard_normal((1000, 16))
    found = link_information(*graph_of(broken, tails, present))
    assert found == pytest.approx(2 / 3 * link_information(*graph_of(heads[:2000], tails[:2000])), rel=0.05)


def test_of_few_triples_nothing_is_said():
    heads, tails = ends(0.9, n=31)
    assert link_information(*graph_of(heads, tails)) == 0.0
    modality, triples = graph_of(heads, tails)
    assert link_information(modality, triples[:0]) == 0.0


def test_it_says_the_same_each_time():
    graph = graph_of(*ends(0.5, n=9000))
    assert link_information(*graph) == link_information(*graph) > 1
