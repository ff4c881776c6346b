"""A fresh split by pairs, against loops over sets; and the folder that it writes."""

import numpy as np
import pytest
from command_runner import run_here
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from mocme_jax.data.features.feature_files import feature_paths
from mocme_jax.data.graph.fresh_split import resplit, resplit_folder
from mocme_jax.data.graph.graph_folder import load_graph, read_triples
from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph
from mocme_jax.data.graph.openke_layout import read_openke
from mocme_jax.errors import UserError


def graph_of(rows: list[tuple[int, int, int]], cuts: tuple[int, int]) -> KnowledgeGraph:
    triples = np.array(rows, np.int32).reshape(-1, 3)
    names = [f"e{index}" for index in range(triples[:, [0, 2]].max() + 1)]
    relations = [f"r{index}" for index in range(triples[:, 1].max() + 1)]
    return KnowledgeGraph("g", names, relations, triples[: cuts[0]], triples[cuts[0] : cuts[1]], triples[cuts[1] :])


def check_the_rules(old: KnowledgeGraph, new: KnowledgeGraph) -> None:
    """By loops over tuples: nothing lost, nothing twice, no pair in two splits, all known from train."""
    before = {tuple(row) for triples in old.splits.values() for row in triples.tolist()}
    rows = [(split, *row) for split, triples in new.splits.items() for row in triples.tolist()]
    assert len(rows) == len(before)
    assert {row[1:] for row in rows} == before
    split_of: dict[frozenset[int], str] = {}
    for split, head, _, tail in rows:
        assert split_of.setdefault(frozenset((head, tail)), split) == split
    assert {end for _, head, _, tail in rows for end in (head, tail)} == set(new.train[:, [0, 2]].ravel().tolist())
    assert {row[2] for row in rows} == set(new.train[:, 1].tolist())


TRIPLES = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 2), st.integers(0, 8)), min_size=20, max_size=120)


@settings(max_examples=60, deadline=None)
@given(TRIPLES, st.integers(0, 50), st.floats(0.05, 0.4), st.floats(0.05, 0.4))
def test_random_graphs_obey_every_rule(rows, seed, dev, test):
    graph = graph_of([*rows, *rows[:5]], (10, 15))
    try:
        new = resplit(graph, dev=dev, test=test, seed=seed)
    except UserError:  # too sparse for a single triple
        reject()
    check_the_rules(graph, new)
    distinct = sum(map(len, new.splits.values()))
    assert len(new.valid) <= max(1, round(dev * distinct))
    assert len(new.test) <= max(1, round(test * distinct))


def test_shares_that_leave_too_little_are_as_large_as_the_rules_allow():
    rows = [(0, 0, 0), (1, 0, 1), (0, 0, 1)]
    with pytest.raises(UserError, match="none of the 1 distinct triples of train can be split off"):
        resplit(graph_of(rows, (3, 3)), dev=0.49, test=0.5, seed=0)


def dense_graph() -> KnowledgeGraph:
    rows = np.random.default_rng(0).integers(0, [30, 4, 30], (900, 3)).tolist()
    return graph_of(rows, (700, 800))


def test_seeds_decide_and_shares_default_to_those_of_the_graph():
    graph = dense_graph()
    first, again, other = (resplit(graph, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.test, again.test)
    assert not np.array_equal(first.test, other.test)
    check_the_rules(graph, first)
    distinct = sum(map(len, first.splits.values()))
    assert (len(first.valid), len(first.test)) == (round(distinct / 9), round(distinct / 9))
    alone = resplit(graph.replace(valid=graph.valid[:0], test=graph.test[:0]))
    distinct = sum(map(len, alone.splits.values()))
    assert (len(alone.valid), len(alone.test)) == (round(0.1 * distinct), round(0.1 * distinct))
    with pytest.raises(UserError, match="valid is 2: expected a share between 0 and 1"):
        resplit(graph, dev=2.0)
    with pytest.raises(UserError, match="valid and test are 110% of the triples"):
        resplit(graph, dev=0.6, test=0.5)


def test_mkg_y(benchmark_data):
    graph = read_openke(benchmark_data / "MKG-Y")
    new = resplit(graph, seed=3)
    check_the_rules(graph, new)
    assert (len(new.valid), len(new.test)) == pytest.approx((len(graph.valid), len(graph.test)), rel=0.01)


@pytest.fixture
def folder(tmp_path):
    """A plain graph whose ids come from the order of its rows, with features and what features are made from."""
    graph = dense_graph()
    data = tmp_path / "old"
    (data / "embeddings").mkdir(parents=True)
    for split, triples in graph.splits.items():
        names = [f"{graph.entities[h]}\t{graph.relations[r]}\t{graph.entities[t]}\n" for h, r, t in triples.tolist()]
        (data / f"{split}.txt").write_text("".join(names))
    rows = np.random.default_rng(1).standard_normal((30, 4)).astype(np.float32)
    np.save(data / "embeddings" / "old-visual.npy", rows)
    (data / "numeric.csv").write_text("entity,size\n" + "".join(f"e{index},{index}\n" for index in range(30)))
    (data / "entity_labels.tsv").write_text("0\tthe first\n")
    return data


def test_a_folder_with_its_features(folder, tmp_path, capsys, monkeypatch):
    out = tmp_path / "new"
    assert run_here("resplit", f"--data={folder}", f"--out={out}", "--seed=1", monkeypatch=monkeypatch) == 0
    old, new = (load_graph(one, make=("numeric",)) for one in (folder, out))
    check_the_rules(old, new)
    assert new.entities == old.entities
    assert new.relations == old.relations
    assert [one.name for one in new.modalities] == ["image", "numeric"]
    for before, after in zip(old.modalities, new.modalities, strict=True):
        assert np.array_equal(before.features, after.features)
    assert (out / "entity_labels.tsv").read_text() == "0\tthe first\n"
    told = capsys.readouterr().out
    rows, distinct = (sum(map(len, one.splits.values())) for one in (old, new))
    assert f"{rows} triples, {rows - distinct} of them duplicates that are dropped; " in told
    pairs = {frozenset((row[0], row[2])) for part in new.splits.values() for row in part.tolist()}
    assert f"; {len(pairs)} pairs of entities, each in one split\n" in told
    assert "copied with it: image.npy, entity_labels.tsv, numeric.csv\n" in told


def test_a_seed_below_0_is_one_line(folder, tmp_path, capsys, monkeypatch):
    flags = (f"--data={folder}", f"--out={tmp_path / 'new'}", "--seed=-1")
    assert run_here("resplit", *flags, monkeypatch=monkeypatch) == 2
    assert capsys.readouterr().err.startswith("error: --seed: -1 is not allowed")


def test_what_is_in_the_way(folder, tmp_path):
    out = tmp_path / "new"

    def again(place=out, **more):
        resplit_folder(folder, place, notify=lambda line: None, **more)

    again()
    with pytest.raises(UserError, match=r"test2id\.txt: already exists; give --overwrite or another --out"):
        again(seed=1)
    before = read_triples(out).test
    again(seed=1, overwrite=True)
    assert not np.array_equal(before, read_triples(out).test)
    with pytest.raises(UserError, match="is the folder of the graph itself"):
        again(folder)
    np.save(out / "text.npy", np.ones((30, 2), np.float32))
    with pytest.raises(UserError, match=r"text\.npy: does not belong to old; remove it"):
        again(overwrite=True)
    assert set(feature_paths(out, "new")) == {"image", "text"}
    (out / "text.npy").unlink()
    (out / "descriptions.tsv").write_text("e0\tof another graph\n")
    with pytest.raises(UserError, match=r"descriptions\.tsv: does not belong to old; remove it"):
        again(overwrite=True)
    other = tmp_path / "other"
    other.mkdir()
    (other / "train.txt").write_text("a\tb\tc\n")
    with pytest.raises(UserError, match="contains a graph in another layout"):
        again(other)
