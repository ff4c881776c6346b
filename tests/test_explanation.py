"""Explanations: sums, and masks beside a graph that lacks what is masked."""

import json

import numpy as np
import pytest

from mocme_jax.parallel.entity_tables import look_up
from mocme_jax.serving.explanation import added_to_score, masked_scores
from mocme_jax.serving.exported_tables import cardinality_of

TRIPLE = ("place 4", "next", "place 5")


def fused_score(model, vectors, has, triple) -> float:
    """Mean fused ComplEx score of a triple in both directions, in float64.

    Args:
      vectors: ``[2, H, d]``, what the experts say of head and tail.
      has: bool ``[2, H]``, whether they have features of them.
      triple: ids.
    """
    (head, relation, tail), count = triple, len(model.relations)
    rows = np.asarray(model.served.params.model["params"]["relation"], np.float64)
    rows = rows.reshape(2 * count, *vectors.shape[1:])

    def joined(x):
        half = x.shape[-1] // 2
        return x[..., :half] + 1j * x[..., half:]

    vectors = joined(np.asarray(vectors, np.float64))
    asked, answering = weights(model, has, (head, tail))
    about = np.exp(np.asarray(model.served.params.model["params"]["fusion"]["relation"], np.float64))

    def own(end, asked_with):
        return (vectors[end] * joined(rows[asked_with]) * vectors[1 - end].conj()).sum(axis=1).real

    forward = asked[0] * about[relation] * answering[1] * own(0, relation)
    backward = asked[1] * about[relation + count] * answering[0] * own(1, relation + count)
    return float((forward + backward).sum() / 2)


def weights(model, has, ids):
    """The experts' weights ``[2, n, H]`` where entities are asked about, and where they answer."""
    fusion = {k: np.asarray(v, np.float64) for k, v in model.served.params.model["params"]["fusion"].items()}
    triples = np.bincount(np.asarray(model.graph.train)[:, [0, 2]].ravel(), minlength=len(model.entities))
    evidence = np.log1p(triples[list(ids)])
    sides = np.where(np.asarray(has), fusion["has"][:, None], fusion["lacks"][:, None])
    return np.exp(sides + evidence[None, :, None] * fusion["evidence"][:, None])


def test_weights_are_those_with_which_the_ends_are_asked_about(model):
    present = {m.name: m.present for m in model.graph.modalities}
    names = ("structure", *present, "joint expert")
    about = np.exp(np.asarray(model.served.params.model["params"]["fusion"]["relation"], np.float64))
    for triple in (TRIPLE, ("place 13", "opposite", "place 37")):
        why = model.explain(triple)
        relation = why.triple[1]
        for end, asked in ((why.head, relation), (why.tail, relation + len(model.relations))):
            has = [False, *(mask[end.id] for mask in present.values()), any(m[end.id] for m in present.values())]
            own = weights(model, [has], [end.id])[0, 0] * about[asked]
            assert end.weights == pytest.approx(dict(zip(names, own / own.sum(), strict=True)), abs=1e-6)


def test_the_score_is_the_models_and_masks_are_those_of_a_graph_without(model):
    why = model.explain(TRIPLE)
    head, relation, tail = why.triple
    assert why.score == pytest.approx(model.score([TRIPLE])[0], abs=1e-6)
    assert why.score == pytest.approx((why.asked_for_tail + why.asked_for_head) / 2)
    (added,) = why.additions.values()
    inputs, params = model.served.inputs, model.served.params
    for column, name in enumerate(("structure", *(m.name for m in model.graph.modalities))):
        poorer = inputs._replace(present=inputs.present.at[np.array([head, tail]), column].set(False))
        carried = look_up(params.structure, poorer, np.array([head, tail]), split=False)
        ends = model.served.model.apply(params.model, carried, method="encode")
        expected = fused_score(model, ends.vectors, ends.has, why.triple)
        assert why.without[name] - added == pytest.approx(expected, abs=1e-5), name
    # Who carries nothing is zeros to every expert.
    assert why.without_any == added
    train, bonus = model.graph.train.tolist(), cardinality_of(model).whole
    again = any(r == relation and t == tail and h != head for h, r, t in train)
    back = any(r == relation and h == head and t != tail for h, r, t in train)
    expected = (again * bonus[relation] + back * bonus[relation + len(model.relations)]) / 2
    assert added == pytest.approx(expected)
    assert len({round(value, 6) for value in (why.score, *why.without.values())}) >= 3  # masks do something


def test_what_a_modality_adds_to_a_score_is_signed_and_not_told_where_it_is_next_to_nothing():
    names = ("structure", "numeric", "image")
    scores = np.array([[5.0, 1.0, 4.0, 5.5, 0.0], [6.17, 6.0, 13.27, 6.1699, 0.0], [1.0, 1.04, 0.96, 1.0, 0.0]])
    first, second, third = (list(one.items()) for one in added_to_score(scores, names))
    assert first == [("structure", 4.0), ("numeric", 1.0), ("image", -0.5)]
    assert second == [("numeric", pytest.approx(-7.1))]
    assert third == []


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
