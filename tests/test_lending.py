"""Structure lent by entities that carry much the same: against loops, over devices, and in a model that is loaded."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_runner import run_here
from tiny_graph import tiny_flags, write_tiny_graph

from mocme_jax.additions.addition import changed
from mocme_jax.additions.lending import FILE, UNSEEN, Lending, _highest, find_lenders, read_lenders
from mocme_jax.config import config_from_dict
from mocme_jax.data.features.similarity import SHARPNESS
from mocme_jax.data.features.standardise import standardise
from mocme_jax.data.graph.knowledge_graph import make_modality
from mocme_jax.evaluation import evaluator, ranking
from mocme_jax.method.mocme import EntityVectors
from mocme_jax.parallel.mesh import ROWS, Mapper
from mocme_jax.serving.run_loading import load
from mocme_jax.training.best_model import restore_best
from mocme_jax.training.entity_encoding import Unencoded
from mocme_jax.training.information import measure_information
from mocme_jax.training.setup import builders

ENTITIES = 40


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def some_graph(rng):
    """Two modalities, the second of the first 25 alone; entities from 30 on have no training triple."""
    first = rng.normal(size=(ENTITIES, 6)).astype(np.float32)
    second = np.where(np.arange(ENTITIES)[:, None] < 25, rng.normal(size=(ENTITIES, 4)), np.nan).astype(np.float32)
    modalities = [make_modality("first", first), make_modality("second", second)]
    ends = rng.integers(0, 30, (90, 2))
    return modalities, np.stack([ends[:, 0], np.zeros(90, int), ends[:, 1]], axis=1)


def cosine(a, b):
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / lengths) if lengths > 0 else 0.0


def test_lenders_are_the_ten_most_alike_that_train_shows(rng):
    modalities, train = some_graph(rng)
    found = find_lenders(modalities, train, ENTITIES, 0.5)
    features = [standardise(modality).features.astype(np.float64) for modality in modalities]
    counts = [int(np.sum(train[:, 0] == entity) + np.sum(train[:, 2] == entity)) for entity in range(ENTITIES)]
    np.testing.assert_array_equal(found.triples, counts)
    for entity in range(ENTITIES):
        similar = {
            other: max(sum(cosine(rows[entity], rows[other]) for rows in features), 0)
            for other in range(ENTITIES)
            if counts[other] and other != entity
        }
        best = sorted(similar, key=similar.get, reverse=True)[:10]
        total = sum(similar[other] ** SHARPNESS for other in best)
        own = dict(zip(found.ids[entity].tolist(), found.weights[entity].tolist(), strict=True))
        assert len(own) == 10
        assert entity not in own
        for other in best:
            if similar[other] > 1e-3:
                assert own[other] == pytest.approx(similar[other] ** SHARPNESS / total, abs=1e-5)


@pytest.mark.parametrize("width", [12, 64, 640, 705, 900, 1024])
def test_the_highest_of_a_row_are_those_of_a_sort(rng, width):
    values = rng.normal(size=(30, width)).astype(np.float32)
    values[0, -1], values[1, :10] = 99, 50
    values[2, rng.integers(0, width, 3)] = -np.inf
    wanted = np.sort(np.argsort(-values, axis=1)[:, :10], axis=1)
    np.testing.assert_array_equal(_highest(values, 10), wanted)


def test_without_features_or_others_nobody_lends(rng):
    modalities, train = some_graph(rng)
    assert find_lenders([], train, ENTITIES, 0.5) is None
    assert find_lenders(modalities, np.zeros((3, 3), int), ENTITIES, 0.5) is None


def test_lending_is_a_mean_in_which_neighbours_count_as_a_share_of_a_triple(rng):
    structure = rng.normal(size=(5, 6)).astype(np.float32)
    # 0 and 1 lend; 2 has two triples, 3 has none, and 4 is like nobody.
    ids = np.array([[1, 2], [0, 2], [0, 1], [0, 1], [0, 1]], np.int32)
    weights = np.array([[0, 0], [0, 0], [0.25, 0.75], [0.5, 0.5], [0, 0]], np.float32)
    triples = np.array([3, 1, 2, 0, 0], np.float32)
    got = np.asarray(changed(jnp.asarray(structure), [Lending(ids, weights, triples, np.float32(0.4))]))
    np.testing.assert_allclose(got[[0, 1, 4]], structure[[0, 1, 4]], rtol=1e-6)
    typical = np.linalg.norm(structure[:3], axis=1).mean()
    mean = 0.25 * structure[0] + 0.75 * structure[1]
    mixed = 2 * structure[2] + 0.4 * typical * mean / np.linalg.norm(mean)
    np.testing.assert_allclose(got[2], mixed * np.linalg.norm(structure[2]) / np.linalg.norm(mixed), rtol=1e-5)
    mean = structure[:2].mean(axis=0)
    np.testing.assert_allclose(got[3], UNSEEN * typical * mean / np.linalg.norm(mean), rtol=1e-5)


def test_a_share_of_nothing_changes_those_alone_that_train_never_shows(rng):
    modalities, train = some_graph(rng)
    structure = rng.normal(size=(ENTITIES, 8)).astype(np.float32)
    lenders = find_lenders(modalities, train, ENTITIES, 0.0)
    got = np.asarray(changed(jnp.asarray(structure), [lenders]))
    seen = lenders.triples > 0
    np.testing.assert_allclose(got[seen], structure[seen], rtol=1e-5)
    assert np.abs(got[~seen] - structure[~seen]).min(axis=1).max() > 1e-3


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A tiny run in which structure is lent."""
    folder = tmp_path_factory.mktemp("lending")
    workdir = folder / "run"
    with pytest.MonkeyPatch.context() as patch:
        flags = tiny_flags(write_tiny_graph(folder / "graph"), workdir, data__modalities="all", model__lend=0.5)
        assert run_here("train", *flags, monkeypatch=patch) == 0
    return workdir


def encoded(restored, share, mapper):
    """All entities' vectors ``[N, d]``, encoded with another share on some devices."""
    config, graph = config_from_dict(restored.config.to_dict()), restored.dataset.graph
    config.model.lend = share
    inputs = builders.build_inputs(config, graph, mapper)
    params = mapper.place(jax.device_get(restored.params), "whole")
    encode = builders.build_encode(config, restored.model, graph, mapper, builders.table_additions_of(config, graph))
    vectors, _ = encode(params, inputs)
    return np.asarray(mapper.whole_tables(vectors.answers, ROWS))[: len(graph.entities)]


@pytest.mark.slow
def test_all_devices_lend_alike(run):
    restored = restore_best(run, alone=True)
    alone = encoded(restored, 0.5, Mapper("none", 1))
    assert np.abs(alone - encoded(restored, 0.0, Mapper("none", 1))).max() > 1e-3
    for kind in ("pmap", "shard_map"):
        np.testing.assert_allclose(encoded(restored, 0.5, Mapper(kind, 2)), alone, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_information_and_lending_are_the_same_in_blocks(run, monkeypatch):
    """Seven of 48 entities at a time, on two devices, beside vectors of all entities."""
    monkeypatch.setattr(evaluator, "Ranker", functools.partial(ranking.Ranker, block=7))
    restored, mapper, found = restore_best(run, alone=True), Mapper("shard_map", 2), []
    config, graph = restored.config, restored.dataset.graph
    params = mapper.place(jax.device_get(restored.params), "whole")
    for most, kind in ((1 << 30, EntityVectors), (0, Unencoded)):
        monkeypatch.setattr(builders, "ENCODED_BYTES", most)
        inputs = builders.build_inputs(config, graph, mapper)
        additions = builders.table_additions_of(config, graph)
        scorer = builders.build_scorer(config, restored.model, restored.dataset, mapper, inputs, additions)
        fitted = scorer.fit(params)
        tables, shares = scorer.encode(fitted.params, inputs)
        assert isinstance(tables, kind)
        measured = restored.model, fitted, graph, scorer, mapper, scorer.dev_ranks(fitted)
        told = measure_information(*measured, split=False)
        found.append((scorer.test_ranks(fitted), shares, told))
    (ranks, shares, told), (others, some, again) = found
    np.testing.assert_array_equal(ranks, others)
    np.testing.assert_allclose(shares, some, rtol=1e-5)
    for kind in ("modalities", "experts"):
        nats = [np.array([one["nats"] for one in each[kind].values()]) for each in (told, again)]
        np.testing.assert_allclose(*nats, rtol=1e-4, atol=1e-5)
        assert np.abs(nats[0]).max() > 1e-3


def test_a_loaded_model_answers_from_what_was_evaluated(run):
    restored, model = restore_best(run, alone=True), load(run)
    wanted = encoded(restored, 0.5, Mapper("none", 1))
    got = model.encode(list(range(len(wanted))), answers=True)
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


def test_lenders_are_read_from_the_folder_of_the_run(run, tmp_path):
    restored = restore_best(run, alone=True)
    config, graph = config_from_dict(restored.config.to_dict()), restored.dataset.graph
    (found,) = builders.table_additions_of(config, graph)
    assert (run / FILE).is_file()
    for kept, wanted in zip(read_lenders(run, len(graph.entities), 0.5), found, strict=True):
        np.testing.assert_array_equal(kept, wanted)
    (tmp_path / FILE).write_bytes(found._replace(weights=found.weights / 2).file()[1])
    (kept,) = builders.table_additions_of(config, graph, tmp_path)
    np.testing.assert_array_equal(kept.weights, found.weights / 2)
    config.model.lend = 0.0
    assert builders.table_additions_of(config, graph, tmp_path) == ()


@pytest.mark.parametrize("damage", ["cut", "empty", "another graph's", "no such entity", "missing"])
def test_lenders_are_found_anew_where_the_file_is_of_no_use(run, tmp_path, damage):
    restored = restore_best(run, alone=True)
    config, graph = restored.config, restored.dataset.graph
    (found,) = builders.table_additions_of(config, graph)
    wrong = found._replace(weights=found.weights / 2)
    if damage == "another graph's":
        wrong = Lending(*(rows[1:] for rows in wrong[:3]), wrong.share)
    if damage == "no such entity":
        wrong = wrong._replace(ids=wrong.ids + len(graph.entities))
    path = tmp_path / FILE
    path.write_bytes(wrong.file()[1])
    if damage in ("cut", "empty"):
        path.write_bytes(path.read_bytes()[: 300 if damage == "cut" else 0])
    if damage == "missing":
        path.unlink()
    for kept, wanted in zip(*builders.table_additions_of(config, graph, tmp_path), found, strict=True):
        np.testing.assert_array_equal(kept, wanted)
