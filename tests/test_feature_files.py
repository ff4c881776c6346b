"""Feature files: every format says the same, published layouts load as they are, each bad input is named."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from mocme_jax.data.feature_files import feature_paths, modality_name, read_features
from mocme_jax.data.feature_writer import write_features
from mocme_jax.data.graph import make_modality
from mocme_jax.data.safetensors_file import read_safetensors
from mocme_jax.errors import UserError

ENTITIES = ["a", "b", "c"]
FIXTURE = Path(__file__).parent / "fixtures" / "tensor.pth"
ROWS = np.array([[0, 0.25], [0.5, 0.75], [1, 1.25]], np.float32)
HOLED = np.array([[0, 0.25], [np.nan, np.nan], [1, 1.25]], np.float32)


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
    "safetensors NaN": ("image.safetensors", {"anything": HOLED}),
}


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_says_the_same(tmp_path, form):
    name, arrays = FORMATS[form]
    write(tmp_path / name, **arrays)
    (modality,) = read_features(tmp_path, ENTITIES, "g")
    assert modality.name == "image"
    assert modality.present.tolist() == [True, False, True]
    np.testing.assert_array_equal(modality.features, [[0, 0.25], [0, 0], [1, 1.25]])
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
    assert [modality.name for modality in read_features(tmp_path, ENTITIES, "g", ["image"])] == ["image"]


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_what_is_written_is_what_is_read(tmp_path, suffix):
    modality = make_modality("image", HOLED)
    write_features(tmp_path / f"image{suffix}", modality)
    (again,) = read_features(tmp_path, ENTITIES, "g")
    np.testing.assert_array_equal(again.features, modality.features)
    np.testing.assert_array_equal(again.present, modality.present)
    assert [path.name for path in tmp_path.iterdir()] == [f"image{suffix}"]


def one_nan() -> np.ndarray:
    rows = ROWS.copy()
    rows[1, 0] = np.nan
    return rows


BAD = {
    "height": (
        "image.npy",
        {"rows": ROWS[:2]},
        "has 2 rows but the graph has 3 entities; give one row an entity",
    ),
    "height torch": ("image.pt", {}, None),
    "one NaN": ("image.npy", {"rows": one_nan()}, "row 1 .* holds NaN or infinite values and is not masked"),
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
    "objects": ("image.npy", {"rows": np.array([[None]])}, "holds Python objects; save .* float32"),
    "objects in npz": ("image.npz", {"rows": np.array([[{}]])}, "holds Python objects"),
    "id out of range": (
        "image.npz",
        {"ids": np.array([0, 3]), "rows": ROWS[:2]},
        r"ids\[1\] is 3, out of range",
    ),
    "negative id": (
        "image.npz",
        {"ids": np.array([0, -1]), "rows": ROWS[:2]},
        r"ids\[1\] is -1, out of range",
    ),
    "id twice": ("image.npz", {"ids": np.array([2, 2]), "rows": ROWS[:2]}, "entity id 2 is given 2 times"),
    "ids are floats": ("image.npz", {"ids": np.array([0.0, 1]), "rows": ROWS[:2]}, "ids are of type float64"),
    "unknown name": (
        "image.npz",
        {"ids": np.array(["a", "x"]), "rows": ROWS[:2]},
        r"ids\[1\] is 'x', no entity",
    ),
    "ids and rows": ("image.npz", {"ids": np.array([0]), "rows": ROWS}, "give one id a row"),
    "other arrays": ("image.npz", {"x": ROWS, "y": ROWS}, "holds x, y; expected the array rows"),
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
    with pytest.raises(UserError, match=f"{name}: (truncated|cannot be read|no file of torch.save)"):
        read_features(tmp_path, ENTITIES, "g")


def test_two_files_for_one_modality(tmp_path):
    write(tmp_path / "img_features.pth")
    write(tmp_path / "image.npy", rows=ROWS)
    with pytest.raises(
        UserError, match=r"img_features\.pth: gives the modality image, and so does .*image\.npy"
    ):
        read_features(tmp_path, ENTITIES, "g")


def test_several_datasets_none_of_them_this(tmp_path):
    write(tmp_path / "DB15K-visual.pth")
    write(tmp_path / "TIVA-visual.pth")
    with pytest.raises(UserError, match="holds features of DB15K, TIVA but none named for mine"):
        read_features(tmp_path, ENTITIES, "mine")
