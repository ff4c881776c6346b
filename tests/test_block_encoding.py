"""Evaluations that encode entities block by block, beside evaluations of tables that were encoded before."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import tiny_inputs, tiny_model

from mocme_jax.additions.cardinality import find_cardinality
from mocme_jax.additions.lending import Lending
from mocme_jax.additions.self_answers import SelfAnswers
from mocme_jax.data.graph.known_tails import known_tails
from mocme_jax.evaluation.evaluation_plan import plan_evaluation
from mocme_jax.evaluation.ranking import ENCODED, Ranker
from mocme_jax.method.mocme import EntityVectors, Params, init_params
from mocme_jax.parallel.entity_tables import inputs_spec
from mocme_jax.parallel.mesh import ROWS, WHOLE, Mapper
from mocme_jax.training.entity_encoding import Unencoded, block_source, make_block_encoding, make_encode_program
from mocme_jax.training.train_state import params_spec

ENTITIES, RELATIONS = 45, 3


def rankers(score, mapper, split, entities=ENTITIES, block=8):
    """A ranker of both kinds of tables, these tables, the parameters, and the shares of both kinds."""
    model = tiny_model(score=score)
    params = init_params(model, jax.random.key(0), entities)
    params = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(1), x.shape), params)
    # Twins: entities 40 and on are the same as 30 and on, so they tie with each other at random floats.
    structure = params.structure.at[40:45].set(params.structure[30:35])
    inputs = tiny_inputs(entities)
    inputs = jax.tree.map(lambda x: x.at[40:45].set(x[30:35]), inputs)
    placed = mapper.place(Params(params.model, structure), params_spec(split))
    inputs = mapper.place(jax.device_get(inputs), inputs_spec(split))
    encodings = (
        make_encode_program(model, entities=entities, mapper=mapper, split=split, block=7),
        make_block_encoding(model, entities=entities, mapper=mapper, split=split),
    )
    (vectors, shares), (tables, some) = (encode(placed, inputs) for encode in encodings)
    train = np.random.default_rng(0).integers(0, [entities, RELATIONS, entities], (150, 3)).astype(np.int32)
    source = block_source(model, entities=entities, devices=mapper.count, split=split)
    ranker = Ranker(
        lambda params, *query: model.apply(params, *query, method="query"),
        model.match,
        mapper=mapper,
        block=block,
        scores=[find_cardinality(train, entities, RELATIONS, 0.5)],
        bars=[SelfAnswers(np.array([True, False, True] * 2))],
        sources={Unencoded: source},
    )
    return ranker, (vectors, tables), placed.model, (shares, some), train


@pytest.mark.slow
@pytest.mark.parametrize("score", ["complex", "rotate"])
@pytest.mark.parametrize(
    ("kind", "count", "split"),
    [("pmap", 1, False), ("pmap", 4, True), ("shard_map", 4, False), ("shard_map", 2, True), ("none", 3, True)],
)
def test_ranks_do_not_depend_on_when_entities_are_encoded(score, kind, count, split):
    mapper = Mapper(kind, count)
    ranker, tables, params, shares, train = rankers(score, mapper, split)
    test = np.random.default_rng(1).integers(0, [ENTITIES, RELATIONS, ENTITIES], (60, 3)).astype(np.int32)
    # Triples whose answer has a twin that is no known answer: they tie.
    test[:5, 2] = np.arange(40, 45)
    plan = plan_evaluation(test, known_tails([train, test], ENTITIES, RELATIONS), chunk=11)
    (before, ties), (during, others) = (ranker(params, one, plan) for one in tables)
    assert ties[:5].sum() >= 3
    np.testing.assert_array_equal(ties, others)
    np.testing.assert_array_equal(before, during)
    np.testing.assert_allclose(shares[0], shares[1], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("score", "block"),
    [
        ("complex", 512),
        ("distmult", 512),
        ("rotate", 512),
        ("transe", 512),
        ("tucker", 512),
        ("complex", 1),
        ("rotate", 2),
    ],
)
def test_equal_entities_tie_whatever_the_score_and_the_block(score, block):
    """Every entity is one of 9, so the number of ties is counted from their classes, at random floats."""
    entities, kinds = 1100, 9
    model = tiny_model(score=score, width=32, widths=())
    rng = np.random.default_rng(0)
    mapper = Mapper("pmap", 1)
    kind = rng.integers(0, kinds, entities)
    vectors = rng.standard_normal((kinds, model.vector_width)).astype(np.float32)[kind]
    placed = mapper.place(EntityVectors(vectors, vectors), EntityVectors(ROWS, ROWS))
    params = init_params(model, jax.random.key(0), 1).model
    params = jax.tree.map(lambda x: x + jax.random.normal(jax.random.key(1), x.shape), params)
    test = rng.integers(0, [entities, RELATIONS, entities], (700, 3)).astype(np.int32)
    ranker = Ranker(
        lambda params, *query: model.apply(params, *query, method="query"), model.match, mapper=mapper, block=block
    )
    plan = plan_evaluation(test, known_tails([test], entities, RELATIONS), chunk=600)
    _, ties = ranker(params, placed, plan)
    known = set(map(tuple, np.concatenate([test, test[:, [2, 1, 0]] + [0, RELATIONS, 0]]).tolist()))
    counts = np.bincount(kind)
    expected = [
        counts[kind[answer]] - sum((entity, relation, other) in known for other in np.flatnonzero(kind == kind[answer]))
        for entity, relation, answer in plan.queries.tolist()
    ]
    np.testing.assert_array_equal(ties, expected)


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_as_for_users")
def test_an_entity_has_the_same_vector_bit_for_bit_wherever_it_is_in_a_block():
    """Ties depend on it: in blocks, and at other positions, as gold answers are. Structure is lent as well."""
    # Without padding, these sizes give other last bits to the rows of a block that are left over by a product.
    entities, size = 225, 45
    model, mapper = tiny_model(widths=(40, 7), width=24), Mapper("shard_map", 1)
    params = init_params(model, jax.random.key(0), entities)
    params = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(1), x.shape), params)
    rng = np.random.default_rng(0)
    lenders = rng.integers(0, entities, (entities, 10)).astype(np.int32)
    weights = rng.dirichlet(np.ones(10), entities).astype(np.float32)
    triples = rng.integers(0, 4, entities).astype(np.float32)
    additions = (Lending(lenders, weights, triples, np.float32(0.5)),)
    encode = make_block_encoding(model, entities=entities, mapper=mapper, split=False, additions=additions)
    tables, _ = encode(params, tiny_inputs(entities, (40, 7)))
    source = block_source(model, entities=entities, devices=1, split=False)
    places = rng.permutation(entities).astype(np.int32)

    def both(params, tables):
        firsts, parts = jnp.arange(0, entities, size, dtype=jnp.int32), jnp.asarray(places).reshape(-1, size)
        with jax.default_matmul_precision("highest"):
            return (
                jax.lax.map(lambda first: source.block(params, tables, first, size), firsts),
                jax.lax.map(lambda part: source.answers(params, tables, part), parts),
            )

    blocks, golds = mapper.map(both, (WHOLE, source.spec), WHOLE)(params.model, tables)
    blocks, golds = (np.asarray(one).reshape(entities, -1) for one in (blocks, golds))
    assert np.ptp(blocks) > 0.1
    np.testing.assert_array_equal(golds, blocks[places])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vectors", "unencoded"])
def test_no_evaluation_gathers_a_table_or_holds_another(kind):
    """Compiled for split tables, no collective is as tall as a device's share, and temporaries do not grow with it."""
    mapper, model = Mapper("shard_map", 4), tiny_model()
    temporaries = []
    for entities in (8000, 64000):
        params = jax.eval_shape(lambda entities=entities: init_params(model, jax.random.key(0), entities))
        shape = jax.eval_shape(lambda: jnp.zeros((entities, model.vector_width)))  # noqa: B023
        inputs = jax.eval_shape(lambda: tiny_inputs(64))
        inputs = jax.tree.map(lambda x: jax.ShapeDtypeStruct((entities, *x.shape[1:]), x.dtype), inputs)  # noqa: B023
        tables = EntityVectors(shape, shape) if kind == "vectors" else Unencoded(params.structure, inputs)
        source = ENCODED if kind == "vectors" else block_source(model, entities=entities, devices=4, split=True)
        test = np.random.default_rng(0).integers(0, [1000, RELATIONS, 1000], (20, 3)).astype(np.int32)
        plan = plan_evaluation(test, known_tails([test], entities, RELATIONS), chunk=8)
        ranker = Ranker(
            lambda params, *query: model.apply(params, *query, method="query"),
            model.match,
            mapper=mapper,
            sources={Unencoded: source},
        )
        program = ranker.lower(
            mapper.placed_shapes(params.model, WHOLE),
            mapper.placed_shapes(tables, source.spec),
            mapper.placed_shapes(plan.chunks(), WHOLE),
        ).compile()
        heights = [
            int(height)
            for line in program.as_text().splitlines()
            if re.search(r" (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)[-a-z]*\(", line)
            for height in re.findall(r"[a-z0-9]+\[(\d+)", line.split(" = ")[1])
        ]
        assert heights
        assert max(heights) < entities // 4, sorted(heights)[-3:]
        temporaries.append(program.memory_analysis().temp_size_in_bytes)
    assert temporaries[1] < temporaries[0] + 4 * 4 * 64000 / 4, "far below one table of 16 columns"
