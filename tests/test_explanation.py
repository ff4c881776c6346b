"""Explanations: sums, and masks beside a graph that lacks what is masked."""

import json

import numpy as np
import pytest

from mocme_jax.parallel.entity_tables import Inputs, look_up
from mocme_jax.serving import compiled_queries as programs
from mocme_jax.serving.explanation import carried_by, masked_scores
from mocme_jax.serving.exported_tables import cardinality_of

TRIPLE = ("place 4", "next", "place 5")


def complex_score(model, head, relation, tail) -> float:
    """Mean ComplEx score of a triple of vectors in both directions, in float64."""
    rows = np.asarray(model.served.params.model["params"]["relation"], np.float64)

    def joined(x):
        return x[: len(x) // 2] + 1j * x[len(x) // 2 :]

    h, t, r, back = map(joined, (head, tail, rows[relation], rows[relation + len(model.relations)]))
    return float(((h * r * t.conj()).sum().real + (t * back * h.conj()).sum().real) / 2)


def test_weights_sum_to_one_and_what_is_missing_weighs_nothing(model):
    present = {m.name: m.present for m in model.graph.modalities}
    for triple in (TRIPLE, ("place 13", "opposite", "place 37")):
        why = model.explain(triple)
        for end in (why.head, why.tail):
            assert sum(end.weights.values()) == pytest.approx(1, abs=1e-5)
            carried = {"structure", *(name for name, mask in present.items() if mask[end.id])}
            assert {name for name, weight in end.weights.items() if weight > 0} == carried == end.views.keys()
            assert all(sum(views) == pytest.approx(1, abs=1e-5) for views in end.views.values())


def test_the_score_is_the_models_and_masks_are_those_of_a_graph_without(model):
    why = model.explain(TRIPLE)
    head, relation, tail = why.triple
    assert why.score == pytest.approx(model.score([TRIPLE])[0], abs=1e-6)
    assert why.score == pytest.approx((why.asked_for_tail + why.asked_for_head) / 2)
    (added,) = why.additions.values()
    inputs, params = model.served.inputs, model.served.params
    for column, name in enumerate(("structure", *(m.name for m in model.graph.modalities))):
        poorer = Inputs(inputs.features, inputs.present.at[np.array([head, tail]), column].set(False), inputs.panel)
        carried = look_up(params.structure, poorer, np.array([head, tail]), split=False)
        # The panel stays what it is: it stands for the graph, not for the two ends.
        ends = programs.encode_some(model.served.model, params.model, model.served.panel, carried).questions.vectors
        expected = complex_score(model, *np.asarray(ends[:1], np.float64), relation, np.asarray(ends[1], np.float64))
        assert why.without[name] - added == pytest.approx(expected, abs=1e-5), name
    nothing = np.asarray(params.model["params"]["encoder"]["nothing"], np.float64)
    expected = complex_score(model, nothing, relation, nothing)
    assert why.without_any - added == pytest.approx(expected, abs=1e-5)
    train, bonus = model.graph.train.tolist(), cardinality_of(model).whole
    again = any(r == relation and t == tail and h != head for h, r, t in train)
    back = any(r == relation and h == head and t != tail for h, r, t in train)
    expected = (again * bonus[relation] + back * bonus[relation + len(model.relations)]) / 2
    assert added == pytest.approx(expected)
    assert len({round(value, 6) for value in (why.score, *why.without.values())}) >= 3  # masks do something


def test_what_carries_a_triple_is_what_it_loses_without():
    scores = np.array([[5.0, 1.0, 4.0, 6.0, 0.0], [1.0, 2.0, 2.0, 2.0, 0.0]])
    first, second = carried_by(scores, ("structure", "text", "image"))
    assert first == {"structure": pytest.approx(0.8), "text": pytest.approx(0.2)}
    assert list(first) == ["structure", "text"]
    assert second == {}


def test_many_triples_are_masked_as_one_is(model):
    train = model.graph.train[:20]
    together = masked_scores(model.served, train)
    np.testing.assert_allclose(together[3:4], masked_scores(model.served, train[3:4]), atol=1e-5)
    np.testing.assert_allclose(together[:, 0].mean(axis=1), model.score(train.tolist()), atol=1e-5)


def test_the_nearest_training_triples_are_those_of_a_loop(model):
    why = model.explain(TRIPLE, nearest=4)
    head, relation, tail = why.triple
    vectors = model.encode(range(len(model.entities))).astype(np.float64)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    similar = sorted(
        {
            ((unit[h] @ unit[head] + unit[t] @ unit[tail]) / 2, h, t)
            for h, r, t in model.graph.train.tolist()
            if r == relation and (h, t) != (head, tail)
        },
        reverse=True,
    )[:4]
    names = model.entities.readable
    assert [(near.head, near.tail) for near in why.nearest] == [(names[h], names[t]) for _, h, t in similar]
    assert [near.similarity for near in why.nearest] == pytest.approx([s for s, _, _ in similar], abs=1e-5)
    assert json.loads(json.dumps(why.to_dict()))["nearest"][0]["relation"] == "next"
