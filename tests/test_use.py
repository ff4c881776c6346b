"""A trained model's answers, beside a loop in NumPy over the tables that it gives out."""

import json
import subprocess
import sys

import numpy as np
import pytest
from test_export import with_score

import mocme_jax
from mocme_jax.errors import UserError
from mocme_jax.serving import rated_answers
from mocme_jax.serving.completion import complete_questions
from mocme_jax.serving.exported_tables import cardinality_of


def all_scores(model) -> np.ndarray:
    """Fused ComplEx, float64 ``[2R, N, N]``, from what the model gives out, and cardinality's part.

    Re(sum h r conj t) of each expert, h and t as they are weighed for the entity, times the relation's weight. No
    entity of the tiny graph leads to itself, so that none is an answer to a question about itself: -inf.
    """
    everyone = range(len(model.entities))
    parameters = model.served.params.model["params"]
    weights = np.exp(np.asarray(parameters["fusion"]["relation"], np.float64))

    def joined(x):
        """An expert's complex vectors, ``[n, H, d / 2]``."""
        x = np.asarray(x, np.float64).reshape(len(x), weights.shape[1], -1)
        half = x.shape[2] // 2
        return x[..., :half] + 1j * x[..., half:]

    asked, answers = joined(model.encode(everyone)), joined(model.encode(everyone, answers=True))
    relations = joined(parameters["relation"]) * weights[:, :, None]
    scores = np.einsum("nhd,rhd,mhd->rnm", asked, relations, answers.conj(), optimize=True).real
    times, bonus = cardinality_of(model)
    scores += ((times > 0) * bonus).T[:, None].astype(np.float64)
    for head, relation, tail in model.graph.train.tolist():
        # What has answered this very question and no other.
        for e, r, a in ((head, relation, tail), (tail, relation + len(model.relations), head)):
            scores[r, e, a] -= bonus[r] * (times[a, r] == 1)
    scores[:, everyone, everyone] = -np.inf
    return scores


def known_answers(model) -> dict[tuple[int, int], dict[int, str]]:
    """Answers and their split by question, as a loop over the triples finds them."""
    found = {}
    for split, triples in model.served.facts.splits.items():
        for head, relation, tail in triples.tolist():
            found.setdefault((head, relation), {}).setdefault(tail, split)
            found.setdefault((tail, relation + len(model.relations)), {}).setdefault(head, split)
    return found


def test_answers_are_those_of_a_loop(model):
    scores, known = all_scores(model), known_answers(model)
    fits, curve = model.calibration.answers, model.calibration.answers_curve
    names, count = model.graph.entities, len(model.relations)
    for entity in (0, 7, 30):
        for relation in range(2 * count):
            row, there = scores[relation, entity], known.get((entity, relation), {})
            order = np.argsort(-row, kind="stable")[:9]
            word = model.graph.relations[relation % count]
            ends = {"tail" if relation >= count else "head": names[entity]}
            answers = model.complete(relation=word, k=9, **ends)
            assert [answer.id for answer in answers] == order.tolist()
            np.testing.assert_allclose([answer.score for answer in answers], row[order], atol=1e-5)
            assert [answer.known for answer in answers] == [there.get(e, "new") for e in order.tolist()]
            for answer in answers:
                # The candidates: all entities but the other known answers.
                rivals = [e for e in range(len(names)) if e == answer.id or e not in (*there, entity)]
                powers = np.exp(fits.sharpness[relation] * (row[rivals].astype(np.float64) - row[rivals].max()))
                share = powers[rivals.index(answer.id)] / powers.sum()
                share = fits.doubt[relation] / len(rivals) + (1 - fits.doubt[relation]) * share
                assert answer.probability == pytest.approx(float(curve(share)), abs=1e-5)


def test_what_is_excluded_is_left_out_and_nothing_else(model):
    scores, known = all_scores(model), known_answers(model)
    for entity, relation in list(known)[:12]:
        there = known[entity, relation]
        for exclude in ((), ("train",), ("valid", "test"), ("train", "valid", "test")):
            order = np.argsort(-scores[relation, entity], kind="stable")[:-1]
            kept = [e for e in order if there.get(e) not in exclude]
            found = model.answer(np.array([[entity, relation]]), len(model.entities), exclude)
            ids = found.ids[0]
            assert ids[ids >= 0].tolist() == kept


def test_a_question_asked_again_has_its_answers_in_its_place_and_costs_nothing(model, monkeypatch):
    questions = np.array([[3, 1], [0, 0], [3, 1], [2, 3], [0, 0], [3, 1], [0, 1]])
    alone = [model.answer(question[None], 4) for question in questions]
    counts = []

    def counting(served, questions, *args, **kwargs):
        counts.append(len(questions))
        return complete_questions(served, questions, *args, **kwargs)

    monkeypatch.setattr(rated_answers, "complete_questions", counting)
    together = model.answer(questions, 4)
    assert counts == [4]
    for place, one in enumerate(alone):
        assert together.ids[place].tolist() == one.ids[0].tolist()
        assert together.known[place].tolist() == one.known[0].tolist()
        np.testing.assert_allclose(together.scores[place], one.scores[0], atol=1e-5)
        np.testing.assert_allclose(together.probability[place], one.probability[0], atol=1e-6)


def test_no_questions_have_no_answers(model):
    assert model.complete(head=[], relation="next") == []
    assert model.complete(head=[], tail=[]) == []


def test_one_question_or_many_give_the_same(model):
    names = model.graph.entities
    together = model.complete(head=names, relation="next", k=3)
    assert len(together) == len(names)
    for name, answers in list(zip(names, together, strict=True))[::7]:
        alone = model.complete(head=name, relation="next", k=3)
        assert [a.id for a in alone] == [a.id for a in answers]
        assert [a.probability for a in alone] == pytest.approx([a.probability for a in answers], abs=1e-5)
    assert len(model.complete(head=names[0], relation="next", k=1000)) == len(names) - 1


def test_ranks_are_those_of_the_evaluation(model, tiny_run):
    results = json.loads((tiny_run / "results.json").read_text(encoding="utf-8"))
    test, count = model.graph.test, len(model.relations)
    heads, relations, tails = test.T
    asked = np.concatenate([test, np.stack([tails, relations + count, heads], axis=1)])
    everyone = len(model.entities)
    found = complete_questions(model.served, asked[:, :2], everyone, np.ones(2 * count), asked=asked[:, 2])
    ranks = 1 + np.argmax(found.ids == asked[:, 2:], axis=1)
    assert (1 / ranks).mean() == pytest.approx(results["test"]["overall"]["mrr"], abs=1e-6)


def test_relations_are_completed(model):
    scores, count = all_scores(model), len(model.relations)
    pairs = [(0, 1), (5, 29), (8, 6)]
    answers = model.complete(head=[h for h, _ in pairs], tail=[t for _, t in pairs], k=count)
    for (head, tail), listed in zip(pairs, answers, strict=True):
        means = [(scores[r, head, tail] + scores[r + count, tail, head]) / 2 for r in range(count)]
        assert [answer.id for answer in listed] == np.argsort(-np.array(means)).tolist()
        np.testing.assert_allclose([answer.score for answer in listed], np.sort(means)[::-1], atol=1e-5)
        assert all(0 <= answer.probability <= 1 for answer in listed)
        triples = [(head, r, tail) for r in range(count)]
        np.testing.assert_allclose(model.score(triples), means, atol=1e-5)


def test_neighbours_are_the_nearest_by_cosine(model):
    vectors = model.encode(range(len(model.entities))).astype(np.float64)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for entity in (3, 20):
        cosines = unit @ unit[entity]
        cosines[entity] = -np.inf
        near = model.neighbours(entity, 5)
        assert [one.id for one in near] == np.argsort(-cosines)[:5].tolist()
        np.testing.assert_allclose([one.similarity for one in near], np.sort(cosines)[::-1][:5], atol=1e-5)


def test_neighbours_of_a_model_of_distances_are_by_what_the_experts_say(model):
    """The log weights that stand behind their vectors are no coordinates."""
    other = with_score(model, "transe")
    joined = other.encode(range(len(model.entities))).astype(np.float64)
    assert joined.shape == (48, 4 * (8 + 1))

    def nearest(vectors):
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        cosines = unit @ unit[3]
        cosines[3] = -np.inf
        return np.argsort(-cosines)[:5].tolist()

    assert [one.id for one in other.neighbours(3, 5)] == nearest(joined[:, :32]) != nearest(joined)


def test_a_calibration_is_kept_and_belongs_to_its_checkpoint(model, tiny_run):
    before = model.calibration
    kept = json.loads((tiny_run / "calibration.json").read_text(encoding="utf-8"))
    assert kept["of"] == model.identity
    assert kept["report"]["splits"].keys() == {"dev", "test"}
    again = mocme_jax.load(tiny_run).calibration
    np.testing.assert_array_equal(again.answers.sharpness, before.answers.sharpness)
    np.testing.assert_array_equal(again.answers_curve.right, before.answers_curve.right)
    from mocme_jax.serving.calibration import read_calibration

    assert read_calibration(tiny_run, model.identity | {"best_epoch": -1}) is None


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ({"head": "plaec 12", "relation": "next"}, ["entity 'plaec 12'", "did you mean", "place 12"]),
        ({"head": "place 12", "relation": "memberof"}, ["relation 'memberof'", "member of"]),
        ({"head": "place 12"}, ["two of head, relation and tail"]),
        ({"head": 48, "relation": "next"}, ["entity id 48", "0 to 47"]),
        ({"head": ["place 1", "place 2"], "relation": ["next"] * 3}, ["2 of head and 3 of relation"]),
        ({"head": "place 1", "relation": "next", "k": 0}, ["k is 0"]),
        ({"head": "place 1", "relation": "next", "exclude": ("tset",)}, ["split 'tset'", "train, valid, test"]),
        ({"head": "place 1", "tail": "place 2", "exclude": ("tset",)}, ["split 'tset'", "train, valid, test"]),
    ],
)
def test_what_a_user_gets_wrong_is_said_in_a_line(model, question, words):
    with pytest.raises(UserError) as caught:
        model.complete(**question)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_to_import_the_package_is_to_import_no_jax():
    code = "import sys, mocme_jax; assert 'load' not in vars(mocme_jax); print('jax' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "False\n"), result.stderr
