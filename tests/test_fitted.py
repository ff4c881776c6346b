"""Structure fitted to the triples of a new entity, beside the same steps on a loss that is written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_use import known_answers

from mocme_jax.method.encoder import Carried
from mocme_jax.serving import fitted_structure as fitted
from mocme_jax.serving.exported_tables import cardinality_of
from mocme_jax.serving.fitted_structure import STEPS, given_answers

TRIPLES = [("new", "next", "place 7"), ("place 5", "next", "new"), ("new", "member of", "place 6")]


def features_of(model, index):
    return {m.name: np.where(m.present[:, None], m.features, np.nan)[[index]] for m in model.graph.modalities}


def written_out(model, start, features, present, given):
    """The row after the steps, of one loss a question over a list of its candidates."""
    served, relations, count = model.served, len(model.relations), len(model.entities)
    variables, score = served.params.model, served.model.score.name
    assert score == "complex"
    parameters, known = variables["params"], known_answers(model)
    experts = model.served.model.encoder.experts
    table, answers = (
        jnp.asarray(model.encode(range(count), answers=one)).reshape(count, experts, -1) for one in (False, True)
    )
    rows = parameters["relation"].reshape(2 * relations, experts, -1)
    # An entity is known by as many training triples as are told of it.
    evidence = jnp.log1p(jnp.array([len(given)], jnp.float32))
    fusion = parameters["fusion"]
    times, bonus = cardinality_of(model)
    answered = times > 0
    config = model.saved["config"]

    def fused_score(h, relation, t):
        """Of entities that are weighed already, ``[..., H, d]``."""
        half = h.shape[-1] // 2
        h, r, t = (x[..., :half] + 1j * x[..., half:] for x in (h, rows[relation], t))
        return jnp.sum(jnp.exp(fusion["relation"][relation]) * jnp.sum(h * r * jnp.conj(t), axis=-1).real, axis=-1)

    def loss(row):
        encoding = served.model.apply(variables, Carried(row[None], features, present, evidence), method="encode")
        own, total = encoding.vectors[0], 0.0
        sides = jnp.where(encoding.has, fusion["has"], fusion["lacks"]) + evidence * fusion["evidence"]
        asking, answering = (jnp.exp(side)[:, None] * own for side in sides)
        for relation, answer in given:
            mine = {a for r, a in given if r == relation}
            candidates = np.array([e for e in range(count) if e == answer or e not in mine])
            scores = fused_score(asking, relation, answers[candidates])
            scores += np.where(answered[candidates, relation], bonus[relation], 0)
            total += jax.nn.logsumexp(scores) - scores[candidates.tolist().index(answer)]
            back = (relation + relations) % (2 * relations)
            there = {*known.get((answer, back), {}), answer}
            rivals = np.array([e for e in range(count) if e not in there])
            scores = fused_score(table[answer], back, answers[rivals])
            scores += np.where(answered[rivals, back], bonus[back], 0)
            mine = fused_score(table[answer], back, answering)
            total += jax.nn.logsumexp(jnp.append(scores, mine)) - mine
            # The root has no slope at 0.
            moduli, sizes = (
                jnp.sqrt(sum(half**2 for half in jnp.split(x, 2, axis=-1)) + 1e-18) for x in (own, rows[relation])
            )
            # A product's modulus is that of its factors.
            penalties = {"n3": jnp.sum(moduli**3), "dura": jnp.sum(moduli**2) + jnp.sum((moduli * sizes) ** 2)}
            total += config["loss"]["regularisation"] * penalties[config["loss"]["regulariser"]]
        return total

    slope, row, squares = jax.jit(jax.grad(loss)), jnp.asarray(start), 0.0
    for _ in range(STEPS):
        gradient = slope(row)
        squares = squares + gradient**2
        # Rows of experts that have features of the entity are read by nothing, and stay.
        step = jnp.where(squares > 0, gradient / jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)
        row = row - config["train"]["table_learning_rate"] * step
    return np.asarray(row), loss(jnp.asarray(start)) - loss(row)


@pytest.mark.parametrize(("structure", "regulariser"), [("missing", "dura"), ("inferred", "dura"), ("inferred", "n3")])
@pytest.mark.slow
def test_the_row_is_that_of_the_loss_written_out(model, structure, regulariser, monkeypatch):
    monkeypatch.setitem(model.saved["config"]["loss"], "regulariser", regulariser)
    features = features_of(model, 5)
    grown = model.add_entities(["new"], features, TRIPLES, structure=structure)
    before = model.add_entities(["new"], features, TRIPLES, structure=structure, fit=False)
    relations, place = model.relations, model.entities
    given = [
        (relations.ids(["next"])[0], place.ids(["place 7"])[0]),
        (relations.ids(["next"])[0] + len(relations), place.ids(["place 5"])[0]),
        (relations.ids(["member of"])[0], place.ids(["place 6"])[0]),
    ]
    inputs = before.served.inputs
    rows = tuple(x[-1:] for x in inputs.features)
    start = before.served.params.structure[-1]
    expected, gained = written_out(model, start, rows, inputs.present[-1:].at[0, 0].set(True), given)
    assert gained > 1
    np.testing.assert_allclose(grown.served.params.structure[-1], expected, rtol=2e-3, atol=2e-3)
    assert grown.served.inputs.present[-1, 0]


def test_what_is_known_of_an_entity_answers_and_nobody_else_moves(model):
    features = {name: np.repeat(rows, 2, axis=0) for name, rows in features_of(model, 5).items()}
    triples = [*TRIPLES, ("bare", "next", "new")]
    grown = model.add_entities(["new", "bare"], features, triples)
    still = model.add_entities(["new", "bare"], features, triples, fit=False)

    def rank(one, *question, answer):
        return [found.name for found in one.complete(*question, k=50)].index(answer)

    assert rank(grown, "new", "next", answer="place 7") < rank(still, "new", "next", answer="place 7")
    assert rank(grown, "place 5", "next", answer="new") <= 2
    everyone = [*range(len(model.entities)), "bare"]
    np.testing.assert_array_equal(grown.encode(everyone), still.encode(everyone))
    assert np.abs(grown.encode("new") - still.encode("new")).max() > 0.05
    assert grown.score(TRIPLES).mean() > still.score(TRIPLES).mean() + 0.1


def test_answers_are_of_new_entities_and_old_ones():
    triples = np.array([[9, 0, 1], [2, 1, 8], [9, 0, 1], [8, 0, 9], [1, 0, 2]])
    given = given_answers(triples, 8, 2)
    assert [column.tolist() for column in given.T] == [[0, 1], [3, 0], [2, 1]]


def test_an_entitys_answers_stay_together_and_the_first_count():
    places = np.repeat([0, 1, 2, 3], [200, 100, 300, 5])
    groups = [places[group] for group in fitted._groups(places)]
    assert [np.unique(group, return_counts=True)[1].tolist() for group in groups] == [[200], [100], [256], [5]]
    assert list(fitted._groups(np.zeros(0, int))) == []
