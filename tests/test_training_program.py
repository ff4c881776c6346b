"""The training program: the same on any number of devices, in any cutting of its steps, and able to learn."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_model import alone, encode, random_params, tiny_inputs, tiny_model, tiny_objective

from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph
from mocme_jax.errors import UserError
from mocme_jax.parallel.entity_tables import inputs_spec
from mocme_jax.parallel.mesh import WHOLE, Mapper
from mocme_jax.training.device_data import make_train_data
from mocme_jax.training.entity_encoding import make_encode_program
from mocme_jax.training.objective import dropout, make_loss
from mocme_jax.training.optimizers import Optimizers, create_optimizers
from mocme_jax.training.shuffling import batch_rows, run_keys
from mocme_jax.training.step import finite, make_train_program
from mocme_jax.training.train_state import plan_train_state

ENTITIES, RELATIONS, TRIPLES, BATCH = 24, 3, 50, 8


@functools.cache
def mapper_of(kind, count):
    """One for all tests, so that its programs are compiled once."""
    return Mapper(kind, count)


ONE = mapper_of("pmap", 1)
SHARDED = mapper_of("shard_map", 4)


@functools.cache
def data(mapper=ONE, split=False):
    return train_data(tiny_triples(), ENTITIES, tiny_placed_inputs(mapper, split), mapper, split=split)


def tiny_triples():
    rng = np.random.default_rng(0)
    triples = np.unique(rng.integers(0, [ENTITIES, RELATIONS, ENTITIES], (80, 3)), axis=0)
    return rng.permutation(triples)[:TRIPLES].astype(np.int32)


def tiny_placed_inputs(mapper=ONE, split=False):
    return mapper.place(jax.device_get(tiny_inputs(ENTITIES, (5,))), inputs_spec(split))


def rows_of(key, step):
    """Which rows a step reads."""
    return np.asarray(batch_rows(run_keys(key)[0], step, batch_size=BATCH, triples=TRIPLES))


def train_data(triples, entities, inputs, mapper=ONE, relations=RELATIONS, **choices):
    graph = KnowledgeGraph("tiny", range(entities), range(relations), triples, triples[:0], triples[:0])
    return make_train_data(graph, inputs, mapper, **choices)


def tiny(**changes):
    return tiny_model(**(dict(widths=(5,)) | changes))


def made(
    model, optimizers, objective, *, entities=ENTITIES, mapper=ONE, split=False, average=0.0, seeds=(1,), **choices
):
    """A compiled program and the plan of its state."""
    loss = make_loss(model, objective, entities=entities, devices=mapper.count, split=split)
    run = make_train_program(
        loss, optimizers, mapper=mapper, split=split, average_steps=average, seeds=len(seeds) > 1, **choices
    )
    metrics = (*loss.metrics, "norm/gradient")
    sizes = dict(entities=entities, mapper=mapper, split=split, seeds=seeds)
    kept = dict(averages=average > 0, guided=loss.guided, metrics=metrics)
    return run, plan_train_state(model, optimizers, **sizes, **kept)


def program(mapper=ONE, split=False, **changes):
    """One program for every way of writing its arguments; see below."""
    return compiled_program(mapper, split, **dict(sorted(changes.items())))


@functools.cache
def compiled_program(mapper, split, sparse=False, fusion="complementarity", average=0.0, **changes):
    """The compiled program and the plan of its state.

    Plain descent: Adagrad's first steps are the signs of gradients, which for a rounding error is a coin's toss.
    """
    model = tiny(fusion=fusion)
    choices = dict(mapper=mapper, split=split, sparse=sparse, average=average, batch_size=BATCH, triples=TRIPLES)
    return made(model, Optimizers(optax.sgd(0.3), optax.sgd(0.3)), tiny_objective(**changes), **choices)


def steps(cuts, state=None, mapper=ONE, split=False, **changes):
    """State (its tables whole and without fillings) after calls of so many steps, and the metrics of each's last."""
    run, plan = program(mapper, split, **changes)
    state, metrics = state or plan.create(), []
    for cut in cuts:
        state, latest = run(state, data(mapper, split), jnp.int32(cut))
        metrics.append(jax.device_get(latest))
    state = jax.device_get(mapper.whole_tables(state, plan.spec))
    cut_off = lambda params: params and params._replace(structure=params.structure[:ENTITIES])  # noqa: E731
    return state._replace(params=cut_off(state.params), average=cut_off(state.average)), metrics


def test_conftest_gives_eight_devices():
    assert len(jax.local_devices()) >= 8


DROPOUTS = {"query_dropout": 0.3}
GATE = {"fusion": "relation_gate", "query_dropout": 0.3, "average": 5.0}


# Together every mapper, whole and split tables, dense and sparse gradients, and every way to draw and to weigh.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "count", "split", "changes"),
    [
        ("pmap", 2, False, {}),
        ("pmap", 4, True, {"sparse": True}),
        ("pmap", 8, True, DROPOUTS),
        ("shard_map", 8, False, {"sparse": True} | GATE),
        ("none", 2, True, {"pool": 1000, "loss": "logistic", "weighting": "self_adversarial"}),
        ("shard_map", 4, True, {"guided": True, "batch_candidates": False, "fusion": "vector_attention"}),
    ],
)
def test_devices_and_mappers_give_the_same_losses_and_parameters(kind, count, split, changes):
    """Ten steps, over an epoch's end; entity weights are on, and so is the fit of a fusion that is fitted on train."""
    plain, plain_metrics = steps((1, 6, 3), **{name: x for name, x in changes.items() if name != "sparse"})
    state, metrics = steps((1, 6, 3), mapper=mapper_of(kind, count), split=split, **changes)
    for one, other in zip(metrics, plain_metrics, strict=True):
        chex.assert_trees_all_close(one, other, rtol=1e-3, atol=1e-4)
    chex.assert_trees_all_close(state.params, plain.params, rtol=1e-3, atol=1e-3)
    chex.assert_trees_all_close(state.average, plain.average, rtol=1e-3, atol=1e-3)
    chex.assert_trees_all_close(state.sums, plain.sums, rtol=1e-3, atol=1e-3)
    chex.assert_trees_all_close(state.entropy, plain.entropy, rtol=1e-3, atol=1e-3)
    assert (state.entropy is not None) == ("guided" in changes)
    assert (state.average is not None) == ("average" in changes)
    assert int(state.step) == 10
    np.testing.assert_array_equal(state.key, plain.key)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"average": 48.0, "guided": True}, {"mapper": SHARDED, "split": False} | GATE])
def test_the_state_is_the_same_to_the_last_bit_however_its_steps_are_cut_into_calls(changes):
    """Over epochs' ends (7 steps) and updates of the average (16), before the first of these too."""
    for total, cuts in ((9, [(1,) * 9, (4, 5)]), (40, [(1,) * 40, (7,) * 5 + (5,), (16, 16, 8), (3, 30, 7)])):
        whole, (latest,) = steps((total,), **changes)
        for cut in cuts:
            parts, metrics = steps(cut, **changes)
            chex.assert_trees_all_equal(parts, whole)
            chex.assert_trees_all_equal(metrics[-1], latest)


def test_metrics_are_added_up_step_by_step():
    """Against a loop in float32, the same sums; a state whose sums begin anew is the same but for them."""
    state, metrics = steps((1,) * 9)
    for name, total in state.sums.totals.items():
        expected = np.float32(0)
        for one in metrics:
            expected += one[name]
        assert total == expected, name
        assert total.dtype == np.float32, name
    assert int(state.sums.steps) == 9


ON_DEVICES = pytest.param({"mapper": SHARDED, "split": False} | GATE, marks=pytest.mark.slow)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"average": 48.0}, ON_DEVICES])
def test_a_step_that_is_not_finite_is_the_last_of_its_call(changes):
    """With a relation's row at the edge of float32, the first loss that uses it overflows."""
    where = changes.get("mapper", ONE), changes.get("split", False)
    run, plan = program(*where, **{name: x for name, x in changes.items() if name not in ("mapper", "split")})
    state, used, bad = plan.create(), np.asarray(data().triples)[:, 1], 0
    relation = state.params.model["params"]["relation"]
    state.params.model["params"]["relation"] = relation.at[0].set(3e38)
    key = jnp.asarray(jax.device_get(state.key))
    while 0 not in used[rows_of(key, bad)]:
        bad += 1
    state, latest = run(state, data(*where), jnp.int32(100))
    assert not finite(latest)
    assert int(state.step) == bad + 1


@pytest.mark.slow
def test_of_several_seeds_one_that_is_not_finite_ends_alone():
    """The call goes on while one is finite. What it says of another is of its first bad step; the rest is untouched."""
    optimizers, objective = Optimizers(optax.sgd(0.3), optax.sgd(0.3)), tiny_objective()
    sizes = dict(batch_size=BATCH, triples=TRIPLES)
    run, plan = made(tiny(), optimizers, objective, seeds=(1, 2, 3), **sizes)
    held = data()

    def end(*bad):
        """The state, the latest metrics, and each seed's first step with relation 0, after a call of 20."""
        state = plan.create()
        relation = state.params.model["params"]["relation"]
        for lane in bad:
            relation = relation.at[lane, 0].set(3e38)
        state.params.model["params"]["relation"] = relation
        rows = [[rows_of(key, step) for step in range(20)] for key in state.key]
        used = np.asarray(data().triples)[np.array(rows), 1]
        first = [1 + int(np.argmax(own)) for own in (used == 0).any(axis=2)]
        return *jax.device_get(run(state, held, jnp.int32(20))), first

    (whole, latest, _), (state, others, first) = end(), end(1)
    assert latest["step"].tolist() == [20, 20, 20]
    assert others["step"].tolist() == [20, first[1], 20]
    assert finite(others).tolist() == [True, False, True]
    for lane in (0, 2):
        for one, other in ((state, whole), (others, latest)):
            stacked = [jax.tree.map(lambda x, n=lane: x[n] if np.ndim(x) else x, tree) for tree in (one, other)]
            chex.assert_trees_all_equal(*stacked)
    state, others, first = end(0, 1, 2)
    assert others["step"].tolist() == first
    assert state.step == max(first) < 20


def test_a_copied_state_goes_on_in_the_same_way():
    middle, _ = steps((5,))
    on, _ = steps((2, 7), state=jax.tree.map(jnp.array, middle))
    again, _ = steps((2, 7), state=jax.tree.map(jnp.array, middle))
    whole, _ = steps((5, 2, 7))
    chex.assert_trees_all_equal(on, again)
    chex.assert_trees_all_equal(on, whole)


def test_training_moves_every_parameter_that_is_used():
    # Away from the start, where gradients are the smallest parts of what they would move.
    plan = program(fusion="relation_gate")[1]
    params = random_params(tiny(fusion="relation_gate"), data().inputs, scale=0.5)
    start = plan.create()._replace(params=ONE.place(jax.tree.map(jnp.copy, params), plan.spec.params))
    state, metrics = steps((7,), state=start, fusion="relation_gate")
    before, after = params, state.params
    still = [
        jax.tree_util.keystr(path)
        for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True)
        if np.array_equal(x, y)
    ]
    assert not still
    assert all(np.isfinite(x) for x in jax.tree.leaves(metrics))
    shares = [metrics[0][f"negatives/share_{name}"] for name in ("easy", "ambiguous", "hard")]
    assert sum(shares) == pytest.approx(1, rel=1e-5)


def test_a_batch_that_does_not_divide_is_an_error():
    arguments = tiny(), create_optimizers(1e-2, 1e-1), tiny_objective()
    with pytest.raises(UserError, match=r"batch_size 6 .* 4 devices"):
        made(*arguments, batch_size=6, triples=TRIPLES, mapper=Mapper("pmap", 4))


class Counting:
    """An optimizer that counts, in the place of the relation table, how often each relation was used."""

    def init(self, params):
        return ()

    def update(self, gradients, state, params):
        zeros = jax.tree.map(jnp.zeros_like, gradients)
        if isinstance(gradients, dict):
            used = jnp.any(gradients["params"]["relation"] != 0, axis=1)
            zeros["params"]["relation"] = zeros["params"]["relation"] + used[:, None]
        return zeros, state


@pytest.mark.parametrize(("triples", "batch"), [(12, 4), (13, 4), (3, 8)])
def test_every_triple_is_visited_in_every_epoch(triples, batch):
    """Each triple has a relation of its own, so that a relation's count is its triple's."""
    rng = np.random.default_rng(0)
    rows = np.stack([rng.integers(0, 24, triples), np.arange(triples), rng.integers(0, 24, triples)], axis=1)
    rows = rows.astype(np.int32)
    model = tiny_model(relations=triples, widths=())
    objective = tiny_objective(weighting="uniform", regularisation=0.0)
    run, plan = made(model, Optimizers(Counting(), Counting()), objective, batch_size=batch, triples=triples)
    held = train_data(rows, ENTITIES, tiny_inputs(ENTITIES, ()), relations=triples)
    relation = lambda state: np.asarray(state.params.model["params"]["relation"])  # noqa: E731
    state = plan.create()
    start, orders = relation(state), []
    per_epoch = -(-triples // batch)
    for epoch in (1, 2):
        for place in range(per_epoch):
            before = relation(state)
            state, _ = run(state, held, jnp.int32(1))
            used = relation(state) - before > 0.5
            if place == 0:
                orders.append(tuple(np.flatnonzero(used[:triples, 0])))
        counts = np.rint((relation(state) - start)[:, 0])
        assert counts.min() >= epoch, "a triple was left out"
        # The last batch is filled up from the epoch's start.
        assert counts.sum() <= 2 * epoch * per_epoch * batch
        np.testing.assert_array_equal(counts[:triples], counts[triples:])
    if triples > batch:
        assert orders[0] != orders[1], "the order must change from epoch to epoch"


@pytest.mark.slow
def test_the_average_is_of_the_parameters_of_every_16th_step():
    """Against a loop: the plain mean at first, then an exponential one over about so many steps."""
    expected, count = None, 0
    state = program(average=48.0)[1].create()
    run, held = program(average=48.0)[0], data()
    # 7 steps an epoch, and calls of 7 steps do not fall in with 16.
    seen = {}
    alone_state = program()[1].create()
    for step in range(1, 113):
        alone_state, _ = program()[0](alone_state, held, jnp.int32(1))
        seen[step] = np.asarray(alone_state.params.structure)
    for call in range(1, 17):
        state, _ = run(state, held, jnp.int32(7))
        for step in range(7 * call - 6, 7 * call + 1):
            if step % 16 == 0:
                count += 1
                pace = max(16 / 48, 1 / count)
                expected = seen[step] if count == 1 else expected + pace * (seen[step] - expected)
        value = seen[7 * call] if count == 0 else expected
        np.testing.assert_allclose(state.average.structure, value, rtol=1e-3, atol=1e-4)
    assert state.evaluated is state.average
    assert alone_state.evaluated is alone_state.params


@pytest.mark.slow
def test_no_step_gathers_the_table():
    """Compiled for split tables, no collective is as tall as the table, nor as a device's share of it."""
    entities = 4000
    mapper, model = Mapper("shard_map", 4), tiny()
    objective = tiny_objective(pool=64)
    arguments = dict(entities=entities, mapper=mapper, batch_size=BATCH, triples=TRIPLES)
    for split in (True, False):
        run, plan = made(model, create_optimizers(0.1, 0.1), objective, split=split, sparse=split, **arguments)
        inputs = mapper.place(jax.device_get(tiny_inputs(entities, (5,))), inputs_spec(split))
        held = data(mapper, split)._replace(inputs=inputs)
        text = run.lower(plan.create(), held, jnp.int32(1)).compile().as_text()
        heights = [
            int(height)
            for line in text.splitlines()
            if re.search(r" (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)[-a-z]*\(", line)
            for height in re.findall(r"[a-z0-9]+\[(\d+)", line.split(" = ")[1])
        ]
        assert heights
        # Whole tables are the counterexample: their dense gradients are added up over the devices.
        assert (max(heights) >= entities // 4) == (not split), sorted(heights)[-3:]


# What costs nothing, and what touches only some rows of a table that is changed where it lies.
FREE = {"parameter", "get-tuple-element", "tuple", "while", "bitcast", "fusion", "call"}
OF_ROWS = {"gather", "scatter", "dynamic-slice", "dynamic-update-slice"}


def passes_over(text, rows):
    """The operations of a compiled program that read or write an array of at least this many rows as a whole."""
    defined = re.findall(r"^ *(?:ROOT )?%?(\S+) = (.*?) ([a-z][a-z0-9-]*)\((.*)", text, re.MULTILINE)
    tall = {name for name, shape, *_ in defined if any(int(n) >= rows for n in re.findall(r"\w\[(\d+)", shape))}
    return {
        operation
        for name, _, operation, rest in defined
        if operation not in FREE | OF_ROWS
        and (name in tall or tall & set(re.findall(r"%([^\s,)]+)", rest.split("metadata=")[0])))
    }


@pytest.mark.slow
@pytest.mark.parametrize("sparse", [True, False])
def test_no_step_passes_over_a_whole_table(sparse):
    """If only read rows are updated, a step's cost does not depend on the number of entities."""
    entities, model = 40_000, tiny()
    inputs = ONE.place(jax.device_get(tiny_inputs(entities, (5,))), inputs_spec(False))
    held = train_data(tiny_triples(), entities, inputs)
    arguments = dict(entities=entities, sparse=sparse, batch_size=BATCH, triples=TRIPLES)
    run, plan = made(model, create_optimizers(0.1, 0.1, rowwise=True), tiny_objective(pool=64), **arguments)
    compiled = run.lower(plan.shapes, held, jnp.int32(1)).compile()
    # Updates of whole tables are the counterexample.
    assert bool(passes_over(compiled.as_text(), entities)) == (not sparse)
    table = 4 * entities * model.encoder.structure_width
    assert (compiled.memory_analysis().temp_size_in_bytes < table) == sparse


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "count", "split", "block"), [("pmap", 2, False, 5), ("shard_map", 4, True, 3), ("none", 1, False, 7)]
)
def test_encoding_everybody_is_the_same_in_any_blocks_on_any_devices(kind, count, split, block):
    model, mapper = tiny(), Mapper(kind, count)
    one, other = (
        make_encode_program(model, entities=ENTITIES, mapper=where, split=cut, block=size)(
            program(where, cut)[1].create().params, data(where, cut).inputs
        )
        for where, cut, size in ((ONE, False, 1024), (mapper, split, block))
    )
    vectors = one[0].answers[0]
    chex.assert_shape(vectors, (ENTITIES, 16))
    for role in ("questions", "answers"):
        expected = getattr(one[0], role)[0]
        np.testing.assert_allclose(np.asarray(getattr(other[0], role)).reshape(-1, 16), expected, rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(other[1], one[1], rtol=1e-4, atol=1e-5)
    assert np.sum(one[1]) == pytest.approx(1, rel=1e-4)


def first_step(**choices):
    """Metrics of a first step, and what it read of each expert: ends ``[2B, H, d]``, and relations."""
    _, plan = program(**choices)
    start, held = plan.create(), data()
    own = jax.device_get(start.params)
    rows = rows_of(jnp.asarray(jax.device_get(start.key)), 0)
    head, kind, tail = np.asarray(held.triples)[rows].T
    _, (means,) = steps((1,), **choices)
    encoding = encode(tiny(), own, held.inputs, np.concatenate([head, tail]))
    vectors = np.asarray(encoding.vectors, np.float64)
    relation = np.asarray(own.model["params"]["relation"], np.float64).reshape(2 * RELATIONS, 2, 8)
    return means, vectors, relation[np.concatenate([kind, kind + RELATIONS])]


def complex_rows(x):
    return x[..., :4] + 1j * x[..., 4:]


def test_the_penalty_is_of_every_experts_entities_and_relations():
    means, ends, relations = first_step()
    cubes = [(np.abs(complex_rows(x)) ** 3).sum(axis=2).mean(axis=0).sum() for x in (ends, relations)]
    # A triple has two ends; each end is asked about once, and its two relations' rows count half.
    assert means["loss/regularisation"] == pytest.approx(0.01 * (2 * cubes[0] + cubes[1]), rel=1e-4)


def test_dura_is_of_answers_and_of_queries():
    means, ends, relations = first_step(regulariser="dura", query_dropout=0.3)
    queries = np.abs(complex_rows(ends) * complex_rows(relations)) ** 2
    expected = 2 * ((ends**2).sum(axis=2) + queries.sum(axis=2)).mean(axis=0).sum()
    assert means["loss/regularisation"] == pytest.approx(0.01 * expected, rel=1e-4)


@pytest.mark.parametrize("guided", [False, True])
def test_no_step_moves_weights_that_are_fitted_on_dev_and_they_move_nothing(guided):
    """Not by a bit, in the parameters and in their average; and with other weights, the rest is the same to the bit."""
    run, plan = program(average=5.0, guided=guided)
    ends = []
    for weight in (0.0, 0.7):
        start = plan.create()
        start.params.model["params"]["fusion"] = jax.tree.map(
            lambda x, value=weight: x + value, start.params.model["params"]["fusion"]
        )
        ends.append(jax.device_get(run(start, data(), jnp.int32(20))[0]))
        for params in (ends[-1].params, ends[-1].average):
            assert all(np.all(x == np.float32(weight)) for x in jax.tree.leaves(params.model["params"].pop("fusion")))
    one, two = ends
    chex.assert_trees_all_equal(one.params, two.params)
    chex.assert_trees_all_equal(one.average, two.average)
    chex.assert_trees_all_equal(one.entropy, two.entropy)


def test_negatives_are_no_known_answers():
    """Masks and numbers of known answers, by a loop over all entities."""
    loss = make_loss(
        tiny(), tiny_objective(pool=1000, batch_candidates=False), entities=ENTITIES, devices=1, split=False
    )
    key, triples = jax.random.key(0), tiny_triples()
    batch, facts = jnp.asarray(triples[:BATCH]), set(map(tuple, triples.tolist()))

    def masks():
        columns = loss.columns(batch, key, None)
        return columns, loss.negatives(data().known, columns, batch)

    columns, found = alone(masks)()
    candidates = np.asarray(columns.ids)[np.asarray(columns.places)][np.asarray(columns.scored)]
    assert sorted(candidates.tolist()) == list(range(ENTITIES))
    row = 0
    for backwards in (False, True):
        for head, relation, tail in batch.tolist():
            ask = (lambda e: (e, relation, tail)) if backwards else (lambda e: (head, relation, e))  # noqa: B023
            own = np.asarray(found.mask[row])[-len(candidates) :]
            assert own.tolist() == [ask(e) not in facts for e in candidates.tolist()]
            assert found.answers[row] == sum(ask(e) in facts for e in range(ENTITIES))
            row += 1
    assert row == len(found.mask)
    # Otherwise this would say little.
    assert max(found.answers) > 1


def test_hidden_components_are_as_many_as_asked_and_scaled_for():
    vectors, rows = jnp.ones((2000, 50)), jnp.arange(2000)
    dropped = np.asarray(dropout(jax.random.key(0), rows, vectors, 0.3))
    assert set(np.unique(dropped)) == {0, np.float32(1 / 0.7)}
    # Five deviations of a share of 100,000 components.
    assert (dropped == 0).mean() == pytest.approx(0.3, abs=5 * (0.3 * 0.7 / 1e5) ** 0.5)
    np.testing.assert_array_equal(dropout(jax.random.key(0), rows[7:9], vectors[:2], 0.3), dropped[7:9])
    assert not np.array_equal(dropped[0], dropped[1])


def training_mrr(model, variables, vectors, triples):
    """Filtered MRR of both directions of the training triples, a query at a time."""
    facts, inverses = set(map(tuple, triples.tolist())), 0.0
    for head, relation, tail in triples.tolist():
        for reverse in (False, True):
            start, gold = (tail, head) if reverse else (head, tail)
            row = jnp.array([relation + RELATIONS * reverse])
            q = model.apply(variables, vectors.questions[start][None], row, method="query")
            scores = np.asarray(model.match(q, vectors.answers))[0]
            better = [
                e
                for e in range(len(vectors.answers))
                if scores[e] >= scores[gold] and ((e, relation, tail) if reverse else (head, relation, e)) not in facts
            ]
            inverses += 1 / (1 + len(better))
    return inverses / (2 * len(triples))


@pytest.mark.slow
def test_a_tiny_graph_is_learned_by_heart():
    """20 entities, 3 relations, 40 triples: the full model must reach MRR 1.0."""
    rng = np.random.default_rng(1)
    triples = np.unique(rng.integers(0, [20, RELATIONS, 20], (60, 3)), axis=0)
    triples = rng.permutation(triples)[:40].astype(np.int32)
    inputs = ONE.place(jax.device_get(tiny_inputs(20, (5,))), WHOLE)
    model, optimizers = tiny(width=16, fusion="mean"), create_optimizers(5e-3, 0.1)
    objective = tiny_objective(pool=20, regularisation=0.0)
    run, plan = made(model, optimizers, objective, entities=20, batch_size=40, triples=40, seeds=(0,))
    encode, state = make_encode_program(model, entities=20, mapper=ONE), plan.create()

    def mrr():
        vectors = jax.tree.map(lambda table: table[0][:20], encode(state.params, inputs)[0])
        return training_mrr(model, state.params.model, vectors, triples)

    before, held = mrr(), train_data(triples, 20, inputs)
    for _ in range(300):
        state, _ = run(state, held, jnp.int32(1))
    assert before < 0.6
    assert mrr() == 1.0
