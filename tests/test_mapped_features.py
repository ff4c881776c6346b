"""Feature matrices that stay in their file: read without a copy, and standardised for a process's own devices only."""

import mmap
import tracemalloc
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from mocme_jax.data.audit.graph_audit import audit
from mocme_jax.data.features.feature_files import read_feature_file
from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph, make_modality
from mocme_jax.parallel.device_axis import padded_size
from mocme_jax.training.device_data import make_inputs

ENTITIES, WIDTH = 20_000, 64
BYTES = 4 * ENTITIES * WIDTH


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A float32 matrix in which every seventh entity lacks the modality, and its file."""
    rows = np.random.default_rng(0).standard_normal((ENTITIES, WIDTH), dtype=np.float32)
    rows[::7] = np.nan
    path = tmp_path_factory.mktemp("features") / "image.npy"
    np.save(path, rows)
    return rows, path


@contextmanager
def allocations():
    """Yield an object whose ``peak`` is the most that Python and NumPy had allocated in the block, in bytes."""
    found = SimpleNamespace(peak=0)
    tracemalloc.start()
    try:
        yield found
        found.peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def graph_of(modality):
    triples = np.random.default_rng(1).integers(0, [ENTITIES, 3, ENTITIES], (1000, 3)).astype(np.int32)
    parts = triples[:800], triples[800:900], triples[900:]
    return KnowledgeGraph("g", [str(n) for n in range(ENTITIES)], ["a", "b", "c"], *parts, (modality,))


def test_a_matrix_stays_in_its_file(file):
    rows, path = file
    entities = [str(n) for n in range(ENTITIES)]
    with allocations() as memory:
        modality = read_feature_file(path, "image", entities)
        mapped = graph_of(modality)
        digests = mapped.fingerprints()
        report = audit(mapped)
    # Text of the names and triples are allocated, too.
    assert memory.peak < 0.6 * BYTES + 150 * ENTITIES
    base = modality.features
    while isinstance(base, np.ndarray):
        base = base.base
    assert isinstance(getattr(base, "obj", base), mmap.mmap), type(base)
    assert modality.present.tolist() == (np.arange(ENTITIES) % 7 > 0).tolist()
    # A copy in memory has zeros in place of NaN; nothing that is computed from the features differs.
    copied = make_modality("image", rows)
    assert not copied.features[::7].any()
    assert graph_of(copied).fingerprints() == digests
    assert audit(graph_of(copied)).modalities == report.modalities


class OneOfFour:
    """Stands for the mapper of a process that has the second of four devices; it keeps what would be placed."""

    count, own_shares = 4, (1,)

    def table_rows(self, rows, split):
        return padded_size(rows, self.count) if split else rows

    def place_shares(self, share, spec):
        return [share(device) for device in self.own_shares]


def test_a_process_standardises_only_the_rows_of_its_devices(file):
    rows, path = file
    graph = graph_of(read_feature_file(path, "image", [str(n) for n in range(ENTITIES)]))
    with allocations() as memory:
        (own,) = make_inputs(graph, OneOfFour(), split=True)
    assert memory.peak < 0.6 * BYTES
    quarter = ENTITIES // 4
    assert own.features[0].shape == (quarter, WIDTH)
    # By the moments of all entities.
    known = rows[np.arange(ENTITIES) % 7 > 0].astype(np.float64)
    centred = (rows[quarter : 2 * quarter] - known.mean(axis=0)) / np.sqrt(np.mean(known.var(axis=0)))
    expected = np.nan_to_num(np.clip(centred, -5, 5) / np.sqrt(WIDTH))
    np.testing.assert_allclose(own.features[0], expected, atol=1e-6)


def test_devices_without_any_entity_that_has_the_modality_hold_zeros(tmp_path):
    rows = np.full((ENTITIES, 2), np.nan, np.float32)
    rows[:100] = np.random.default_rng(0).standard_normal((100, 2))
    np.save(tmp_path / "image.npy", rows)
    graph = graph_of(read_feature_file(tmp_path / "image.npy", "image", [str(n) for n in range(ENTITIES)]))
    (own,) = make_inputs(graph, OneOfFour(), split=True)
    assert not np.asarray(own.features[0]).any()


@pytest.mark.parametrize("change", ["float64", "big-endian", "by columns", "writeable", "view of writeable"])
def test_what_cannot_be_used_in_place_is_copied(change):
    rows = np.array([[1, 2], [np.nan, np.nan], [3, 4]], np.float32)
    changed = {
        "float64": rows.astype(np.float64),
        "big-endian": rows.astype(">f4"),
        "by columns": np.asfortranarray(rows),
        "writeable": rows,
        "view of writeable": rows[:],
    }[change]
    changed.flags.writeable = change == "writeable"
    modality = make_modality("image", changed)
    assert modality.features.dtype == np.float32
    assert modality.features.tolist() == [[1, 2], [0, 0], [3, 4]]
    assert not np.shares_memory(modality.features, changed)
