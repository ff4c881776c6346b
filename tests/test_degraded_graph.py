"""Graphs made poorer: what changes, what stays, and that shares nest."""

import dataclasses

import numpy as np
import pytest
from tiny_graph import tiny_flags, write_tiny_graph

from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph, Modality
from mocme_jax.errors import UserError
from mocme_jax.flags import parse
from mocme_jax.studies.degraded_graph import noisy, thinned, with_fewer_triples, with_noise, without_rows
from mocme_jax.studies.study import change_dataset
from mocme_jax.training.setup import builders


@pytest.fixture
def graph():
    rng = np.random.default_rng(0)
    present = rng.random(400) < 0.7
    text = np.where(present[:, None], 3 + 2 * rng.standard_normal((400, 5)), 0).astype(np.float32)
    image = rng.standard_normal((400, 3)).astype(np.float32)
    triples = rng.integers(0, 400, (300, 3)).astype(np.int32)
    modalities = (Modality("text", text, present), Modality("image", image, np.ones(400, bool)))
    return KnowledgeGraph("g", list(map(str, range(400))), ["r"], triples, triples[:9], triples[9:20], modalities)


def changed_rows(before, after):
    return set(np.flatnonzero((before.features != after.features).any(axis=1)).tolist())


def test_nothing_asked_changes_nothing(graph):
    for same in (with_noise(graph, 0, 0.0), without_rows(graph, 0, 0.0), with_fewer_triples(graph, 0, 1.0)):
        assert same.fingerprints() == graph.fingerprints()


def test_noise_replaces_so_many_rows_of_one_modality_by_rows_of_its_mean_and_spread(graph):
    poorer = with_noise(graph, 0, 0.5, "text")
    text, other = graph.modalities
    rows = changed_rows(text, poorer.modalities[0])
    assert len(rows) == round(0.5 * text.present.sum())
    assert text.present[list(rows)].all()
    assert poorer.modalities[1] is other
    np.testing.assert_array_equal(poorer.modalities[0].present, text.present)
    everything = noisy(text, 1.0, 0).features[text.present]
    np.testing.assert_allclose(everything.mean(axis=0), 3, atol=0.5)
    np.testing.assert_allclose(everything.std(axis=0), 2, atol=0.4)
    # Noise says nothing of what was there.
    both = np.corrcoef(everything.ravel(), text.features[text.present].ravel())[0, 1]
    assert abs(both) < 0.1


def test_shares_nest_and_rows_keep_their_noise(graph):
    text = graph.modalities[0]
    half, most = noisy(text, 0.5, 0), noisy(text, 0.8, 0)
    rows = changed_rows(text, half)
    assert rows < changed_rows(text, most)
    np.testing.assert_array_equal(half.features[list(rows)], most.features[list(rows)])
    less, least = thinned(text, 0.3, 0), thinned(text, 0.6, 0)
    assert not (least.present & ~less.present).any()


def test_missing_rows_are_gone_from_every_modality(graph):
    poorer = without_rows(graph, 0, 0.5)
    for before, after in zip(graph.modalities, poorer.modalities, strict=True):
        assert after.present.sum() == before.present.sum() - round(0.5 * before.present.sum())
        assert not (after.present & ~before.present).any()
        assert not after.features[~after.present].any()
        np.testing.assert_array_equal(after.features[after.present], before.features[after.present])
    # Which rows are gone is drawn for each modality by itself.
    gone = [b.present & ~a.present for b, a in zip(graph.modalities, poorer.modalities, strict=True)]
    assert (gone[0] != gone[1])[graph.modalities[0].present].any()


def test_a_share_of_train_is_kept_and_dev_and_test_stay(graph):
    poorer = with_fewer_triples(graph, 0, 0.25)
    kept = {tuple(row) for row in graph.train.tolist()}
    assert len(poorer.train) == 75
    assert {tuple(row) for row in poorer.train.tolist()} <= kept
    assert poorer.valid is graph.valid
    assert poorer.test is graph.test
    assert {tuple(row) for row in with_fewer_triples(graph, 0, 0.1).train.tolist()} <= {
        tuple(row) for row in poorer.train.tolist()
    }


def test_what_can_not_be_is_told(graph):
    with pytest.raises(UserError, match="no modality audio for the noise; there are text, image"):
        with_noise(graph, 0, 0.5, "audio")
    with pytest.raises(UserError, match="is 0 triples"):
        with_fewer_triples(graph, 0, 0.001)


def test_a_dataset_of_another_graph_filters_by_all_that_is_known_and_tells_of_it(tmp_path):
    folder = write_tiny_graph(tmp_path / "graph")
    fields = {"data__modalities": "text,numeric"}
    whole = builders.load_dataset(parse(tiny_flags(folder, tmp_path / "run", **fields), "")[0])

    poorer = change_dataset(whole, with_fewer_triples, 0, {"triples": 0.5})
    assert poorer.fingerprint == whole.fingerprint
    assert poorer.parts == whole.parts | {"graph change": '{"triples": 0.5}'}
    assert poorer.known is whole.known
    assert len(poorer.graph.train) == round(0.5 * len(whole.graph.train))
    thin = change_dataset(whole, without_rows, 0, {"missing": 0.5}).graph.modalities
    noise = change_dataset(whole, with_noise, 0, {"noise": 1.0, "noise_in": "numeric"}).graph.modalities
    for before, fewer, noisy_or_not in zip(whole.graph.modalities, thin, noise, strict=True):
        assert fewer.coverage == pytest.approx(before.coverage / 2, abs=0.02)
        shown = (one.features[before.present] for one in (noisy_or_not, before))
        assert np.array_equal(*shown) == (before.name == "text")
    other_seed = change_dataset(whole, with_fewer_triples, 1, {"triples": 0.5}).graph.train
    assert not np.array_equal(poorer.graph.train, other_seed)
    on_disk = dataclasses.replace(whole, graph=whole.graph.replace(mapped=True))
    with pytest.raises(UserError, match="needs its triples in memory"):
        change_dataset(on_disk, with_fewer_triples, 0, {"triples": 0.5})
