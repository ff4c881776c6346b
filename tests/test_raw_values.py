"""Raw values of new entities: the graph's own values, given again, are encoded as the graph's are."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
from media_files import plain, tone, write_clip, write_wave

from mocme_jax.data.features import attribute_values, text_features
from mocme_jax.data.features import entity_files as entity_files_module
from mocme_jax.data.features.attribute_values import attribute_rows, from_arrays, quantile, to_arrays
from mocme_jax.data.features.entity_files import entity_files, files_modality
from mocme_jax.data.features.feature_files import read_feature_file
from mocme_jax.data.features.feature_making import prepare
from mocme_jax.data.features.feature_writer import write_features
from mocme_jax.data.features.numeric_features import numeric_modality
from mocme_jax.data.features.raw_values import can_encode, encode_raw, is_raw
from mocme_jax.data.graph.knowledge_graph import make_modality
from mocme_jax.data.media import file_encoders
from mocme_jax.errors import UserError

Image = pytest.importorskip("PIL.Image")
NAMES = [f"e{index}" for index in range(8)]


def table(tmp_path, rows, header="name,height,colour"):
    (tmp_path / "numeric.csv").write_text("\n".join([header, *rows]) + "\n")
    return tmp_path / "numeric.csv"


@pytest.fixture
def numeric(tmp_path):
    """Heights of six entities, two of them the same; colours of seven."""
    heights = [3.5, 1, 10, 1, -2, 7]
    colours = ["red", "blue", "red", "green", "red", "blue", "red"]
    rows = [f"e{i},{heights[i] if i < 6 else ''},{colours[i]}" for i in range(7)]
    return numeric_modality(table(tmp_path, rows), NAMES, min_rows=1, notify=lambda line: None)


def given_again(numeric):
    heights = [3.5, 1, 10, 1, -2, 7, None, None]
    colours = ["red", "blue", "red", "green", "red", "blue", "red", None]
    return [{"height": h, "colour": c} for h, c in zip(heights, colours, strict=True)]


def test_the_graphs_own_numbers_and_words_get_the_graphs_own_rows(numeric):
    rows = encode_raw(numeric, given_again(numeric))
    np.testing.assert_array_equal(rows[:7], numeric.features[:7])
    assert np.isnan(rows[7]).all()
    assert not numeric.present[7]


def test_new_numbers_stand_between_their_neighbours(numeric):
    among = sorted([3.5, 1, 10, 1, -2, 7])
    for value in (-99, -2, 0, 1, 2, 9.9, 99):
        below, same = sum(x < value for x in among), sum(x == value for x in among)
        row = encode_raw(numeric, [{"height": value}])[0]
        names = list(numeric.attributes)
        place = names.index("height")
        assert row[place] == pytest.approx((2 * below + same) / 6 - 1)
        assert row[len(names) + place] == 1
        assert row.sum() == pytest.approx(row[place] + 1)
    assert encode_raw(numeric, [{"colour": "pink"}])[0, len(names) :].sum() == 3


def test_numbers_that_do_not_fit(numeric):
    for given, told in (
        ({"width": 3}, "the graph has no attribute 'width'; it has colour=blue, colour=green"),
        ({"height": "tall"}, "no attribute 'height=tall'"),
        ({"height": np.inf}, "'height' is 'inf', which is not a finite number"),
        ({"height": [1]}, "not a finite number"),
    ):
        with pytest.raises(UserError, match=told):
            encode_raw(numeric, [given])
    with pytest.raises(UserError, match="expected numbers by attribute, found 'tall'"):
        encode_raw(numeric, ["tall"])


def test_attributes_travel_with_the_file(tmp_path, numeric):
    write_features(tmp_path / "out.npz", numeric, NAMES)
    read = read_feature_file(tmp_path / "out.npz", "numeric", NAMES)
    assert list(read.attributes) == list(numeric.attributes)
    for name, values in numeric.attributes.items():
        np.testing.assert_array_equal(read.attributes[name], values)
    np.testing.assert_array_equal(encode_raw(read, given_again(numeric)), encode_raw(numeric, given_again(numeric)))


@pytest.mark.parametrize(
    "change",
    [
        {"counts": np.array([1])},
        {"counts": np.array([2, 2, 2, 10**18])},
        {"counts": np.array([0, 7, 14, 6])},
        {"counts": np.array([7.0, 7, 7, 6])},
        {"values": np.zeros(27, np.float32)},
        {"values": np.full(27, np.nan)},
        {"values": np.arange(27.0)[::-1]},
        {"values": np.zeros((27, 1))},
        {"attributes": np.array(["a"] * 4)},
        {"attributes": np.arange(4)},
        {"attributes": None},
    ],
)
def test_attributes_of_a_strangers_file_are_checked(tmp_path, numeric, change):
    good = to_arrays(numeric.attributes)
    assert len(good["values"]) == 27
    arrays = {key: value for key, value in (good | change).items() if value is not None}
    np.savez(tmp_path / "numeric.npz", rows=numeric.features, made_by=np.array("ranks"), **arrays)
    with pytest.raises(UserError, match="make the file again") as told:
        read_feature_file(tmp_path / "numeric.npz", "numeric", NAMES)
    assert str(told.value).count("numeric.npz") == 1
    if len(arrays) == len(good):
        with pytest.raises(UserError, match="make the file again"):
            from_arrays(tmp_path, arrays, 8)


@pytest.fixture
def finer(tmp_path):
    """Of 60 entities: a height of 55, few different; a weight of 49; a colour of all."""
    rng = np.random.default_rng(0)
    heights = rng.integers(20, size=55)
    rows = [f"e{i},{heights[i] if i < 55 else ''},{i**2 if i < 49 else ''},{('red', 'blue')[i % 2]}" for i in range(60)]
    path = table(tmp_path, rows, "name,height,weight,colour")
    given = [{"height": int(heights[i])} for i in range(55)]
    return numeric_modality(path, [f"e{i}" for i in range(60)], notify=lambda line: None), given


def test_numbers_that_many_entities_have_are_encoded_by_triangular_functions_too(finer):
    modality, given = finer
    names = list(modality.attributes)
    assert names == ["colour=blue", "colour=red", "height", "weight"]
    assert modality.features.shape == (60, 2 * 4 + 17)
    # A triangular function interpolates linearly between 1 at its knot and 0 at all others.
    knots = np.linspace(-1, 1, 17)
    ranks = modality.features[:55, 2].astype(float)
    expected = np.stack([np.interp(ranks, knots, one) for one in np.eye(17)], axis=1)
    np.testing.assert_allclose(modality.features[:55, 8:], expected, atol=1e-6)
    assert not modality.features[55:, 8:].any()
    rows = encode_raw(modality, given)
    np.testing.assert_array_equal(rows[:, [2, 6, *range(8, 25)]], modality.features[:55, [2, 6, *range(8, 25)]])
    # Numbers of a new entity may be below or above all others.
    for value, knot in ((-5, 0), (99, 16)):
        assert encode_raw(modality, [{"height": value}])[0, 8:].tolist() == np.eye(17)[knot].tolist()


def test_files_of_version_0_4_0_are_read_without_triangular_functions(tmp_path, finer):
    modality, given = finer
    old = dataclasses.replace(modality, features=modality.features[:, :8].copy())
    names = [f"e{i}" for i in range(60)]
    write_features(tmp_path / "old.npz", old, names)
    read = read_feature_file(tmp_path / "old.npz", "numeric", names)
    np.testing.assert_array_equal(encode_raw(read, given), encode_raw(modality, given)[:, :8])
    for width in (6, 9, 24, 26):
        with pytest.raises(UserError, match="does not match its attributes"):
            from_arrays(tmp_path, to_arrays(modality.attributes), width)


def test_names_that_are_no_text_are_refused(tmp_path, numeric):
    arrays = to_arrays(numeric.attributes)
    arrays["attributes"] = np.full((4, 8), 0x7FFFFFFF, np.uint32).view("<U8").reshape(4)
    np.savez(tmp_path / "numeric.npz", rows=numeric.features, **arrays)
    with pytest.raises(UserError, match="attributes contain a value that is not text"):
        read_feature_file(tmp_path / "numeric.npz", "numeric", NAMES)


def files_of(kind, folder):
    """Files of entities e1 (one) and e3 (two), each with another content."""
    folder.mkdir()
    (folder / "e3").mkdir()
    for place, name in enumerate(["e1", "e3/a", "e3/b"]):
        if kind == "image":
            Image.new("RGB", (20, 10), (90 * place, 0, 200)).save(folder / f"{name}.png")
        elif kind == "audio":
            write_wave(folder / f"{name}.wav", tone(300 * (place + 1)))
        else:
            write_clip(folder / f"{name}.mp4", [plain(60 * place + 5 * frame) for frame in range(9)])
    return folder


@pytest.mark.parametrize("kind", ["image", "audio", "video"])
def test_files_given_again_get_the_graphs_own_rows(tmp_path, kind):
    pytest.importorskip({"image": "PIL", "audio": "soundfile", "video": "av"}[kind])
    files, unmatched = entity_files(files_of(kind, tmp_path / "files"), NAMES, kind)
    assert (list(files), unmatched) == ([1, 3], [])
    modality = files_modality(kind, files, len(NAMES))
    assert modality.present.nonzero()[0].tolist() == [1, 3]
    assert np.abs(modality.features[1] - modality.features[3]).max() > 0.01
    rows = encode_raw(modality, [str(files[1][0]), None, files[3], []])
    np.testing.assert_allclose(rows[[0, 2]], modality.features[[1, 3]], atol=1e-6)
    assert np.isnan(rows[[1, 3]]).all()
    with pytest.raises(UserError, match="no such file"):
        encode_raw(modality, [tmp_path / "none.png"])


def test_the_vector_of_a_clip_is_the_mean_of_its_frames_and_their_change(tmp_path):
    pytest.importorskip("av")
    path = write_clip(tmp_path / "a.mp4", [plain(20 * frame) for frame in range(8)])
    from mocme_jax.data.media.clips import read_frames
    from mocme_jax.data.media.image_layout import image_vector

    frames = np.array([image_vector(frame) for frame in read_frames(path)])
    change = sum(abs(frames[place] - frames[place - 1]) for place in range(1, 8)) / 7
    vector = file_encoders.encode_files(file_encoders.file_encoder("video", "layout"), [path])[0]
    np.testing.assert_allclose(vector, [*frames.mean(0), *change], atol=1e-6)
    still = write_clip(tmp_path / "b.mp4", [plain(9)])
    assert not file_encoders.encode_files(file_encoders.file_encoder("video", "layout"), [still])[0, 304:].any()


def test_the_sound_of_a_film_is_a_sound(tmp_path):
    pytest.importorskip("av")
    pytest.importorskip("soundfile")
    folder = tmp_path / "both"
    folder.mkdir()
    write_wave(folder / "e1.wav", tone(440))
    write_clip(folder / "e2.mp4", [plain(0)] * 10, sound=tone(440))
    files, _ = entity_files(folder, NAMES, "audio")
    rows = files_modality("audio", files, len(NAMES)).features
    # Its codec loses a little.
    np.testing.assert_array_equal(rows[1, :64].argmax(), rows[2, :64].argmax())
    assert np.abs(rows[1, :64].max() - rows[2, :64].max()) < 0.3


def test_all_bad_files_are_told_together(tmp_path):
    pytest.importorskip("soundfile")
    graph, sounds = tmp_path / "graph", tmp_path / "sounds"
    graph.mkdir()
    sounds.mkdir()
    (graph / "train.txt").write_text("".join(f"{a}\tnext\t{b}\n" for a, b in itertools.pairwise(NAMES)))
    write_wave(sounds / "e1.wav", tone(440))
    for name in ("e2.wav", "e3.flac"):
        (sounds / name).write_bytes(b"no sound")
    told: list[str] = []
    with pytest.raises(
        UserError, match="2 problems, listed above; correct them, or leave out bad input with --skip-bad"
    ):
        prepare(graph, tmp_path / "out", files={"audio": (sounds, "")}, notify=told.append)
    assert sum("cannot read the sound" in line for line in told) == 2
    assert not list((tmp_path / "out").glob("*.npz"))
    (written,) = prepare(graph, tmp_path / "out", files={"audio": (sounds, "mel")}, skip_bad=True, notify=told.append)
    read = read_feature_file(written, "audio", NAMES)
    assert (read.made_by, read.present.sum()) == ("mel", 1)


def test_what_a_file_says_it_was_made_by_loads_nothing(monkeypatch):
    monkeypatch.setattr(entity_files_module, "file_encoder", lambda *given: pytest.fail("loaded"))
    monkeypatch.setattr(text_features, "text_encoder", lambda name: pytest.fail("loaded"))
    rows = np.ones((8, 4), np.float32)
    for name, made_by in (
        ("image", "transformers:a-strangers"),
        ("audio", "transformers:a-strangers"),
        ("text", "sentence-transformers:a-strangers"),
        ("smell", "layout"),
        ("image", "mel"),
    ):
        modality = make_modality(name, rows, None, made_by)
        assert not can_encode(modality)
        with pytest.raises(UserError, match=f"encoded with '{made_by}'; .* give vectors of width 4"):
            encode_raw(modality, ["x"])
    with pytest.raises(UserError, match="does not name its encoder"):
        encode_raw(make_modality("image", rows), ["x"])


def test_an_encoder_of_another_width_is_told(tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    with pytest.raises(
        UserError, match=r"layout gives vectors of width 304, but the graph's features have width 4; the feature"
    ):
        encode_raw(make_modality("image", np.ones((8, 4), np.float32), None, "layout"), [tmp_path / "a.png"])


def test_kinds_of_values():
    assert all(map(is_raw, ("a", Path("a"), ["a.png"], {"x": 1})))
    assert not any(map(is_raw, (np.ones(3), [1.0, 2.0], 3.0, None, [])))


def test_quantiles_of_ties_share_their_mean_rank():
    values = np.array([5.0, 1, 5, 9])
    np.testing.assert_allclose(quantile(values, np.sort(values)), [0, -0.75, 0, 0.75])
    assert tuple(to_arrays({"a": values})) == attribute_values.ARRAYS
    assert attribute_rows({"a": np.sort(values)}, [None, {}], 2).tolist() == [[0, 0], [0, 0]]
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_modality("a", np.ones((1, 1), np.float32)).attributes = {}
