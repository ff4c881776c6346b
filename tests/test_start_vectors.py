"""Vectors from elsewhere as the start of the structure: where they land, what is refused, what they are good for."""

import jax
import numpy as np
import pytest
from tiny_graph import write_tiny_graph
from tiny_model import tiny_model

import mocme_jax
from mocme_jax.errors import UserError
from mocme_jax.parallel.mesh import Mapper
from mocme_jax.training.best_model import restore_best
from mocme_jax.training.optimizers import create_optimizers
from mocme_jax.training.start_vectors import make_start
from mocme_jax.training.train_state import plan_train_state

SMALL = dict(width=8, pool=48, batch_size=32, epochs=2, eval_every=1, patience=0, devices=1)


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    folder = write_tiny_graph(tmp_path_factory.mktemp("start") / "tiny")
    return mocme_jax.KnowledgeGraph.from_folder(folder, modalities=("structure",))


@pytest.fixture(scope="module")
def model(graph):
    return tiny_model(widths=(5,), relations=len(graph.relations))


def first_params(model, entities, start, kind="none", count=1, split=False):
    """The structure table and the relation table at the start, on the host."""
    mapper = Mapper(kind, count)
    plan = plan_train_state(
        model,
        create_optimizers(0.1, 0.1),
        entities=entities,
        averages=True,
        guided=False,
        metrics=("loss",),
        mapper=mapper,
        split=split,
        seeds=[3],
        start=start,
    )
    state = jax.device_get(mapper.whole_tables(plan.create(), plan.spec))
    # What is evaluated first is the same.
    for one, other in zip(jax.tree.leaves(state.params), jax.tree.leaves(state.average), strict=True):
        np.testing.assert_array_equal(one, other)
    return state.params.structure, state.params.model["params"]["relation"]


def vectors(rows, width, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)


@pytest.mark.parametrize(
    ("kind", "count", "split"), [("none", 1, False), ("pmap", 2, True), ("shard_map", 8, True), ("shard_map", 2, False)]
)
def test_the_structure_expert_begins_with_the_vectors_and_the_others_by_chance(graph, model, kind, count, split):
    entities, relations = len(graph.entities), len(graph.relations)
    width, own = model.encoder.width, model.score.relation_width(model.encoder.width, model.core_width)
    given, about = vectors(entities, width), vectors(relations, own, 1)
    start = make_start({"entities": given, "relations": about}, graph, model)
    table, relation = first_params(model, entities, start, kind, count, split)
    chance, relation_chance = first_params(model, entities, None)
    np.testing.assert_array_equal(table[:entities, :width], given)
    np.testing.assert_array_equal(table[:entities, width:], chance[:, width:])
    np.testing.assert_array_equal(relation[:relations, :own], about)
    np.testing.assert_array_equal(relation[relations:, :own], np.asarray(model.score.reciprocal(about)))
    np.testing.assert_array_equal(relation[:, own:], relation_chance[:, own:])


def test_what_has_no_vector_begins_by_chance(graph, model):
    entities, width = len(graph.entities), model.encoder.width
    told = []
    some = {"place 7": np.ones(width), "place 3": [2.0] * width, "nowhere": np.ones(width)}
    start = make_start({"entities": some, "relations": {"next": np.full(width, 3)}}, graph, model, told.append)
    table, relation = first_params(model, entities, start)
    chance, relation_chance = first_params(model, entities, None)
    expected = chance.copy()
    expected[graph.entities.index("place 7"), :width] = 1
    expected[graph.entities.index("place 3"), :width] = 2
    np.testing.assert_array_equal(table, expected)
    changed = np.flatnonzero((relation != relation_chance).any(axis=1)).tolist()
    at = graph.relations.index("next")
    assert changed == [at, at + len(graph.relations)]
    assert len(told) == 1
    assert "'nowhere'" in told[0]


def test_both_directions_of_relations_may_be_given(graph, model):
    entities, width = len(graph.entities), model.encoder.width
    both = vectors(2 * len(graph.relations), width)
    start = make_start({"entities": vectors(entities, width), "relations": both}, graph, model)
    np.testing.assert_array_equal(first_params(model, entities, start)[1][:, :width], both)


def test_what_does_not_fit_is_refused_in_a_line(graph, model):
    entities, width = len(graph.entities), model.encoder.width
    good = vectors(entities, width)
    spoilt = good.copy()
    spoilt[5, 1] = np.nan
    for given, told in (
        (good, "found a ndarray"),
        ({}, "found nothing"),
        ({"entities": good, "relation": good}, "'relation'"),
        ({"entities": good[:-1]}, rf"shape \[47, {width}\]; expected \[48, {width}\]"),
        ({"entities": good[:, :-1]}, rf"shape \[48, {width - 1}\]; expected \[48, {width}\]"),
        ({"entities": {"place 3": good[0, :-1]}}, rf"'place 3': has shape \[{width - 1}\]; expected \[{width}\]"),
        ({"entities": {"nowhere": good[0]}}, "none of the names"),
        ({"entities": {}}, "is empty"),
        ({"entities": spoilt}, f"{graph.entities[5]}.* not finite"),
        ({"entities": good.astype(np.complex64)}, "complex numbers"),
        ({"entities": [["a"] * width] * entities}, "not an array of numbers"),
        ({"entities": good, "relations": good[:2]}, rf"shape \[2, {width}\]; expected \[3, {width}\]"),
    ):
        with pytest.raises(UserError, match=told) as raised:
            make_start(given, graph, model)
        assert "\n" not in str(raised.value)
    tucker = tiny_model(widths=(), relations=3, score="tucker")
    own = tucker.score.relation_width(width, tucker.core_width)
    with pytest.raises(UserError, match="cannot be derived"):
        make_start({"entities": good, "relations": vectors(3, own)}, graph, tucker)
    assert make_start({"entities": good, "relations": vectors(6, own)}, graph, tucker).relations.given.all()


def circles():
    """Six circles of eight who all know each other: a pair that is held out follows from the others."""
    pairs = [(a, b) for a in range(48) for b in range(48) if a != b and a // 8 == b // 8]
    rows = [(f"place {a}", "knows", f"place {b}") for a, b in pairs]
    return mocme_jax.KnowledgeGraph.from_triples(rows, valid=0.1, test=0.1)


def dev_curve(graph, folder=None, **options):
    """Dev MRR by epoch of a short training."""
    seen = []
    options = SMALL | options
    mocme_jax.fit(graph, workdir=folder, on_evaluation=lambda row, _: seen.append(row["dev/mrr"]), **options)
    return seen


@pytest.mark.slow
def test_a_good_start_is_ahead_of_chance_and_another_one_is_another_run(tmp_path):
    graph = circles()
    dev_curve(graph, tmp_path / "long", epochs=20, eval_every=20)
    params = restore_best(tmp_path / "long", graph=graph).params
    tables = {"entities": np.asarray(params.structure), "relations": np.asarray(params.model["params"]["relation"])}
    chance = dev_curve(graph)
    ahead = dev_curve(graph, tmp_path / "run", start=tables)
    assert ahead[0] > chance[0] + 0.1, (ahead, chance)
    # The same start goes on, and the model is read without it.
    again = dev_curve(graph, tmp_path / "run", start=tables, epochs=3)
    assert len(again) == 1
    assert mocme_jax.load(tmp_path / "run", graph=graph).results
    other = tables | {"entities": tables["entities"] + 1}
    for start, parts in (
        (other, "start vectors of entities differs"),
        ({"entities": tables["entities"]}, "start vectors of relations differs"),
        (None, "start vectors of entities, start vectors of relations differ;"),
    ):
        with pytest.raises(UserError, match=f"from other start vectors: {parts}"):
            dev_curve(graph, tmp_path / "run", start=start, epochs=4)
    with pytest.raises(UserError, match="from other start vectors"):
        dev_curve(graph, tmp_path / "long", start=tables, epochs=21)
