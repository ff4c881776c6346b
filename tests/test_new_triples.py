"""The most probable new triples, beside all of a small graph's scored at once."""

import numpy as np
import pytest
from test_use import all_scores, known_answers

from mocme_jax.serving import new_triples as module
from mocme_jax.serving.calibration import missing_shares
from mocme_jax.serving.new_triples import new_triples


def brute_force(model, relations, exclude):
    """Value (share times how often a question has an answer) by triple, of the better direction, in float64."""
    scores, known = all_scores(model), known_answers(model)
    calibration, count, everyone = model.calibration, len(model.relations), len(model.entities)
    values = {}
    for relation in relations:
        for directed in (relation, relation + count):
            sharpness, doubt = (part[directed] for part in calibration.answers)
            for entity in range(everyone):
                there = known.get((entity, directed), {})
                new = [e for e in range(everyone) if e not in (*there, entity)]
                logits = sharpness * scores[directed, entity].astype(np.float64)
                powers = np.exp(logits - logits[new].max())
                missing = calibration.missing[directed, int(bool(there))]
                for answer in range(everyone):
                    if there.get(answer) in exclude or answer == entity:
                        continue
                    rivals = powers[new].sum() + (powers[answer] if answer in there else 0)
                    number = len(new) + (answer in there)
                    share = doubt / number + (1 - doubt) * powers[answer] / rivals
                    triple = (entity, relation, answer) if directed < count else (answer, relation, entity)
                    values[triple] = max(values.get(triple, 0), share * missing)
    return values


@pytest.mark.parametrize(
    ("k", "relations", "exclude"),
    [(40, None, ("train", "valid", "test")), (300, [0, 2], ("train", "valid", "test")), (60, None, ("train",))],
)
def test_they_are_those_of_brute_force(model, monkeypatch, k, relations, exclude):
    # So few answers a question at first that many must be asked again.
    monkeypatch.setattr(module, "_FIRST", 2)
    values = brute_force(model, range(3) if relations is None else relations, exclude)
    expected = sorted(values.values(), reverse=True)[:k]
    found = new_triples(model.served, model.calibration, k, relations=relations, exclude=exclude)
    triples = [tuple(triple) for triple in found.triples.tolist()]
    assert len(set(triples)) == len(triples) == k
    np.testing.assert_allclose([values[triple] for triple in triples], expected, rtol=1e-4)
    assert (found.chance <= found.probability).all()


def test_how_often_an_answer_is_missing_is_counted():
    # Of two relations and four entities; dev answers (0, r0) once more, and (3, r0) for the first time.
    train = np.array([[0, 0, 1], [1, 0, 2], [2, 1, 3]])
    dev = np.array([[0, 0, 2], [0, 0, 3], [3, 0, 1]])
    found = missing_shares(train, dev, 4, 2)
    overall = 5 / 16  # questions that dev answers: (0, r0), (3, r0), (2, r0'), (3, r0'), (1, r0')
    assert found[0].tolist() == pytest.approx([(1 + overall) / 3, (1 + overall) / 3])
    assert found[1].tolist() == pytest.approx([overall / 4, overall / 2])
    assert found[2].tolist() == pytest.approx([(1 + overall) / 3, (2 + overall) / 3])
