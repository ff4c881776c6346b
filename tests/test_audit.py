"""The audit against the defects counted in the benchmark data, against loops, and on the command line."""

import subprocess
import sys

import numpy as np
import pytest

from mocme_jax.data.audit.graph_audit import audit
from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph, make_modality
from mocme_jax.data.graph.openke_layout import read_openke
from mocme_jax.data.graph.plain_layout import read_plain

UNSEEN = {"MKG-W": 306, "MKG-Y": 388, "DB15K": 77, "TIVA": 326, "KVC16K": 13}


def graph_of(train, valid=(), test=(), entities=4, modalities=()) -> KnowledgeGraph:
    def triples(rows) -> np.ndarray:
        return np.array(rows, np.int32).reshape(-1, 3)

    names = [f"e{index}" for index in range(entities)]
    return KnowledgeGraph("g", names, ["r", "s"], triples(train), triples(valid), triples(test), tuple(modalities))


def test_db15k(benchmark_data):
    found = audit(read_openke(benchmark_data / "DB15K"))
    valid = found.splits["valid"]
    assert (valid.rows, valid.distinct) == (9_904, 7_481)
    assert valid.distinct_in == {"train": 6_584, "test": 824}
    assert valid.distinct_clean == 73
    assert found.splits["test"].rows_in["train"] == 0
    assert not found.valid_is_clean
    assert found.columns is None
    (line,) = [line for line in found.warnings() if "valid:" in line]
    assert "6,584 of those are in train, 824 in test and 73 in neither: do not choose a model on valid" in line


def test_tiva(benchmark_data):
    found = audit(read_openke(benchmark_data / "TIVA"))
    test = found.splits["test"]
    assert (test.rows, test.rows_in["train"], test.clean) == (2_000, 1_666, 334)
    assert found.splits["train"].duplicates == 8_419
    assert not found.valid_is_clean
    assert any("trust a score on all of test; use the score on its 334 clean rows" in line for line in found.warnings())


def test_kvc16k_and_the_clean_ones(benchmark_data):
    found = audit(read_openke(benchmark_data / "KVC16K"))
    assert found.splits["test"].rows_in["train"] == 48
    assert found.splits["valid"].rows_in["train"] == 30
    assert found.valid_is_clean
    for name in ("MKG-W", "MKG-Y"):
        found = audit(read_openke(benchmark_data / name))
        assert found.valid_is_clean
        for split in found.splits.values():
            assert split.clean == split.distinct == split.rows


@pytest.mark.parametrize("name", UNSEEN)
def test_unseen_entities(benchmark_data, name):
    graph = read_openke(benchmark_data / name)
    found = audit(graph)
    assert found.splits["test"].unseen_entity == UNSEEN[name]
    assert found.splits["train"].unseen_entity == 0


@pytest.mark.parametrize("name", UNSEEN)
def test_joined_entities(benchmark_data, name):
    graph = read_openke(benchmark_data / name)
    train = set(map(tuple, graph.train.tolist()))
    pairs = {frozenset((head, tail)) for head, _, tail in train}
    rows = [row for row in map(tuple, graph.test.tolist()) if row not in train and frozenset(row[::2]) in pairs]
    found = audit(graph)
    assert found.splits["test"].joined_in_train == len(rows)
    assert found.splits["train"].joined_in_train == 0


def test_symmetric_leak_is_counted_and_said():
    train = [(0, 0, 1), (1, 0, 0), (1, 0, 2), (2, 0, 1), (2, 0, 3), (3, 0, 2), (0, 0, 2), (0, 1, 3)]
    found = audit(graph_of(train, test=[(2, 0, 0), (3, 1, 0), (1, 1, 1)]))
    assert [(pair.known, pair.implied) for pair in found.inverses] == [(0, 0)]
    assert found.splits["test"].reversed_in_train == 1
    assert any("1 of 3 rows (33.3%) have their reverse in train" in line for line in found.warnings())
    assert found.splits["test"].joined_in_train == 2
    assert any("2 of 3 rows (66.7%) have two entities" in line for line in found.warnings())


def test_unseen_unused_and_duplicates():
    found = audit(graph_of([(0, 0, 1), (0, 0, 1)], valid=[(0, 0, 2)], test=[(0, 1, 0), (2, 0, 0)], entities=5))
    assert found.unused_entities == 2
    assert found.splits["train"].duplicates == 1
    assert (found.splits["test"].unseen_entity, found.splits["test"].unseen_relation) == (1, 1)
    said = "\n".join(found.warnings())
    assert "1 of 2 rows (50.0%) have an entity that does not occur in train" in said
    assert "1 of 2 rows (50.0%) have a relation that does not occur in train" in said
    assert "train: 1 of 2 rows are duplicates" in said


def test_empty_splits_are_said_and_not_clean():
    found = audit(graph_of([(0, 0, 1), (1, 1, 2)]))
    assert not found.valid_is_clean
    assert [line.split(":")[1] for line in found.warnings()] == [" valid is empty", " test is empty"]


RELATION_FIRST = [(f"rel{index % 3}", f"c{index}", f"c{(index + 1) % 20}") for index in range(20)]
ANOTHER_LAST = [(f"user {index}", f"item {index % 15}", f"rel{index % 3}") for index in range(40)]


RELATION_LAST = [(head, tail, relation) for relation, head, tail in RELATION_FIRST]
ANOTHER_FIRST = [(relation, head, tail) for head, tail, relation in ANOTHER_LAST]


@pytest.mark.parametrize(
    ("rows", "order", "numbers"),
    [
        (RELATION_FIRST, "relation, head, tail", True),
        (RELATION_LAST, "head, tail, relation", True),
        ([*RELATION_FIRST, ("rel0", "c0", "rel1")], "relation, head, tail", False),
        (ANOTHER_LAST, "head, tail, relation", False),
        (ANOTHER_LAST, "head, tail, relation", True),
        (ANOTHER_FIRST, "relation, head, tail", False),
        (ANOTHER_FIRST, "relation, head, tail", True),
    ],
)
def test_columns_in_another_order_are_warned_of_and_a_header_cures_it(write_files, rows, order, numbers):
    """Names of things and of relations alike, or more relations than heads or tails; the right order has neither."""
    if numbers:
        things = [{row[column] for row in rows} for column in range(3)]
        ids = [dict(zip(sorted(some), range(len(some)), strict=True)) for some in things]
        rows = [[ids[column][row[column]] for column in range(3)] for row in rows]
    text = "".join("\t".join(map(str, row)) + "\n" for row in rows)
    (line,) = [line for line in audit(read_plain(write_files({"train.txt": text}))).warnings() if "columns" in line]
    header = order.replace(", ", "<TAB>")
    assert f"were read as head, relation, tail, but may be {order}; " in line
    assert line.endswith(f"such as {header}.")
    cured = audit(read_plain(write_files({"train.txt": header.replace("<TAB>", "\t") + "\n" + text})))
    assert not any("columns" in line for line in cured.warnings())
    assert cured.relations == 3


@pytest.mark.parametrize("order", ["relation, head, tail", "head, tail, relation"])
def test_columns_are_read_in_the_order_that_names_leave_no_doubt_of(write_files, order):
    rows, told = {"r": RELATION_FIRST, "h": RELATION_LAST}[order[0]], []
    parts = ("train", rows[:15]), ("valid", rows[15:18]), ("test", rows[18:])
    folder = write_files({f"{split}.txt": "".join("\t".join(row) + "\n" for row in part) for split, part in parts})
    graph = read_plain(folder, told.append)
    found = [(graph.relations[r], graph.entities[h], graph.entities[t]) for s in graph.splits.values() for h, r, t in s]
    assert found == RELATION_FIRST
    (line,) = told
    assert line.startswith(f"{folder / 'train.txt'}: columns are read as {order}, ")
    assert audit(graph).columns is None
    # A header is a word that no guess overrules.
    train = "head\trelation\ttail\n" + (folder / "train.txt").read_text()
    assert read_plain(write_files({"train.txt": train})).relations == list(dict.fromkeys(row[1] for row in rows))


def test_many_relations_between_few_things_are_no_doubt_where_names_tell_which_is_which(write_files):
    rows = [(f"c{index % 7}", f"rel{index}", f"c{(3 * index + 1) % 7}") for index in range(30)]
    text = "".join("\t".join(row) + "\n" for row in rows)
    assert audit(read_plain(write_files({"train.txt": text}))).columns is None
    assert audit(read_plain(write_files({"train.txt": text.replace("c", "").replace("rel", "")}))).columns is not None


def test_a_filled_in_mean_is_noticed():
    rows = np.random.default_rng(0).standard_normal((200, 7)).astype(np.float32)
    honest = make_modality("image", rows)
    filled = make_modality("text", np.where(np.arange(200)[:, None] < 50, rows.mean(0), rows))
    found = audit(graph_of([(0, 0, 1)], entities=200, modalities=[honest, filled]))
    assert [part.same_row for part in found.modalities] == [1, 50]
    (line,) = [line for line in found.warnings() if "share one row" in line]
    assert line.startswith("g: text: 50 of 200 entities")


def test_the_report_shows_what_was_counted(benchmark_data):
    report = audit(read_openke(benchmark_data / "TIVA")).report()
    (row,) = [line.split() for line in report.splitlines() if line.startswith("test")]
    assert row == ["test", "2,000", "1,906", "94", "1,666", "156", "-", "334", "326", "0", "2", "0"]
    assert report.count("\n! TIVA: ") == 4


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "mocme_jax.audit", *arguments], capture_output=True, text=True)


def test_the_command(write_files, openke_files):
    folder = write_files({**openke_files, "numeric_triples.tsv": "0\tage\t36\n1\tage\t2000\n"})
    done = run(f"--data={folder}", "--name=mine")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("mine: 3 entities (0 in no triple), 2 relations\n")
    assert "66.7%" in done.stdout
    assert {path.name for path in folder.iterdir()} == {*openke_files, "numeric_triples.tsv"}, "nothing is written"


def test_the_command_on_a_bad_folder(tmp_path):
    done = run(f"--data={tmp_path / 'none'}")
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        done.stderr == f"error: {tmp_path / 'none'}: no such folder; give the folder that contains the graph's files\n"
    )


def test_the_command_explains_itself_without_jax():
    script = "import sys; sys.argv[1:] = ['--help']\nimport mocme_jax.audit as a\n"
    script += "try: a.main()\nexcept SystemExit: pass\n"
    script += "assert not {'jax', 'numpy'} & sys.modules.keys()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--data" in done.stdout
