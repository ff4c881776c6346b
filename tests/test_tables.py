"""Parquet and HDF5 features: the same rows in every form, and files that claim, link or pack what they should not."""

import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest

from mocme_jax.data.features.feature_files import feature_paths, read_feature_file
from mocme_jax.data.readers.hdf5_file import read_hdf5
from mocme_jax.errors import UserError

FIXTURES = Path(__file__).parent / "fixtures"
ENTITIES = ["a", "b", "c"]
ROWS = np.array([[0, 0.25], [1, 1.25]], np.float32)
WANTED = [[0, 0.25], [0, 0], [1, 1.25]]
HOLED = np.array([[0, 0.25], [np.nan, np.nan], [1, 1.25]], np.float32)


def assert_read(path):
    modality = read_feature_file(path, "image", ENTITIES, lambda line: None)
    assert modality.present.tolist() == [True, False, True]
    np.testing.assert_array_equal(modality.features, WANTED)


def assert_refused(path, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_feature_file(path, "image", ENTITIES)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "package", "extra"), [("image.parquet", "pyarrow", "parquet"), ("image.h5", "h5py", "hdf5")]
)
def test_a_missing_package_is_named(tmp_path, monkeypatch, name, package, extra):
    (tmp_path / name).write_bytes(b"x")
    assert feature_paths(tmp_path, "g") == {"image": tmp_path / name}
    monkeypatch.setitem(sys.modules, package, None)
    assert_refused(tmp_path / name, rf'needs a package; run: .*pip install -e ".*\[{extra}\]"$')


PARQUET = {
    "columns": lambda pa: {"entity": ["c", "a"], "x": [1.0, 0.0], "y": [1.25, 0.25]},
    "null": lambda pa: {"entity": ["a", "b", "c"], "x": [0, None, 1], "y": [0.25, None, 1.25]},
    "lists": lambda pa: {"entity": ["c", "a", "z"], "vector": [[1.0, 1.25], [0.0, 0.25], [7.0, 7.0]]},
    "null list": lambda pa: {"entity": ["a", "b", "c"], "vector": [[0.0, 0.25], None, [1.0, 1.25]]},
    "fixed lists": lambda pa: {
        "entity": ["a", "c"],
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(ROWS.ravel()), 2),
    },
    "index of pandas": lambda pa: {"x": [1.0, 0.0], "y": [1.25, 0.25], "__index_level_0__": ["c", "a"]},
    "ids": lambda pa: {"entity": [2, 0], "x": [1.0, 0.0], "y": [1.25, 0.25]},
    "dictionary": lambda pa: {"entity": pa.array(["c", "a"]).dictionary_encode(), "x": [1, 0], "y": [1.25, 0.25]},
}


@pytest.mark.parametrize("form", PARQUET)
def test_every_form_of_parquet(tmp_path, form):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table(PARQUET[form](pyarrow)), tmp_path / "image.parquet", row_group_size=1)
    assert_read(tmp_path / "image.parquet")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"e": ["a", "b"], "v": [[1.0], [1.0, 2.0]]}, "column 'v' contains lists of different lengths"),
        ({"e": ["a", "b"], "f": ["x", "y"]}, "column 'f' is text; expected numbers"),
        ({"e": ["a", None], "x": [1, 2]}, "column 'e' has empty cells"),
        ({"e": [0.5, 1.5], "x": [1, 2]}, "column 'e' is of type double; expected one column of text"),
        ({"e": ["a", "b"]}, "columns e; expected one of entities and others of numbers"),
        ({"e": ["a", "a"], "x": [1, 2]}, "entity id 0 is given 2 times"),
        ({"e": ["x", "y"], "x": [1, 2]}, "the graph has none of the names"),
        ({"e": ["a", "b"], "x": [1.0, 2.0], "y": [1.0, None]}, "NaN or infinite"),
    ],
)
def test_bad_parquet(tmp_path, columns, message):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "image.parquet"
    parquet.write_table(pyarrow.table(columns), path)
    assert_refused(path, message)
    path.write_bytes(path.read_bytes()[:-20])
    assert_refused(path, "truncated or not a Parquet file")


def test_a_malformed_column_of_parquet_ends_no_process():
    """Of this one pyarrow 26 can't be asked how long it is: it calls std::terminate."""
    pytest.importorskip("pyarrow")
    assert_refused(FIXTURES / "malformed.parquet", "truncated or not a Parquet file")


def test_parquet_that_makes_much_of_little(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "image.parquet"
    same = pyarrow.array(np.zeros(20_000_000, np.int8))
    parquet.write_table(pyarrow.table({"e": same, "x": same}), path)
    assert path.stat().st_size < 200_000
    assert_refused(path, r"20,000,000 rows of 2 columns in [\d,]+ bytes")
    parquet.write_table(pyarrow.table({"e": ["a"], "v": [np.zeros(10_000_000)]}), path)
    assert_refused(path, r"contains more than 67,108,864 bytes from [\d,]+ compressed bytes")


HDF5 = {
    "ids": {"ids": np.array([2, 0]), "rows": ROWS[::-1]},
    "names": {"ids": ["c", "a", "z"], "rows": np.array([*ROWS[::-1], [7, 7]])},
    "present": {"rows": np.nan_to_num(HOLED), "present": np.array([True, False, True])},
    "one matrix": {"anything": HOLED},
    "vectors by name": {"c": ROWS[1], "a": ROWS[0], "z": np.array([7, 7], np.float32)},
}
PACKED = [
    *({}, {"chunks": (1, 2)}, {"chunks": (2, 1), "compression": "gzip"}),
    {"chunks": (2, 2), "compression": "gzip", "shuffle": True},
]


@pytest.mark.parametrize("form", HDF5)
@pytest.mark.parametrize("packed", PACKED, ids=str)
def test_every_form_of_hdf5(tmp_path, form, packed):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "image.h5", "w") as file:
        for name, array in HDF5[form].items():
            fits = np.ndim(array) == 2
            file.create_dataset(name, data=array, **(packed if fits else {}))
    assert_read(tmp_path / "image.h5")


def test_large_packed_hdf5_is_what_h5py_reads(tmp_path):
    h5py = pytest.importorskip("h5py")
    rows = np.random.default_rng(0).normal(size=(300, 41)).round(2)
    for kind in ("<f4", ">f8", "<f2"):
        with h5py.File(tmp_path / "image.h5", "w") as file:
            file.create_dataset("rows", data=rows, dtype=kind, chunks=(70, 16), compression="gzip", shuffle=True)
        modality = read_feature_file(tmp_path / "image.h5", "image", [str(index) for index in range(300)])
        np.testing.assert_array_equal(modality.features, rows.astype(kind).astype(np.float32))


def test_hdf5_leads_to_no_other_file(tmp_path):
    h5py = pytest.importorskip("h5py")
    path, other = tmp_path / "image.h5", tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["rows"] = HOLED
    (tmp_path / "raw").write_bytes(HOLED.tobytes())
    layout = h5py.VirtualLayout((3, 2), np.float32)
    layout[:] = h5py.VirtualSource(other, "rows", (3, 2), np.float32)
    makers = {
        "is a link": lambda file: file.__setitem__("rows", h5py.ExternalLink(str(other), "rows")),
        "'rows' is a link": lambda file: file.__setitem__("rows", h5py.SoftLink("/elsewhere")),
        "stored in other files": lambda file: file.create_virtual_dataset("rows", layout),
        "array 'rows' is stored in other": lambda file: file.create_dataset(
            "rows", (3, 2), np.float32, external=[(str(tmp_path / "raw"), 0, 24)]
        ),
        "'deep' is a group": lambda file: file.create_dataset("deep/rows", data=HOLED),
        "unsupported compression filters": lambda file: file.create_dataset("rows", data=HOLED, compression="lzf"),
        "is of type": lambda file: file.create_dataset("rows", data=np.zeros((3, 2), np.complex64)),
        "contains nothing": lambda file: None,
        "contains x, y; expected the array rows": lambda file: file.update({"x": HOLED, "y": HOLED}),
    }
    for message, make in makers.items():
        with h5py.File(path, "w") as file:
            make(file)
        assert_refused(path, message)
    path.write_bytes(other.read_bytes()[:900])
    assert_refused(path, "truncated or not an HDF5 file")


def test_hdf5_that_makes_much_of_little(tmp_path):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "image.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("rows", (1 << 40, 4), np.float32, chunks=(64, 4))
    assert_refused(path, r"shape \[1099511627776, 4\], for which the file contains")
    with h5py.File(path, "w") as file:
        file.create_dataset("ids", (1 << 22,), h5py.string_dtype(), chunks=(64,))
    assert_refused(path, "array 'ids' is chunked text; save a plain list of entities")
    with h5py.File(path, "w") as file:
        file.create_dataset("rows", (3, 2), np.float32, chunks=(1 << 14, 1 << 14), maxshape=(None, None))
    assert_refused(path, r"shape \[16384, 16384\], for which the file contains")
    with h5py.File(path, "w") as file:
        rows = file.create_dataset("rows", (3, 2), np.float32, chunks=(3, 2), compression="gzip")
        try:
            rows.id.write_direct_chunk((0, 0), zlib.compress(bytes(1 << 28), 1))
        except OSError:
            pytest.skip("this version of HDF5 does not write a chunk that is larger than it should be")
    tracemalloc.start()
    assert_refused(path, "a chunk of the wrong length")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 23


def test_texts_of_hdf5_that_are_one_long_text(tmp_path):
    """Each row of a text is a place in the file, and all may be the same place."""
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "image.h5"
    with h5py.File(path, "w") as file:
        file["ids"] = ["n" * 1_000_000] + ["x"] * 1999
        file["rows"] = np.zeros((2000, 2))
        start, size = file["ids"].id.get_offset(), file["ids"].id.get_storage_size()
    data = bytearray(path.read_bytes())
    data[start : start + size] = data[start : start + size // 2000] * 2000
    path.write_bytes(data)
    tracemalloc.start()
    assert_refused(path, "the graph has none of the names in its 2,000 ids")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 25
    data[start + 8 : start + 16] = bytes(8)
    path.write_bytes(data)
    assert_refused(path, "array 'ids' points to a text that does not exist")


def test_texts_of_hdf5_are_what_h5py_reads(tmp_path):
    h5py = pytest.importorskip("h5py")
    rng = np.random.default_rng(0)
    texts = ["é" * int(rng.integers(0, 400)) + f" {index}" for index in range(3000)] + [""]
    for kind in (None, h5py.string_dtype("utf-8", 900)):
        with h5py.File(tmp_path / "image.h5", "w") as file:
            file["ids"] = np.array([text.encode() for text in texts], kind) if kind else texts
            assert file["ids"].asstr()[()].tolist() == texts
        assert read_hdf5(tmp_path / "image.h5") == {"ids": texts}
