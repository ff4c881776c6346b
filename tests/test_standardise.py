"""Standardised features: moments over the present rows, and nothing of the others."""

import hashlib
import tracemalloc

import numpy as np
import pytest

from mocme_jax.data.features.standardise import standardise
from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph, Modality


def example(rows=200, width=8, seed=0):
    rng = np.random.default_rng(seed)
    present = rng.random(rows) < 0.7
    features = (rng.standard_normal((rows, width)) * rng.uniform(4, 6, width) + 30).astype(np.float32)
    features[~present] = 0
    return Modality("text", features, present)


def test_columns_over_the_present_rows():
    modality = example()
    result = standardise(modality)
    assert result.name == "text"
    assert result.features.dtype == np.float32
    np.testing.assert_array_equal(result.present, modality.present)
    np.testing.assert_array_equal(result.features[~modality.present], 0)
    rows = result.features[modality.present].astype(np.float64) * np.sqrt(8)
    np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-4)
    # One scale for all columns: their deviations keep their proportions.
    given = modality.features[modality.present].astype(np.float64)
    spread = given.std(axis=0) / np.sqrt(np.mean(given.var(axis=0)))
    np.testing.assert_allclose(rows.std(axis=0), spread, rtol=1e-2)
    assert np.mean(np.sum(result.features[modality.present] ** 2, axis=1)) == pytest.approx(1, rel=1e-3)


def test_scale_offset_and_missing_rows_do_not_matter():
    modality = example()
    moved = Modality("text", np.where(modality.present[:, None], 7 * modality.features - 3, 0), modality.present)
    np.testing.assert_allclose(standardise(moved).features, standardise(modality).features, atol=1e-4)
    for hidden in (np.nan, np.inf, 1e30):
        features = np.where(modality.present[:, None], modality.features, np.float32(hidden))
        result = standardise(Modality("text", features, modality.present))
        np.testing.assert_array_equal(result.features, standardise(modality).features)
    only = modality.present
    alone = standardise(Modality("text", modality.features[only], np.ones(only.sum(), bool)))
    np.testing.assert_array_equal(alone.features, standardise(modality).features[only])


def test_the_input_is_left_as_it_was():
    modality = example()
    before = modality.features.copy()
    standardise(modality)
    np.testing.assert_array_equal(modality.features, before)


def test_rare_and_constant_columns_do_not_blow_up():
    modality = example()
    modality.features[modality.present, 0] = 4.0
    modality.features[modality.present, 1] = 0.0
    rare = np.flatnonzero(modality.present)[0]
    modality.features[rare, 1] = 1e-3
    features = standardise(modality).features
    np.testing.assert_array_equal(features[:, 0], 0)
    assert np.abs(features[:, 1]).max() < 0.01
    modality.features[rare, 1] = 1e6
    clipped = standardise(modality).features * np.sqrt(8)
    assert clipped[rare, 1] == pytest.approx(5.0)
    assert np.abs(clipped).max() <= 5 + 1e-5


@pytest.mark.parametrize("attributes", [1, 3, 100])
def test_numbers_of_rare_attributes_keep_their_order(attributes):
    """With many attributes that few entities have, large and small numbers were clipped to the same feature."""
    rng = np.random.default_rng(0)
    features = np.zeros((2000, 2 * attributes), np.float32)
    own = rng.integers(attributes, size=2000)
    values = rng.uniform(-1, 1, 2000).astype(np.float32)
    features[np.arange(2000), own], features[np.arange(2000), attributes + own] = values, 1
    found = standardise(Modality("numeric", features, np.ones(2000, bool))).features
    for attribute in range(attributes):
        of_it = np.flatnonzero(own == attribute)
        order = of_it[np.argsort(values[of_it])]
        assert (np.diff(found[order, attribute]) > 0).all()
    # An outlier is clipped all the same: its feature is less than proportional to it.
    features[7, own[7]] = 1e3
    again = standardise(Modality("numeric", features, np.ones(2000, bool))).features
    others = np.delete(np.arange(2000), 7)
    ratio = np.abs(again[others]).max() / np.abs(features[others]).max()
    assert 0 < again[7, own[7]] < 0.9 * 1e3 * ratio


def test_runs_of_features_that_were_scaled_in_another_way_are_not_read():
    """Version 0.4.0 clipped features that are mostly 0, so their digest is no longer its digest."""
    dense = example().features
    sparse = np.where(np.arange(8) < 2, dense, 0)
    triples, present = np.zeros((1, 3), np.int32), np.ones(200, bool)
    for features, same in ((dense, True), (sparse, False)):
        modality = Modality("numeric", features, present)
        names = [f"e{number}" for number in range(200)]
        graph = KnowledgeGraph("tiny", names, ["r"], triples, triples[:0], triples[:0], (modality,))
        digest = hashlib.sha256(b"numeric" + features.tobytes() + present.tobytes()).hexdigest()
        assert (graph.fingerprints()[1]["modality numeric"] == digest) is same


@pytest.mark.parametrize("rows", [0, 1])
def test_nobody_or_one_entity_has_it(rows):
    present = np.zeros(5, bool)
    present[:rows] = True
    features = np.where(present[:, None], np.float32(7), 0) * np.ones((5, 3), np.float32)
    result = standardise(Modality("image", features, present))
    np.testing.assert_array_equal(result.features, 0)


def test_a_constant_modality_is_zero():
    result = standardise(Modality("image", np.full((4, 3), 2.5, np.float32), np.ones(4, bool)))
    np.testing.assert_array_equal(result.features, 0)


def test_blocks_give_the_formula_and_the_memory_is_bounded():
    """Against NumPy on all rows at once, over 59 blocks; at most 2.2 times the features are held at any time."""
    rng = np.random.default_rng(0)
    features = (rng.standard_normal((60_000, 200)) * rng.uniform(1, 9, 200) + 5).astype(np.float32)
    present = rng.random(60_000) < 0.7
    rows = features[present].astype(np.float64)
    centred = rows - rows.mean(axis=0)
    expected = np.clip(centred / np.sqrt(np.mean(centred**2)), -5, 5) / np.sqrt(200)
    tracemalloc.start()
    result = standardise(Modality("text", features, present))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(result.features[present], expected, rtol=1e-6, atol=1e-9)
    assert not result.features[~present].any()
    # The given features were there before.
    assert peak + features.nbytes < 2.2 * features.nbytes
