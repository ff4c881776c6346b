"""The training program: the same on any number of devices, in any cutting of its steps, and able to learn."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_model import tiny_inputs, tiny_model, tiny_objective

from mocme_jax.errors import UserError
from mocme_jax.model.scoring import SCORES
from mocme_jax.objective.candidates import index_known
from mocme_jax.objective.shares import dropout
from mocme_jax.training.optimizers import create_optimizer
from mocme_jax.training.program import (
    TrainData,
    create_train_state,
    make_encode_program,
    make_train_program,
)

ENTITIES, RELATIONS, TRIPLES, BATCH = 24, 3, 50, 8
EVERYTHING = dict(structure_dropout=0.3, redundancy=0.05)


@functools.cache
def data():
    rng = np.random.default_rng(0)
    triples = np.unique(rng.integers(0, [ENTITIES, RELATIONS, ENTITIES], (80, 3)), axis=0)
    triples = rng.permutation(triples)[:TRIPLES].astype(np.int32)
    known = jax.tree.map(jnp.asarray, index_known(triples, ENTITIES, RELATIONS))
    return TrainData(jnp.asarray(triples), known, tiny_inputs(ENTITIES, (5,)))


def tiny(**changes):
    return tiny_model(**(dict(widths=(5,)) | changes))


@functools.cache
def program(devices, estimator="club", features_in="all", **changes):
    """The compiled program and a new state's maker. Plain descent: Adagrad's first steps are the signs of gradients,
    which for a gradient of rounding errors is a coin's toss."""
    model, optimizer = tiny(estimator=estimator, features_in=features_in, experts=0), optax.sgd(0.3)
    objective = tiny_objective(**(EVERYTHING | changes))
    run = make_train_program(model, optimizer, objective, batch_size=BATCH, triples=TRIPLES, devices=devices)
    start = jax.device_get(create_train_state(model, optimizer, data().inputs, seed=1))
    return run, lambda: jax.tree.map(jnp.asarray, start)


def steps(devices, cuts, state=None, **changes):
    """State and the metrics of each call after calls of so many steps."""
    run, new = program(devices, **changes)
    state, metrics = state or new(), []
    for cut in cuts:
        state, means = run(state, data(), jnp.int32(cut))
        metrics.append(jax.device_get(means))
    return jax.device_get(state), metrics


def test_conftest_gives_four_devices():
    assert len(jax.local_devices()) >= 4


@pytest.mark.parametrize(
    "devices,changes",
    [
        (2, {}),
        (4, {}),
        (2, {"features_in": "questions", "query_dropout": 0.3, "feature_dropout": 0.4}),
        (4, {"features_in": "heads", "query_dropout": 0.3}),
    ],
)
def test_devices_give_the_same_losses_and_parameters(devices, changes):
    """Ten steps, over an epoch's end, with entropy weights, structure dropout and a fitted estimator all on."""
    plain, plain_metrics = steps(1, (1, 6, 3), **changes)
    state, metrics = steps(devices, (1, 6, 3), **changes)
    for one, other in zip(metrics, plain_metrics, strict=True):
        chex.assert_trees_all_close(one, other, rtol=1e-3, atol=1e-4)
    chex.assert_trees_all_close(state.params, plain.params, rtol=1e-3, atol=1e-3)
    assert int(state.step) == 10
    np.testing.assert_array_equal(state.key, plain.key)


def test_steps_in_two_calls_equal_one_call():
    whole, (mean,) = steps(1, (6,))
    parts, means = steps(1, (2, 4))
    chex.assert_trees_all_close(parts, whole, rtol=1e-6, atol=1e-7)
    for name, value in mean.items():
        assert (2 * means[0][name] + 4 * means[1][name]) / 6 == pytest.approx(value, rel=1e-4, abs=1e-6), name


def test_a_copied_state_goes_on_in_the_same_way():
    middle, _ = steps(1, (5,))
    on, _ = steps(1, (2, 7), state=jax.tree.map(jnp.array, middle))
    again, _ = steps(1, (2, 7), state=jax.tree.map(jnp.array, middle))
    whole, _ = steps(1, (5, 2, 7))
    chex.assert_trees_all_equal(on, again)
    chex.assert_trees_all_equal(on, whole)


def test_training_moves_every_parameter_that_is_used():
    _, new = program(1)
    state, metrics = steps(1, (7,))
    before, after = new().params["params"], state.params["params"]
    still = [
        jax.tree_util.keystr(path)
        for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True)
        if np.array_equal(x, y)
    ]
    assert not [name for name in still if "nothing" not in name], still
    assert all(np.isfinite(x) for x in jax.tree.leaves(metrics))
    shares = [metrics[0][f"negatives/share_{name}"] for name in ("easy", "ambiguous", "hard")]
    assert sum(shares) == pytest.approx(1, rel=1e-5)


def test_a_batch_that_does_not_divide_is_an_error():
    arguments = tiny(), create_optimizer(1e-2, 1e-1), tiny_objective()
    with pytest.raises(UserError, match="batch_size 6 .* 4 devices"):
        make_train_program(*arguments, batch_size=6, triples=TRIPLES, devices=4)


class Counting:
    """An optimizer that counts, in the place of the relation table, how often each relation was used."""

    def init(self, params):
        return ()

    def update(self, gradients, state, params):
        used = jnp.any(gradients["params"]["relation"] != 0, axis=1)
        zeros = jax.tree.map(jnp.zeros_like, gradients)
        zeros["params"]["relation"] = zeros["params"]["relation"] + used[:, None]
        return zeros, state


@pytest.mark.parametrize("triples,batch", [(12, 4), (13, 4), (3, 8)])
def test_every_triple_is_visited_in_every_epoch(triples, batch):
    """Each triple has a relation of its own, so that a relation's count is its triple's."""
    rng = np.random.default_rng(0)
    rows = np.stack([rng.integers(0, 24, triples), np.arange(triples), rng.integers(0, 24, triples)], axis=1)
    rows = rows.astype(np.int32)
    known = jax.tree.map(jnp.asarray, index_known(rows, ENTITIES, triples))
    model = tiny_model(relations=triples, widths=(), experts=0, intra="mean", inter="mean")
    inputs = tiny_inputs(ENTITIES, ())
    objective = tiny_objective(weighting="uniform", regularisation=0.0)
    run = make_train_program(model, Counting(), objective, batch_size=batch, triples=triples, devices=1)
    state = create_train_state(model, Counting(), inputs, seed=0)
    start, orders = np.asarray(state.params["params"]["relation"]), []
    per_epoch = -(-triples // batch)
    for epoch in (1, 2):
        for place in range(per_epoch):
            before = np.asarray(state.params["params"]["relation"])
            state, _ = run(state, TrainData(jnp.asarray(rows), known, inputs), jnp.int32(1))
            used = np.asarray(state.params["params"]["relation"]) - before > 0.5
            if place == 0:
                orders.append(tuple(np.flatnonzero(used[:triples, 0])))
        counts = np.rint((np.asarray(state.params["params"]["relation"]) - start)[:, 0])
        assert counts.min() >= epoch, "a triple was left out"
        # The last batch is filled up from the epoch's start.
        assert counts.sum() <= 2 * epoch * per_epoch * batch
        np.testing.assert_array_equal(counts[:triples], counts[triples:])
    if triples > batch:
        assert orders[0] != orders[1], "the order must change from epoch to epoch"


def test_tables_get_adagrad_and_the_rest_adam():
    rng = np.random.default_rng(0)
    params = {"encoder": {"structure": rng.standard_normal((4, 3)), "expert_up": rng.standard_normal((2, 3))}}
    params |= {"relation": rng.standard_normal((2, 3)), "core": rng.standard_normal(3)}
    params = {"params": jax.tree.map(lambda x: x.astype(np.float32), params)}
    rate, table_rate, decay = 0.01, 0.1, 0.02
    optimizer = create_optimizer(rate, table_rate, decay)
    state, now = optimizer.init(params), params
    expected = jax.tree.map(np.float64, params)
    squares, first, second = (jax.tree.map(np.zeros_like, expected) for _ in range(3))
    for step in (1, 2, 3):
        gradients = jax.tree.map(lambda x: (1e-3 * rng.standard_normal(x.shape)).astype(np.float32), params)
        gradients["params"]["encoder"]["structure"][1] = 0
        updates, state = optimizer.update(gradients, state, now)
        now = optax.apply_updates(now, updates)
        for keys in (("encoder", "structure"), ("relation",), ("encoder", "expert_up"), ("core",)):
            pick = lambda tree, keys=keys: functools.reduce(lambda t, k: t[k], keys, tree["params"])  # noqa: E731
            g, x = pick(gradients).astype(np.float64), pick(expected)
            if keys[-1] in ("structure", "relation"):
                total = pick(squares)
                total += g**2
                x -= np.where(total > 0, table_rate * g / np.sqrt(np.where(total > 0, total, 1)), 0)
            else:
                m, v = pick(first), pick(second)
                m[...], v[...] = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
                adam = (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
                x -= rate * (adam + decay * x)
    chex.assert_trees_all_close(now, jax.tree.map(np.float32, expected), rtol=1e-4, atol=1e-6)


def test_encoding_everybody_is_the_same_in_any_blocks_on_any_devices():
    inputs = data().inputs
    model = tiny(estimator="club", experts=0)
    params = program(1)[1]().params
    (questions, vectors), (modality, view) = make_encode_program(model, devices=1)(params, inputs)
    chex.assert_shape(vectors, (ENTITIES, 8))
    assert questions is vectors
    # 5 does not divide the 24 entities: the last blocks are padded.
    other, weights = make_encode_program(model, devices=2, block=5)(params, inputs)
    np.testing.assert_allclose(other.answers, vectors, rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(weights, (modality, view), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.sum(view, axis=1), 1, rtol=1e-4)


def test_questions_and_answers_are_encoded_apart():
    inputs = data().inputs
    params = program(1)[1]().params
    both, by_all = (tiny(estimator="club", experts=0, features_in=where) for where in ("heads", "all"))
    (questions, answers), weights = make_encode_program(both, devices=2, block=5)(params, inputs)
    everything, expected_weights = make_encode_program(by_all, devices=1)(params, inputs)
    np.testing.assert_allclose(questions, everything.answers, rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(weights, expected_weights, rtol=1e-4, atol=1e-5)
    has_text = np.asarray(inputs.present)[:, 1]
    np.testing.assert_allclose(answers[~has_text], questions[~has_text], rtol=1e-4, atol=1e-5)
    assert (np.abs(answers - questions)[has_text].max(axis=1) > 1e-3).all()


def test_the_penalty_is_of_entities_as_answers():
    """On one device and the first step, whose batch is the first rows of the epoch's order."""
    choices = dict(structure_dropout=0.0, features_in="heads")
    _, new = program(1, **choices)
    start, triples = new(), np.asarray(data().triples)
    _, (means,) = steps(1, (1,), **choices)
    order_key = jax.random.split(jax.random.wrap_key_data(start.key))[0]
    batch = triples[np.asarray(jax.random.permutation(jax.random.fold_in(order_key, 0), TRIPLES))[:BATCH]]
    # Without experts an entity as an answer is its row of the table.
    table, relation = (
        np.asarray(x, np.float64)
        for x in (start.params["params"]["encoder"]["structure"], start.params["params"]["relation"])
    )

    def cubes(rows):
        halves = rows.shape[1] // 2
        return ((rows[:, :halves] ** 2 + rows[:, halves:] ** 2) ** 1.5).sum(axis=1).mean()

    head, kind, tail = batch.T
    expected = cubes(table[head]) + cubes(table[tail]) + (cubes(relation[kind]) + cubes(relation[kind + RELATIONS])) / 2
    assert means["loss/regularisation"] == pytest.approx(0.01 * expected, rel=1e-4)
    _, (others,) = steps(1, (1,), structure_dropout=0.0)
    assert others["loss/regularisation"] != pytest.approx(means["loss/regularisation"], rel=1e-2)


def test_hidden_components_are_as_many_as_asked_and_scaled_for():
    vectors, rows = jnp.ones((2000, 50)), jnp.arange(2000)
    dropped = np.asarray(dropout(jax.random.key(0), rows, vectors, 0.3))
    assert set(np.unique(dropped)) == {0, np.float32(1 / 0.7)}
    # Five deviations of a share of 100,000 components.
    assert (dropped == 0).mean() == pytest.approx(0.3, abs=5 * (0.3 * 0.7 / 1e5) ** 0.5)
    np.testing.assert_array_equal(dropout(jax.random.key(0), rows[7:9], vectors[:2], 0.3), dropped[7:9])
    assert not np.array_equal(dropped[0], dropped[1])


def training_mrr(model, params, vectors, triples):
    """Filtered MRR of both directions of the training triples, a query at a time."""
    facts, inverses = set(map(tuple, triples.tolist())), 0.0
    score = SCORES[model.score]
    for head, relation, tail in triples.tolist():
        for reverse in (False, True):
            start, gold = (tail, head) if reverse else (head, tail)
            row = jnp.array([relation + RELATIONS * reverse])
            q, _ = model.apply(params, vectors[start][None], row, method="query")
            scores = np.asarray(score.match(q, vectors))[0]
            better = [
                e
                for e in range(len(vectors))
                if scores[e] >= scores[gold] and ((e, relation, tail) if reverse else (head, relation, e)) not in facts
            ]
            inverses += 1 / (1 + len(better))
    return inverses / (2 * len(triples))


def test_a_tiny_graph_is_learned_by_heart():
    """20 entities, 3 relations, 40 triples: the full model must reach MRR 1.0."""
    rng = np.random.default_rng(1)
    triples = np.unique(rng.integers(0, [20, RELATIONS, 20], (60, 3)), axis=0)
    triples = rng.permutation(triples)[:40].astype(np.int32)
    inputs = tiny_inputs(20, (5,))
    known = jax.tree.map(jnp.asarray, index_known(triples, 20, RELATIONS))
    model, optimizer = tiny(entities=20, width=16, estimator="infonce"), create_optimizer(5e-3, 0.1)
    objective = tiny_objective(pool=20, structure_dropout=0.1, regularisation=0.0)
    run = make_train_program(model, optimizer, objective, batch_size=40, triples=40, devices=1)
    encode = make_encode_program(model, devices=1)
    state = create_train_state(model, optimizer, inputs, seed=0)
    before = training_mrr(model, state.params, encode(state.params, inputs)[0].answers, triples)
    for _ in range(300):
        state, _ = run(state, TrainData(jnp.asarray(triples), known, inputs), jnp.int32(1))
    after = training_mrr(model, state.params, encode(state.params, inputs)[0].answers, triples)
    assert before < 0.6 and after == 1.0
