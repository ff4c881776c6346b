"""Bad input: one line that names file, line and cure, status 2, no traceback, nothing written."""

from pathlib import Path

import numpy as np
import pytest
from command_runner import assert_one_error, contents, run_here, run_process
from fuzz.bombs import archive_bombs
from fuzz.containers import npy
from tiny_graph import tiny_flags, write_tiny_graph

from mocme_jax.data.features.text_features import LABELS_FILE


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.with_name(tmp_path.name + "-cache")))


@pytest.fixture
def graph(tmp_path) -> Path:
    return write_tiny_graph(tmp_path / "tiny")


def openke(folder: Path) -> Path:
    """A graph of three entities in the OpenKE layout."""
    folder.mkdir()
    (folder / "entity2id.txt").write_text("3\nAda\t0\nLondon\t1\nEngland\t2\n")
    (folder / "relation2id.txt").write_text("1\nin\t0\n")
    (folder / "train2id.txt").write_text("3\n0 1 0\n1 2 0\n0 2 0\n")
    (folder / "valid2id.txt").write_text("1\n2 0 0\n")
    (folder / "test2id.txt").write_text("1\n2 1 0\n")
    return folder


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--config.model.widht=8", ["unknown config field model.widht", "did you mean model.width?"]),
        ("--config.train.batch_size=0", ["train.batch_size", "0"]),
        ("--config.loss.query_dropout=1.5", ["loss.query_dropout", "1.5"]),
        ("--config.negatives.entropy_low=0.9", ["negatives.entropy_low", "must not be above the higher"]),
        ("--config.model.score=convex", ["model.score", "complex", "rotate"]),
        ("--config.train.epochs=many", ["train.epochs", "many"]),
        ("--config.data.modalities=text,text", ["data.modalities", "each modality once"]),
        ("--config.model.width=7", ["model.width", "even"]),
        ("--config=mgk_w", ["mgk_w", "did you mean --config=mkg_w?"]),
        ("--config=db15k", ["db15k", "--config.data.dir=FOLDER"]),
        ("--data.dir=here", ["--config.data.dir"]),
        ("--config.data.noise=0.5", ["config field data.noise was removed", "--study=noise"]),
        ("--config.fusion.intra=mean", ["config field fusion.intra was removed", "model.fusion"]),
    ],
)
def test_configuration(flag, words, tmp_path, monkeypatch, capsys):
    if flag == "--config=db15k":
        words = ["DB15K", "--config.data.dir=FOLDER"]
    status = run_here("train", flag, f"--workdir={tmp_path / 'run'}", monkeypatch=monkeypatch)
    assert_one_error(status, capsys.readouterr().err, *words)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize(
    ("command", "flags", "word"),
    [
        ("audit", ["--dta=x"], "unknown flag --dta; did you mean --data?"),
        ("prepare", ["--out=x"], "--data"),
        ("prepare", ["--data=x", "--out=x", "--min-rows=few"], "few"),
        ("evaluate", [], "--workdir"),
        ("evaluate", ["--wrkdir=x"], "did you mean --workdir?"),
        ("benchmark", ["--steps=0"], "--steps"),
    ],
)
def test_flags_of_the_other_commands(command, flags, word, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert_one_error(run_here(command, *flags, monkeypatch=monkeypatch), capsys.readouterr().err, word)
    assert contents(tmp_path) == {}


def test_a_config_file_is_named_with_its_line(tmp_path, monkeypatch, capsys):
    file = tmp_path / "mine.py"
    file.write_text(
        "from mocme_jax.config import default_config\n\n\ndef get_config():\n"
        "    config = default_config()\n    config.model.widht = 8\n    return config\n"
    )
    status = run_here("train", f"--config={file}", f"--workdir={tmp_path / 'run'}", monkeypatch=monkeypatch)
    assert_one_error(status, capsys.readouterr().err, f"{file}, line 6", "widht", "model.width")


def edit(name: str, old: str, new: str):
    """A change of a text file in the OpenKE graph."""

    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))

    return change


def remove(name: str):
    return lambda folder: (folder / name).unlink()


def cut(name: str, keep: int):
    """A file that ends after so many bytes."""
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:keep])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (remove("entity2id.txt"), ["entity2id.txt: no such file"]),
        (remove("test2id.txt"), ["test2id.txt: no such file", "single line 0"]),
        (cut("train2id.txt", 14), ["train2id.txt:1", "count says 3 rows but 2 follow", "truncated"]),
        (cut("train2id.txt", 12), ["train2id.txt:"]),
        (edit("entity2id.txt", "3\n", "4\n"), ["entity2id.txt:1", "count says 4 rows but 3 follow"]),
        (edit("train2id.txt", "1 2 0", "1 3 0"), ["train2id.txt:3", "entity id 3 is out of range", "0 to 2"]),
        (edit("valid2id.txt", "2 0 0", "2 0 7"), ["valid2id.txt:2", "relation id 7 is out of range"]),
        (edit("test2id.txt", "2 1 0", "2 -1 0"), ["test2id.txt:2"]),
        (edit("test2id.txt", "2 1 0", "2 one 0"), ["test2id.txt:2", "head tail relation"]),
        (edit("relation2id.txt", "1\n", "one\n"), ["relation2id.txt:1", "expected 'name id'"]),
        (edit("train2id.txt", "3\n", "9" * 5000 + "\n"), ["train2id.txt:1", "count of rows"]),
        (edit("entity2id.txt", "London", "Lon\0don"), ["entity2id.txt:3", "zero byte", "UTF-8"]),
        (edit("entity2id.txt", "London\t1", "\x1b[2J\x1b]0;x\x07\tx"), ["entity2id.txt:3", r"\x1b[2J\x1b]0;x\x07"]),
    ],
)
@pytest.mark.parametrize("command", ["train", "audit"])
def test_graph_files(command, change, words, tmp_path, monkeypatch, capsys):
    folder = openke(tmp_path / "graph")
    change(folder)
    before = contents(tmp_path)
    flags = [f"--data={folder}"]
    if command == "train":
        flags = tiny_flags(folder, tmp_path / "run")
    assert_one_error(run_here(command, *flags, monkeypatch=monkeypatch), capsys.readouterr().err, str(folder), *words)
    assert contents(tmp_path) == before


def save_bytes(name: str, make):
    return lambda folder: (folder / name).write_bytes(make())


def save_array(name: str, array: np.ndarray):
    return lambda folder: np.save(folder / name, array)


def bad_rows(value: float):
    """text.npy with one value that no mask covers."""

    def change(folder: Path) -> None:
        text = np.load(folder / "text.npy")
        row = np.flatnonzero(np.isfinite(text).all(1))[3]
        text[row, 2] = value
        np.save(folder / "text.npy", text)

    return change


def masked_infinity(folder: Path) -> None:
    (folder / "text.npy").unlink()
    rows = np.ones((48, 2), np.float32)
    rows[5, 1] = np.inf
    np.savez(folder / "text.npz", rows=rows, present=np.arange(48) != 6)


def outside(folder: Path) -> None:
    np.savez(folder / "numeric.npz", ids=np.array([48, 49]), rows=np.ones((2, 3), np.float32))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (save_array("text.npy", np.ones((47, 4), np.float32)), ["text.npy", "47 rows", "48 entities"]),
        (save_array("text.npy", np.ones(48, np.float32)), ["text.npy", "shape [48]"]),
        (save_array("text.npy", np.full((48, 4), "word")), ["text.npy", "float32"]),
        (bad_rows(np.nan), ["text.npy", "row ", "NaN or infinite", "fill the row with NaN"]),
        (bad_rows(np.inf), ["text.npy", "row ", "NaN or infinite"]),
        (masked_infinity, ["text.npz", "row 5", "NaN or infinite"]),
        (cut("text.npy", 300), ["text.npy", "truncated or damaged"]),
        (cut("numeric.npz", 200), ["numeric.npz", "truncated or damaged"]),
        (outside, ["numeric.npz", "ids[0]", "none of the names in its 2 ids", "'48', '49'"]),
        (save_bytes("numeric.npz", archive_bombs("rows.npy")["inflates"]), ["numeric.npz", "claims 3,221,225,600"]),
        (save_bytes("text.npy", lambda: npy("'<f4'", "(1000000000000, 2)", "False", b"")), ["text.npy", "contains 0"]),
        (remove("numeric.npz"), ["tiny", "no features for numeric", "numeric.npz"]),
    ],
)
def test_feature_files(change, words, graph, tmp_path, monkeypatch, capsys):
    change(graph)
    before = contents(tmp_path)
    flags = tiny_flags(graph, tmp_path / "run", data__modalities="text,numeric")
    assert_one_error(run_here("train", *flags, monkeypatch=monkeypatch), capsys.readouterr().err, *words)
    assert contents(tmp_path) == before


def test_folders_that_are_not_there(graph, tmp_path, monkeypatch, capsys):
    gone = tmp_path / "gone"
    cases = [
        ("train", tiny_flags(gone, tmp_path / "run"), "no such folder"),
        ("train", tiny_flags(graph, tmp_path / "run", data__features_dir=gone), "no such folder"),
        ("audit", [f"--data={gone}"], "no such folder"),
        ("prepare", [f"--data={gone}", f"--out={tmp_path / 'out'}"], "no such folder"),
        ("evaluate", [f"--workdir={gone}"], "contains no checkpoint"),
        ("benchmark", ["--config=tiva", f"--config.data.dir={gone}"], "no such folder"),
    ]
    before = contents(tmp_path)
    for command, flags, word in cases:
        status = run_here(command, *flags, monkeypatch=monkeypatch)
        assert_one_error(status, capsys.readouterr().err, str(gone), word)
        assert contents(tmp_path) == before


def test_a_workdir_that_is_a_file(graph, tmp_path, monkeypatch, capsys):
    (tmp_path / "run").write_text("mine")
    status = run_here("train", *tiny_flags(graph, tmp_path / "run"), monkeypatch=monkeypatch)
    assert_one_error(status, capsys.readouterr().err, "is a file", "--workdir")
    assert (tmp_path / "run").read_text() == "mine"


def test_names_that_are_no_text_ask_for_labels(tmp_path, monkeypatch, capsys):
    folder = openke(tmp_path / "graph")
    (folder / "entity2id.txt").write_text("3\nQ1\t0\nQ2\t1\nQ3\t2\n")
    status = run_here("train", *tiny_flags(folder, tmp_path / "run", data__modalities="text"), monkeypatch=monkeypatch)
    assert_one_error(status, capsys.readouterr().err, "not text", LABELS_FILE)


def test_making_features_replaces_nothing_unasked(graph, tmp_path, monkeypatch, capsys):
    (graph / "numbers.tsv").write_text("place 1\tage\t3\n")
    before = contents(tmp_path)
    flags = [f"--data={graph}", f"--out={graph}", f"--numeric={graph / 'numbers.tsv'}"]
    status = run_here("prepare", *flags, monkeypatch=monkeypatch)
    assert_one_error(status, capsys.readouterr().err, "numeric.npz", "already exists", "--overwrite")
    assert contents(tmp_path) == before
    (graph / "numbers.tsv").write_text("place 1\tage\tthree\nplace 2\tage\t3\n")
    before = contents(tmp_path)
    status = run_here("prepare", *flags, "--overwrite", monkeypatch=monkeypatch)
    assert_one_error(status, capsys.readouterr().err, "numbers.tsv:1", "not a finite number")
    assert contents(tmp_path) == before


def test_a_process_of_its_own_says_the_same(graph, tmp_path):
    np.save(graph / "text.npy", np.ones((47, 4), np.float32))
    before = contents(tmp_path)
    result = run_process("train", *tiny_flags(graph, tmp_path / "run", data__modalities="text"), folder=tmp_path)
    assert_one_error(result.returncode, result.stderr, "text.npy", "47 rows")
    assert result.stdout == ""
    assert contents(tmp_path) == before
