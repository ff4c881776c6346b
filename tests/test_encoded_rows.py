"""Files that were encoded before: the same vectors as without them, and nothing is encoded twice."""

import zipfile

import numpy as np
import pytest
from media_files import tone, write_wave

from mocme_jax.data.features import encoded_rows
from mocme_jax.data.features.encoded_rows import EncodedRows
from mocme_jax.data.features.entity_files import files_modality
from mocme_jax.data.features.feature_making import prepare
from mocme_jax.data.media import file_encoders
from mocme_jax.data.media.file_encoders import encode_files, file_encoder
from mocme_jax.errors import UserError, refuse

pytest.importorskip("PIL")
from PIL import Image


@pytest.fixture
def pictures(tmp_path):
    """Forty pictures of noise."""
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(40)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(path)
    return paths


@pytest.fixture
def seen(monkeypatch):
    """The files that an encoder was given to read, in order."""
    found = []

    def counted(*arguments):
        encoder = file_encoder(*arguments)
        return encoder._replace(read=lambda path: (found.append(path), encoder.read(path))[1])

    monkeypatch.setattr("mocme_jax.data.features.entity_files.file_encoder", counted)
    return found


def encode(kept, paths, bad=refuse):
    files = {number: [path] for number, path in enumerate(paths)}
    return files_modality("image", files, len(paths), "layout", bad, kept=kept).features


def test_only_new_files_are_encoded_and_all_vectors_are_the_same(pictures, seen, tmp_path, monkeypatch):
    # Several files of rows.
    monkeypatch.setattr(encoded_rows, "_AT_ONCE", 16)
    expected = encode_files(file_encoder("image", "layout"), pictures)
    first = encode(EncodedRows(tmp_path / "kept", "image", "layout"), pictures[::2])
    np.testing.assert_array_equal(first, expected[::2])
    assert seen == pictures[::2]
    seen.clear()
    kept = EncodedRows(tmp_path / "kept", "image", "layout")
    np.testing.assert_array_equal(encode(kept, pictures), expected)
    assert (kept.reused, seen) == (20, pictures[1::2])
    seen.clear()
    # By what files hold, not by what they are called.
    moved = [path.rename(path.with_name(f"moved {path.name}")) for path in pictures]
    np.testing.assert_array_equal(encode(EncodedRows(tmp_path / "kept", "image", "layout"), moved), expected)
    assert not seen
    Image.new("RGB", (30, 30), "red").save(moved[3])
    changed = encode(EncodedRows(tmp_path / "kept", "image", "layout"), moved)
    assert seen == [moved[3]]
    assert np.flatnonzero((changed != expected).any(axis=1)).tolist() == [3]


def test_another_encoder_modality_or_version_shares_nothing(pictures, seen, tmp_path, monkeypatch):
    encode(EncodedRows(tmp_path / "kept", "image", "layout"), pictures[:2])
    for modality, encoder in (("image", "efficientnet-lite0"), ("video", "layout")):
        assert not EncodedRows(tmp_path / "kept", modality, encoder)._rows
    assert len(EncodedRows(tmp_path / "kept", "image", "layout")._rows) == 2
    model = tmp_path / "model"
    model.mkdir()
    (model / "weights").write_bytes(b"1")
    folders = {EncodedRows(tmp_path, "image", f"transformers:{model}")._folder}
    (model / "weights").write_bytes(b"2")
    folders.add(EncodedRows(tmp_path, "image", f"transformers:{model}")._folder)
    assert len(folders) == 2
    monkeypatch.setattr(encoded_rows, "__version__", "0.0.1")
    assert not EncodedRows(tmp_path / "kept", "image", "layout")._rows


def test_an_encoder_of_ones_own_is_always_called(pictures, tmp_path, monkeypatch):
    calls = []

    def mine(paths):
        calls.append(len(paths))
        return np.ones((len(paths), 3))

    monkeypatch.setitem(file_encoders.ADDED, ("image", "mine"), mine)
    for _ in range(2):
        kept = EncodedRows(tmp_path / "kept", "image", "mine")
        files_modality("image", {0: pictures[:2]}, 1, "mine", kept=kept)
    assert calls == [2, 2]
    assert not (tmp_path / "kept").exists()


def test_files_that_cannot_be_read_are_told_each_time(pictures, tmp_path):
    pictures[1].write_bytes(b"no picture")
    pictures[2].unlink()
    for _ in range(2):
        told = []
        rows = encode(EncodedRows(tmp_path / "kept", "image", "layout"), pictures[:4], told.append)
        assert [line.partition(":")[0] for line in told] == [str(path) for path in pictures[1:3]]
        assert rows.any(axis=1).tolist() == [True, False, False, True]


def spoil_nothing(path):
    pass


def spoil_bits(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def spoil_to(**arrays):
    return lambda path: np.savez(path, **arrays)


KEYS, ROWS = np.zeros((2, 32), np.uint8), np.ones((2, 304), np.float32)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (spoil_nothing, ""),
        (spoil_bits, "truncated or damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:200]), "truncated or damaged"),
        (spoil_to(keys=KEYS, rows=ROWS[:1]), "expected keys"),
        (spoil_to(keys=KEYS[:, :8], rows=ROWS), "expected keys"),
        (spoil_to(keys=KEYS, rows=ROWS.astype(float)), "expected keys"),
        (spoil_to(keys=KEYS, rows=ROWS * np.nan), "expected keys"),
        (spoil_to(keys=KEYS), "expected keys"),
        (spoil_to(keys=KEYS, rows=ROWS, more=ROWS), "contains keys, more, rows"),
        (spoil_to(keys=KEYS, rows=np.array([{}], object)), "Python objects"),
        (lambda path: zipfile.ZipFile(path, "w").close(), "expected keys"),
    ],
)
def test_rows_that_are_not_as_they_were_written_are_made_again(pictures, seen, tmp_path, spoil, told):
    expected = encode(EncodedRows(tmp_path / "kept", "image", "layout"), pictures[:4])
    (file,) = (tmp_path / "kept").rglob("*.npz")
    spoil(file)
    seen.clear()
    lines = []
    kept = EncodedRows(tmp_path / "kept", "image", "layout", lines.append)
    np.testing.assert_array_equal(encode(kept, pictures[:4]), expected)
    assert seen == (pictures[:4] if told else [])
    assert len(lines) == bool(told)
    assert not told or (told in lines[0] and str(file) in lines[0])


def test_vectors_of_several_widths_are_made_again(pictures, seen, tmp_path):
    encode(EncodedRows(tmp_path / "kept", "image", "layout"), pictures[:2])
    (file,) = (tmp_path / "kept").rglob("*.npz")
    np.savez(file.with_name("other.npz"), keys=KEYS[:1], rows=ROWS[:1, :7])
    lines = []
    assert encode(EncodedRows(tmp_path / "kept", "image", "layout", lines.append), pictures).shape == (40, 304)
    assert "several widths" in lines[0]


def test_a_folder_that_cannot_be_written_is_told_and_vectors_are_made(pictures, tmp_path):
    (tmp_path / "kept").write_bytes(b"")
    lines = []
    assert encode(EncodedRows(tmp_path / "kept", "image", "layout", lines.append), pictures[:2]).any()
    assert "cannot be written" in lines[0]


def test_prepare_reuses_and_says_so(tmp_path):
    pytest.importorskip("soundfile")
    (tmp_path / "graph").mkdir()
    (tmp_path / "graph" / "train.txt").write_text("a\tr\tb\nb\tr\tc\n", encoding="utf-8")
    (tmp_path / "sounds").mkdir()
    out, told = tmp_path / "out", []

    def made(overwrite=True):
        files = {"audio": (tmp_path / "sounds", "")}
        prepare(tmp_path / "graph", out, files=files, overwrite=overwrite, notify=told.append)
        return (out / "audio.npz").read_bytes()

    write_wave(tmp_path / "sounds" / "a.wav", tone(440))
    made(overwrite=False)
    assert not [line for line in told if "reused" in line]
    write_wave(tmp_path / "sounds" / "b.wav", tone(660))
    both = made()
    assert [line for line in told if line.startswith("1 of these sounds were encoded before")]
    # An empty folder gives the same file.
    for path in (out / ".encoded").rglob("*.npz"):
        path.unlink()
    assert made() == both
    with pytest.raises(UserError, match="already exists"):
        made(overwrite=False)
