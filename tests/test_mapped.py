"""Graphs whose triples stay on the disk: written, mapped, trained on, and refused where they are malformed."""

import numpy as np
import pytest
from command_runner import assert_one_error, contents, run_here
from tiny_graph import tiny_flags, write_tiny_graph

from mocme_jax.data.graph.graph_folder import read_triples
from mocme_jax.data.graph.mapped_triples import write_mapped
from mocme_jax.errors import UserError
from mocme_jax.training.logs.metrics_log import read_metrics


@pytest.fixture
def mapped(tmp_path):
    """A graph, and the folder that it was written into."""
    graph = read_triples(write_tiny_graph(tmp_path / "graph"))
    write_mapped(tmp_path / "mapped", graph)
    return graph, tmp_path / "mapped"


def test_a_graph_comes_back_as_it_was_and_is_not_held(mapped):
    graph, folder = mapped
    back = read_triples(folder)
    assert back.mapped
    assert not graph.mapped
    assert (back.entities, back.relations) == (graph.entities, graph.relations)
    for split, triples in graph.splits.items():
        assert not back.splits[split].flags.writeable
        assert not back.splits[split].flags.owndata
        np.testing.assert_array_equal(back.splits[split], triples)
    assert back.fingerprints() == graph.fingerprints()


def test_an_empty_split_comes_back_empty(mapped):
    graph, folder = mapped
    write_mapped(folder, graph.replace(test=graph.test[:0]))
    assert read_triples(folder).test.shape == (0, 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows.astype(np.int64), "expected int32"),
        (lambda rows: rows[:, :2], "expected int32"),
        (lambda rows: np.concatenate([rows, [[0, 0, 10_000]]]).astype(np.int32), "is \\[0, 0, 10000\\]"),
        (lambda rows: np.concatenate([rows, [[0, -1, 0]]]).astype(np.int32), "is \\[0, -1, 0\\]"),
        (lambda rows: rows[:0], "contains no triples"),
        (lambda rows: rows.astype(object), "Python objects"),
    ],
)
def test_what_is_no_triples_is_refused(mapped, change, words):
    graph, folder = mapped
    np.save(folder / "train_triples.npy", change(graph.train), allow_pickle=True)
    with pytest.raises(UserError, match=f"train_triples.npy.*{words}"):
        read_triples(folder)


def test_what_is_cut_off_or_missing_is_refused(mapped):
    _, folder = mapped
    path = folder / "valid_triples.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"valid_triples.npy: truncated"):
        read_triples(folder)
    path.unlink()
    with pytest.raises(UserError, match=r"valid_triples.npy: no such file"):
        read_triples(folder)


@pytest.mark.slow
def test_prepared_triples_train_as_the_text_does(tmp_path, monkeypatch, capsys):
    """On split tables, where each device has a share of the triples; metrics are the same to the last bit."""
    monkeypatch.chdir(tmp_path)
    graph = write_tiny_graph(tmp_path / "graph")
    assert run_here("prepare", f"--data={graph}", "--out=mapped", "--triples", monkeypatch=monkeypatch) == 0
    assert "triples" in capsys.readouterr().out
    settings = {"data__modalities": "structure", "parallel__devices": 4, "parallel__shard_entities": True}
    for name, folder in (("text", graph), ("arrays", tmp_path / "mapped")):
        flags = tiny_flags(folder, tmp_path / name, **settings, train__epochs=2)
        assert run_here("train", *flags, monkeypatch=monkeypatch) == 0
    text, arrays = (read_metrics(tmp_path / name) for name in ("text", "arrays"))
    assert [row.get("train") for row in text] == [row.get("train") for row in arrays]
    assert [row.get("dev") for row in text] == [row.get("dev") for row in arrays]
    assert text[-1]["test"] == arrays[-1]["test"]


def test_prepare_carves_dev_and_keeps_what_is_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    graph = write_tiny_graph(tmp_path / "graph")
    flags = [f"--data={graph}", "--out=mapped", "--triples", "--dev-fraction=0.1"]
    assert run_here("prepare", *flags, monkeypatch=monkeypatch) == 0
    before, after = read_triples(graph), read_triples(tmp_path / "mapped")
    assert 0 < len(after.valid) < len(before.train)
    assert len(after.train) == len(before.train) - len(after.valid)
    kept = contents(tmp_path / "mapped")
    capsys.readouterr()
    assert_one_error(run_here("prepare", *flags, monkeypatch=monkeypatch), capsys.readouterr().err, "already exists")
    wrong = (["--text=names"], "a call of their own"), (["--dev-fraction=2", "--overwrite"], "between 0 and 1")
    for more, words in wrong:
        status = run_here("prepare", *flags, *more, monkeypatch=monkeypatch)
        assert_one_error(status, capsys.readouterr().err, words)
    status = run_here("prepare", f"--data={graph}", "--out=o", "--dev-fraction=0.1", monkeypatch=monkeypatch)
    assert_one_error(status, capsys.readouterr().err, "needs --triples")
    assert contents(tmp_path / "mapped") == kept


def test_mapped_triples_want_a_valid_split_of_their_own(mapped, tmp_path, monkeypatch, capsys):
    graph, folder = mapped
    write_mapped(folder, graph.replace(valid=graph.train[:5]))
    status = run_here("train", *tiny_flags(folder, tmp_path / "run"), monkeypatch=monkeypatch)
    assert_one_error(status, capsys.readouterr().err, "0 of 5 do", "--dev-fraction")
    assert not (tmp_path / "run").exists()
