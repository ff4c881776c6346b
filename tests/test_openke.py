"""The OpenKE layout: both separators, the column order on disk, the five benchmarks, and each bad input."""

import os
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mocme_jax.data.graph.openke_layout import _any_rows, _plain_rows, read_openke
from mocme_jax.errors import UserError

# Entities, relations, train, valid, test: as counted by the releases' own first lines.
SIZES = {
    "MKG-W": (15_000, 169, 34_196, 4_276, 4_274),
    "MKG-Y": (15_000, 28, 21_310, 2_665, 2_663),
    "DB15K": (12_842, 279, 79_222, 9_904, 9_902),
    "TIVA": (11_858, 16, 20_071, 2_000, 2_000),
    "KVC16K": (16_015, 4, 180_190, 22_523, 22_525),
}


def test_columns_on_disk_are_head_tail_relation(write_files, openke_files):
    graph = read_openke(write_files(openke_files))
    assert graph.entities == ["Ada Lovelace", "London", "Franciaorsz\u00e1g"]
    assert graph.relations == ["born in", "in"]
    assert graph.train.tolist() == [[0, 0, 1], [1, 1, 2], [0, 0, 2]]
    assert graph.valid.tolist() == [[0, 1, 1]]
    assert graph.train.dtype == np.int32
    assert graph.name == "graph"


def test_ids_decide_not_the_order_of_lines(write_files, openke_files):
    openke_files["entity2id.txt"] = "3\nb\t2\na\t0\nc\t1\n"
    assert read_openke(write_files(openke_files)).entities == ["a", "c", "b"]


def test_byte_order_mark_windows_line_ends_and_unicode_separators(write_files, openke_files):
    openke_files["entity2id.txt"] = "\ufeff3\r\nA\u2028B\t0\r\nLondon\t1\r\nC\u00a0D\t2\r\n\r\n"
    assert read_openke(write_files(openke_files)).entities == ["A\u2028B", "London", "C\u00a0D"]


def test_duplicates_stay_as_released(write_files, openke_files):
    openke_files["train2id.txt"] = "3\n0 1 0\n0 1 0\n1 2 1\n"
    assert len(read_openke(write_files(openke_files)).train) == 3


def test_an_empty_split_is_a_split(write_files, openke_files):
    openke_files["valid2id.txt"] = "0\n"
    assert read_openke(write_files(openke_files)).valid.shape == (0, 3)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("entity2id.txt", None, r"entity2id\.txt: no such file"),
        ("test2id.txt", None, r"test2id\.txt: no such file; .*single line 0"),
        ("train2id.txt", "4\n0 1 0\n1 2 1\n0 2 0\n", r"train2id\.txt:1: the count says 4 rows but 3 follow"),
        ("train2id.txt", "0 1 0\n1 2 1\n", r"train2id\.txt:1: expected a line with the count"),
        ("train2id.txt", "", r"train2id\.txt:1: expected a line with the count"),
        ("train2id.txt", "0\n", r"train2id\.txt: contains no triples"),
        ("train2id.txt", "2\n0 1 0\n0 3 0\n", r"train2id\.txt:3: entity id 3 is out of range; .*ids 0 to 2"),
        (
            "train2id.txt",
            "2\n0 1 2\n0 1 0\n",
            r"train2id\.txt:2: relation id 2 is out of range; .*ids 0 to 1",
        ),
        ("train2id.txt", "2\n0 1 0\n0 -1 0\n", r"train2id\.txt:3: expected three ids|out of range"),
        (
            "train2id.txt",
            "2\n0 1 0\n0 1\n",
            r"train2id\.txt:3: expected three ids 'head tail relation', found '0 1'",
        ),
        ("train2id.txt", "2\n0 1 0 1\n0 1\n", r"train2id\.txt:2: expected three ids"),
        ("train2id.txt", "1\n0 1 99999999999999999999\n", r"train2id\.txt:2: expected three ids"),
        ("train2id.txt", "1\nAda London 0\n", r"train2id\.txt:2: expected three ids"),
        ("entity2id.txt", "3\na\t0\nb\t1\na\t2\n", r"entity2id\.txt:4: name 'a' is also on line 2"),
        ("entity2id.txt", "3\na\t0\nb\t1\nc\t1\n", r"entity2id\.txt:4: id 1 is given twice"),
        ("entity2id.txt", "3\na\t0\nb\t1\nc\t3\n", r"entity2id\.txt:4: id 3 is out of range"),
        ("entity2id.txt", "3\na\t0\nb\nc\t2\n", r"entity2id\.txt:3: expected 'name id'"),
        ("train2id.txt", "9" * 5000 + "\n0 1 0\n", r"train2id\.txt:1: expected a line .* found '9{40}'"),
        ("train2id.txt", "\u0661\n0 1 0\n", r"train2id\.txt:1: expected a line with the count"),
        ("train2id.txt", f"1\n0 1 {'9' * 5000}\n", r"train2id\.txt:2: expected three ids"),
        ("train2id.txt", "2\n0 1 0\n0 1 \u0660\n", r"train2id\.txt:3: expected three ids"),
        ("train2id.txt", "1\n0 1_0 0\n", r"train2id\.txt:2: expected three ids"),
        ("train2id.txt", "1\n0 1 9223372036854775808\n", r"train2id\.txt:2: expected three ids"),
        ("entity2id.txt", f"3\na\t0\nb\t1\nc\t{'9' * 5000}\n", r"entity2id\.txt:4: expected 'name id'"),
        ("entity2id.txt", "3\na\t0\nb\t1\nc\t\u0662\n", r"entity2id\.txt:4: expected 'name id'"),
        ("entity2id.txt", "3\na\t0\nb\0\t1\nc\t2\n", r"entity2id\.txt:3: contains a zero byte, .*fetch or convert it"),
        ("relation2id.txt", "2\nborn in 0\n", r"relation2id\.txt:1: the count says 2 rows but 1 follow"),
    ],
)
def test_bad_input_names_file_line_and_cure(write_files, openke_files, file, text, message):
    if text is None:
        del openke_files[file]
    else:
        openke_files[file] = text
    with pytest.raises(UserError, match=message) as caught:
        read_openke(write_files(openke_files))
    assert "\n" not in str(caught.value)


def test_text_in_another_encoding_is_refused(write_files, openke_files):
    folder = write_files(openke_files)
    (folder / "entity2id.txt").write_bytes("3\na\t0\nK\xf6ln\t1\nc\t2\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"entity2id\.txt:3: not UTF-8"):
        read_openke(folder)


@pytest.mark.parametrize("name", SIZES)
def test_benchmarks_load_as_counted(benchmark_data, name):
    graph = read_openke(benchmark_data / name)
    splits = [graph.train, graph.valid, graph.test]
    assert (len(graph.entities), len(graph.relations), *map(len, splits)) == SIZES[name]
    assert len(set(graph.entities)) == len(graph.entities)
    # An oracle of its own: one row of each file, read by hand.
    for split, triples in graph.splits.items():
        head, tail, relation = (benchmark_data / name / f"{split}2id.txt").read_text().split("\n")[100].split()
        assert triples[99].tolist() == [int(head), int(relation), int(tail)]


def test_text_of_two_bytes_a_letter_is_named(write_files, openke_files):
    folder = write_files(openke_files)
    for codec, message in (("utf-16", r"entity2id\.txt:1: "), ("utf-16-le", r"entity2id\.txt:1: contains a zero byte")):
        (folder / "entity2id.txt").write_bytes(openke_files["entity2id.txt"].encode(codec))
        with pytest.raises(UserError, match=message):
            read_openke(folder)


def test_what_is_no_file_is_not_waited_for(write_files, openke_files):
    for make in (os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path), lambda path: os.symlink(path, path)):
        folder = write_files(openke_files)
        path = folder / "relation2id.txt"
        path.unlink()
        make(path)
        with pytest.raises(
            UserError, match=r"relation2id\.txt: (expected a file, found a folder, a pipe or a device|cannot be read)"
        ):
            read_openke(folder)
        shutil.rmtree(folder)


# Names that the layout can hold: no end of line, nothing that is cut off at the ends, and a tab only as the separator.
NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\n\r\t\ufeff"), min_size=1, max_size=9)
NAMES = NAMES.filter(lambda name: name == name.strip())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(NAMES, min_size=1, max_size=6, unique=True), data=st.data())
def test_what_is_written_is_what_is_read(write_files, names, data):
    ids = st.integers(0, len(names) - 1)
    triples = data.draw(st.lists(st.tuples(ids, st.just(0), ids), min_size=1, max_size=8))
    rows = "".join(f"{head} {tail} {relation}\n" for head, relation, tail in triples)
    files = {
        "entity2id.txt": f"{len(names)}\n" + "".join(f"{name}\t{index}\n" for index, name in enumerate(names)),
        "relation2id.txt": "1\nr 0\n",
        **{f"{split}2id.txt": f"{len(triples)}\n{rows}" for split in ("train", "valid", "test")},
    }
    graph = read_openke(write_files(files))
    assert graph.entities == names
    assert graph.train.tolist() == [list(triple) for triple in triples]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.sampled_from(["1 2 3\n", "40\t5 6\r\n", " 7  8 9 \n", "1 2\n", "1\r2 3\n", "\n", "1 2 x\n", "1 2 \u0663\n"])
    ),
    st.sampled_from(["", "1 2 3", "9999999999 1 2", " ", "1 2 " + 20 * "1", "+1 2 3"]),
    st.integers(1, 20),
)
def test_files_read_in_blocks_are_read_as_line_by_line(tmp_path, monkeypatch, lines, end, block):
    monkeypatch.setattr("mocme_jax.data.graph.openke_layout._BLOCK", block)
    path, text = tmp_path / "train2id.txt", "".join(lines) + end
    path.write_bytes(f"{len(text.rstrip().splitlines())}\n{text}".encode())
    quick = _plain_rows(path)
    if quick is not None:
        assert quick.dtype == np.int32
        np.testing.assert_array_equal(quick, _any_rows(path))
    elif not end and set(lines) <= {"1 2 3\n", "40\t5 6\r\n", " 7  8 9 \n"}:
        raise AssertionError("a usual file was not read in blocks")
