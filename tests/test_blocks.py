"""Passes over blocks of candidates, beside NumPy over all of them at once."""

import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import random_params, tiny_inputs, tiny_model

from mocme_jax.serving import top_candidates as blocks
from mocme_jax.serving.compiled_queries import Tables
from mocme_jax.serving.completion import Served, complete_questions, score_relations, score_triples
from mocme_jax.serving.known_facts import Facts
from mocme_jax.serving.top_candidates import best_of_all, block_size, block_top_k, in_blocks, pairs_of


@pytest.mark.parametrize("k", [1, 3, 40, 200])
def test_the_best_of_many_keep_the_order_of_ties(k):
    # Few distinct values, so that nearly every place is a tie.
    scores = np.random.default_rng(0).integers(0, 7, (5, 512)).astype(np.float32)
    values, places = block_top_k(jnp.asarray(scores), k)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(places, expected)
    np.testing.assert_array_equal(values, np.take_along_axis(scores, expected, axis=1))


@pytest.mark.parametrize("k", [1, 10, 300])
def test_blocks_give_what_the_whole_gives(monkeypatch, k):
    monkeypatch.setattr(blocks, "_BLOCK", 128)
    rng = np.random.default_rng(1)
    count, rows = 400, 3
    table = rng.integers(-2, 3, (count, 4)).astype(np.float32)
    q = rng.integers(-2, 3, (rows, 4)).astype(np.float32)
    known = rng.integers(0, rows, 150), rng.integers(0, count, 150)
    left = rng.integers(0, rows, 60), rng.integers(0, count, 60)
    sharpness = np.array([0.3, 1.0, 2.0], np.float32)
    candidates = in_blocks(table)
    assert candidates.shape[0] == 4
    assert candidates.shape[1] == block_size(count)
    best = best_of_all(
        lambda q, block: q @ block.T,
        jnp.asarray(q),
        candidates,
        jnp.int32(count),
        jnp.asarray(sharpness),
        pairs_of(*known, rows),
        pairs_of(*left, rows),
        k,
    )
    scores = q @ table.T
    counted, listed = scores.copy(), scores.copy()
    counted[known], listed[left] = -np.inf, -np.inf
    order = np.argsort(-listed, axis=1, kind="stable")[:, :k]
    found = np.take_along_axis(listed, order, axis=1)
    np.testing.assert_array_equal(best.scores, found)
    there = np.isfinite(found)
    np.testing.assert_array_equal(np.asarray(best.ids)[there], order[there])
    np.testing.assert_array_equal(best.top, counted.max(axis=1))
    total = np.exp(sharpness[:, None] * (counted - counted.max(axis=1, keepdims=True))).sum(axis=1)
    np.testing.assert_allclose(best.total, total, rtol=1e-5)


@pytest.mark.parametrize("score", ["rotate", "transe", "tucker"])
def test_every_score_function_ranks_as_it_scores(score):
    model, inputs = tiny_model(score), tiny_inputs()
    params = random_params(model, inputs)
    rng = np.random.default_rng(0)
    # Four experts of width 8; distances have their log weights behind them.
    width = 32 if score == "tucker" else 36
    table = in_blocks(rng.standard_normal((24, width)).astype(np.float32))
    triples = rng.integers(0, (24, 3, 24), (9, 3))
    facts = Facts({"train": triples}, 24, 3)
    served = Served(model, params, inputs, Tables(table, table, jnp.int32(24)), facts)
    found = complete_questions(served, triples[:, :2], 24, np.ones(6))
    assert (np.sort(found.ids, axis=1) == np.arange(24)).all()
    for (head, relation, _), ids, scores in zip(triples, found.ids, found.scores, strict=True):
        rows = np.array([(head, relation, tail) for tail in ids])
        np.testing.assert_allclose(scores, score_triples(served, rows)[:, 0], rtol=1e-5, atol=1e-5)
    between = score_relations(served, triples[:, [0, 2]])
    own = between[np.arange(9), triples[:, 1]]
    np.testing.assert_allclose(own, score_triples(served, triples).mean(axis=1), rtol=1e-5, atol=1e-5)
