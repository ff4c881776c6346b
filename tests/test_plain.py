"""Plain triple files: tabs, count lines, the dotted form, names or ids, and each bad input."""

import pytest

from mocme_jax.data.graph.openke_layout import read_openke
from mocme_jax.data.graph.plain_layout import read_plain
from mocme_jax.errors import UserError


def test_names_are_numbered_by_first_appearance(write_files):
    folder = write_files({"train.txt": "b\tr\ta\na\tr 2\tc d\n", "valid.txt": "a\tr\te\n", "test.txt": "c d\tr\tb\n"})
    graph = read_plain(folder)
    assert graph.entities == ["b", "a", "c d", "e"]
    assert graph.relations == ["r", "r 2"]
    assert graph.train.tolist() == [[0, 0, 1], [1, 1, 2]]
    assert graph.valid.tolist() == [[1, 0, 3]]
    assert graph.test.tolist() == [[2, 0, 0]]


@pytest.mark.parametrize(
    "text",
    [
        "x\tr\ty\ny\tr\tz\n",
        "2\nx\tr\ty\ny\tr\tz\n",
        "x r y .\ny r z .\n",
        "x r y\ny r z",
        "x\tr\ty\t.\ny\tr\tz\t.\n",
    ],
    ids=["tabs", "count line", "dotted", "spaces", "tabs and dots"],
)
def test_all_forms_say_the_same(write_files, text):
    graph = read_plain(write_files({"train.txt": text}))
    assert (graph.entities, graph.relations) == (["x", "y", "z"], ["r"])
    assert graph.train.tolist() == [[0, 0, 1], [1, 0, 2]]
    assert graph.valid.shape == graph.test.shape == (0, 3)


def test_numbers_without_name_files_are_names(write_files):
    graph = read_plain(write_files({"train.txt": "7\t0\t5\n5\t0\t9\n"}))
    assert graph.entities == ["7", "5", "9"]
    assert graph.train.tolist() == [[0, 0, 1], [1, 0, 2]]


NAMES = {"entity2id.txt": "3\na b\t0\nc\t1\nd\t2\n", "relation2id.txt": "2\n4\t0\n1\t1\n"}


def test_name_files_give_the_ids(write_files):
    graph = read_plain(write_files({**NAMES, "train.txt": "d\t4\ta b\nc\t1\td\n"}))
    assert graph.train.tolist() == [[2, 0, 0], [1, 1, 2]]


def test_ids_that_refer_to_name_files_even_where_relations_are_named_by_numbers(write_files):
    # Relation "1" is a name (of id 1) as well as an id: that the entities are ids settles it, and id 0 is no name.
    graph = read_plain(write_files({**NAMES, "train.txt": "2\t1\t0\n1\t0\t2\n"}))
    assert graph.train.tolist() == [[2, 1, 0], [1, 0, 2]]
    graph = read_plain(write_files({**NAMES, "train.txt": "2\t1\t0\n1\t1\t2\n"}))
    assert graph.train.tolist() == [[2, 1, 0], [1, 1, 2]]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"train\.txt: no such file"),
        ({"train.txt": ""}, r"train\.txt: holds no triples"),
        ({"train.txt": "0\n"}, r"train\.txt: holds no triples"),
        ({"train.txt": "3\na\tr\tb\n"}, r"train\.txt:1: the count says 3 rows but 1 follow"),
        (
            {"train.txt": "a\tr\tb\na\tr\n"},
            r"train\.txt:2: expected 'head relation tail' with tabs, found 'a",
        ),
        ({"train.txt": "a\tr\tb\na r b\n"}, r"train\.txt:2: expected .* with tabs"),
        ({"train.txt": "a r b\nNew York r b\n"}, r"train\.txt:2: expected .* with single spaces"),
        ({"train.txt": "a\tr\tb\n", "test.txt": "a\t\tb\n"}, r"test\.txt:1: expected"),
        ({**NAMES, "train.txt": "c\t4\tx\n"}, r"train\.txt:1: 'x' is not in entity2id\.txt"),
        ({**NAMES, "train.txt": "c\t4\td\nc\tz\td\n"}, r"train\.txt:2: 'z' is not in relation2id\.txt"),
        ({**NAMES, "train.txt": "0\t0\t1\n0\t0\t3\n"}, r"train\.txt:2: entity id 3 is out of range"),
        ({"entity2id.txt": "1\na\t0\n", "train.txt": "a\tr\ta\n"}, r"relation2id\.txt: no such file"),
    ],
)
def test_bad_input_names_file_line_and_cure(write_files, files, message):
    with pytest.raises(UserError, match=message):
        read_plain(write_files(files))


@pytest.mark.parametrize("name", ["MKG-Y", "TIVA"])
def test_the_same_graph_in_three_layouts(benchmark_data, write_files, name):
    graph = read_openke(benchmark_data / name)
    names, ids = {}, {}
    for split, triples in graph.splits.items():
        names[f"{split}.txt"] = "".join(
            f"{graph.entities[h]}\t{graph.relations[r]}\t{graph.entities[t]}\n" for h, r, t in triples
        )
        ids[f"{split}.txt"] = f"{len(triples)}\n" + "".join(f"{h}\t{r}\t{t}\n" for h, r, t in triples)
    tables = {file: (benchmark_data / name / file).read_text("utf-8") for file in ("entity2id.txt", "relation2id.txt")}
    for files, folder in ((names, "names"), (ids, "ids")):
        again = read_plain(write_files({**files, **tables}, folder))
        assert again.replace(name=graph.name).fingerprints() == graph.fingerprints()


def test_digits_of_other_scripts_are_names_and_long_numbers_are_no_ids(write_files):
    graph = read_plain(write_files({"train.txt": "\u0661\tr\t\u0662\n"}))
    assert graph.entities == ["\u0661", "\u0662"]
    with pytest.raises(UserError, match=r"train\.txt:1: '9{58}.*is not in entity2id\.txt"):
        read_plain(write_files({**NAMES, "train.txt": f"{'9' * 5000}\t0\t1\n"}, "long"))
