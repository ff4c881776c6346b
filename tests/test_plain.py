"""Plain triple files: tabs, count lines, the dotted form, names or ids, and each bad input."""

import gzip

import pytest

from mocme_jax.data.graph.graph_folder import read_triples
from mocme_jax.data.graph.openke_layout import read_openke
from mocme_jax.data.graph.plain_layout import read_plain
from mocme_jax.data.graph.plain_rows import read_rows
from mocme_jax.data.readers.zip_archive import INFLATED
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
        "x\tr\ty .\ny\tr\tz .\n",
        " x\tr\ty \ny \t r\tz\n",
        "head\trelation\ttail\nx\tr\ty\ny\tr\tz\n",
        "relation\thead\ttail\nr\tx\ty\nr\ty\tz\n",
        "source_id target_id edge_type\nx y r\ny z r\n",
    ],
    ids=[
        *("tabs", "count line", "dotted", "spaces", "tabs and dots", "dots behind tabs", "blanks"),
        *("header", "header of another order", "header of words"),
    ],
)
def test_all_forms_say_the_same(write_files, text):
    graph = read_plain(write_files({"train.txt": text}))
    assert (graph.entities, graph.relations) == (["x", "y", "z"], ["r"])
    assert graph.train.tolist() == [[0, 0, 1], [1, 0, 2]]
    assert graph.valid.shape == graph.test.shape == (0, 3)


@pytest.mark.parametrize("folder", ["plain", "openke"])
def test_numbers_that_are_exactly_0_to_n_are_the_ids(write_files, folder):
    triples = [(2, 1, 0), (3, 0, 1), (2, 0, 3)]
    splits = dict(zip(("train", "valid", "test"), triples, strict=True))
    if folder == "plain":
        files = {f"{split}.txt": f"{h}\t{r}\t{t}\n" for split, (h, r, t) in splits.items()}
    else:
        files = {f"{split}2id.txt": f"1\n{h} {t} {r}\n" for split, (h, r, t) in splits.items()}
        files |= {"entity2id.txt": "4\n0 0\n1 1\n2 2\n3 3\n", "relation2id.txt": "2\n0 0\n1 1\n"}
    graph = (read_plain if folder == "plain" else read_openke)(write_files(files))
    assert (graph.entities, graph.relations) == (["0", "1", "2", "3"], ["0", "1"])
    assert [split.tolist() for split in graph.splits.values()] == [[list(triple)] for triple in triples]


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


def test_a_number_is_no_id_beside_names_that_are_numbers(write_files):
    names = {**NAMES, "entity2id.txt": "3\n10\t0\n1\t1\nd\t2\n"}
    graph = read_plain(write_files({**names, "train.txt": "1\t4\t10\nd\t1\t1\n"}))
    assert graph.train.tolist() == [[1, 0, 0], [2, 1, 1]]
    with pytest.raises(UserError, match=r"train\.txt:2: '2' is not in entity2id\.txt"):
        read_plain(write_files({**names, "train.txt": "1\t4\t10\n2\t4\t1\n"}))


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("head\trelation\ttail", ""),
        ("Subject\tPredicate\tObject", ""),
        ("h\tr\tt", ""),
        ("relation\thead\ttail", "; the columns are read in its order"),
        ("head_id\ttail_id\trelation_id", "; the columns are read in its order"),
    ],
)
def test_a_header_is_no_triple_and_is_said(write_files, header, said):
    path, told = write_files({"train.txt": f"{header}\na\tb\tc\nd\te\tf\n"}) / "train.txt", []
    _, rows, lines, ordered = read_rows(path, told.append)
    assert (len(rows), list(lines), ordered) == (2, [2, 3], True)
    assert told == [f"{path}:1: the header {header.replace(chr(9), ' ')!r} is not a triple and is left out{said}"]


@pytest.mark.parametrize("text", ["h\tr\tt\n", "h\tr\tt\nt\tr\th\n", "head\tpart of\ttail\na\tb\tc\n"])
def test_words_that_are_used_are_no_header(write_files, text):
    _, rows, lines, ordered = read_rows(write_files({"train.txt": text}) / "train.txt")
    assert (len(rows), lines[0], ordered) == (text.count("\n"), 1, False)


@pytest.mark.parametrize("term", ["<http://x/Inc.>", '"U.S."@en', '"1.5"^^<http://x/float>', "_:b1"])
@pytest.mark.parametrize("dot", [" .", ".", "\t.", ""])
def test_the_dot_of_n_triples_is_no_part_of_a_name(write_files, term, dot):
    graph = read_plain(write_files({"train.txt": f"<http://x/a>\t<http://x/r>\t{term}{dot}\n"}))
    assert graph.entities == ["<http://x/a>", term]


def test_a_dot_that_not_every_row_has_is_part_of_a_name(write_files):
    graph = read_plain(write_files({"train.txt": "a\tr\tApple Inc .\nb\tr\tApple Inc.\nc\tr\ta\n"}))
    assert graph.entities == ["a", "Apple Inc .", "b", "Apple Inc.", "c"]


def test_blanks_around_names_make_no_new_names(write_files):
    graph = read_plain(write_files({"train.txt": "a b\tr\tc\nc\tr\ta b\n", "test.txt": "a b \t r\t c\n"}))
    assert (graph.entities, graph.relations) == (["a b", "c"], ["r"])


@pytest.mark.parametrize(("mark", "kind"), [(",", "commas"), (";", "semicolons"), ("|", "bars")])
@pytest.mark.parametrize("row", ["item {0} a,in group,big kind", "a{0},r,b", "a {0},in a,group"])
def test_columns_between_other_marks_are_refused(write_files, mark, kind, row):
    text = "".join(row.format(index).replace(",", mark) + "\n" for index in range(3))
    with pytest.raises(UserError, match=rf"train\.txt:1: columns are separated by {kind}, .*; write tabs"):
        read_plain(write_files({"train.txt": text}))


def test_names_with_commas_between_spaces_are_names(write_files):
    rows = [f"City_{index},_State near City_{index + 1},_State" for index in range(3)]
    assert read_plain(write_files({"train.txt": "\n".join(rows)})).relations == ["near"]


@pytest.mark.parametrize("stem", ["valid", "dev", "val", "validation"])
@pytest.mark.parametrize("ending", [".txt", ".tsv", ""])
@pytest.mark.parametrize("packed", [False, True])
def test_other_names_of_the_files(write_files, stem, ending, packed):
    folder = write_files({f"train{ending}": "a\tr\tb\nb\tr\tc\n", f"{stem}{ending}": "c\tr\ta\n", f"test{ending}": ""})
    if packed:
        for path in list(folder.iterdir()):
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    if ending:
        (folder / "val").mkdir()  # a folder of anything
    graph = read_triples(folder)
    assert graph.entities == ["a", "b", "c"]
    assert [split.tolist() for split in graph.splits.values()] == [[[0, 0, 1], [1, 0, 2]], [[2, 0, 0]], []]


@pytest.mark.parametrize("other", ["dev.txt", "valid.tsv", "valid.txt.gz"])
def test_two_files_of_one_split_are_refused(write_files, other):
    folder = write_files({"train.txt": "a\tr\tb\n", "valid.txt": "a\tr\tb\n", other: "b\tr\ta\n"})
    with pytest.raises(UserError, match=r": gives the valid split, and so does valid\.t.*; remove one of the two"):
        read_plain(folder)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a\tr\tb\n", "truncated or not a gzip file"),
        (gzip.compress(b"a\tr\tb\n")[:-9], "truncated or not a gzip file"),
        (gzip.compress(b"a\tr\tb\n")[:-8] + bytes(8), "truncated or not a gzip file"),
        (
            gzip.compress(bytes(INFLATED + 1)),
            "contains more than 67,108,864 bytes from .* compressed bytes; decompress it",
        ),
        (gzip.compress(b"a\tr\tb\0\n"), "contains a zero byte"),
    ],
    ids=["plain", "cut", "checksum", "bomb", "zero byte"],
)
def test_bad_compressed_files(write_files, data, message):
    folder = write_files({})
    (folder / "train.txt.gz").write_bytes(data)
    with pytest.raises(UserError, match=rf"train\.txt\.gz:.*{message}"):
        read_plain(folder)


WITHOUT_COUNT = {"entity2id.txt": "a b\t0\nc\t1\nd\t2\n", "relation2id.txt": "4\t0\n1\t1\n"}
DICTIONARIES = {"entities.dict": "0\ta b\n1\tc\n2\td\n", "relations.dict": "0\t4\n1\t1"}
LISTS = {"entities.txt": "a b\nc\nd\n", "relations.txt": "4\n1\n"}
MIXED = {"entity2id.txt": WITHOUT_COUNT["entity2id.txt"], "relations.txt": LISTS["relations.txt"]}
NAMES_BY_KIND = dict(
    zip(
        ("count", "no count", "dict", "lists", "mixed"), (NAMES, WITHOUT_COUNT, DICTIONARIES, LISTS, MIXED), strict=True
    )
)


@pytest.mark.parametrize("names", NAMES_BY_KIND.values(), ids=NAMES_BY_KIND)
@pytest.mark.parametrize("rows", ["d\t4\ta b\nc\t1\td\n", "2\t0\t0\n1\t1\t2\n"], ids=["names", "ids"])
def test_names_with_and_without_a_count(write_files, names, rows):
    graph = read_plain(write_files({**names, "train.txt": rows}))
    assert (graph.entities, graph.relations) == (["a b", "c", "d"], ["4", "1"])
    assert graph.train.tolist() == [[2, 0, 0], [1, 1, 2]]


@pytest.mark.parametrize("names", [WITHOUT_COUNT, DICTIONARIES, LISTS], ids=["no count", "dict", "lists"])
def test_names_that_a_file_without_a_count_lacks_come_behind_and_are_said(write_files, names):
    folder, told = write_files({**names, "train.txt": "e\t4\ta b\nc\t1\tf\n"}), []
    graph = read_plain(folder, told.append)
    assert graph.entities == ["a b", "c", "d", "e", "f"]
    assert graph.train.tolist() == [[3, 0, 0], [1, 1, 4]]
    assert told == [
        f"{folder / next(iter(names))}: 2 names of the triples are missing here; they get ids from 3 on: 'e', 'f'"
    ]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"relations.txt": "0\tr\n", "train.txt": "a\tr\tb\n"},
            r"relations\.txt:1: expected a name without a tab, found",
        ),
        (
            {**DICTIONARIES, "entities.dict": "a\t0\n", "train.txt": "a\t4\ta\n"},
            r"entities\.dict:1: expected 'id name'",
        ),
        (
            {**DICTIONARIES, "train.txt": "0\t0\t1\n0\t0\t3\n"},
            r"train\.txt:2: entity id 3 .*; entities\.dict has 3 names",
        ),
        ({}, r"train\.txt: no such file"),
        ({"train.txt": ""}, r"train\.txt: contains no triples"),
        ({"train.txt": "0\n"}, r"train\.txt: contains no triples"),
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
        ({"train.nt": "# c\n\n<a> <r> <b> .\n<a> <r> b .\n"}, r"train\.nt:4: expected N-Triples, .* found '<a> <r> b"),
        ({"train.nt": '<a> <r> "b" . .\n'}, r"train\.nt:1: expected N-Triples"),
        (
            {"entity2id.txt": "1\n<a>\t0\n", "train.nt": "# c\n<a> <r> <a> .\n#\n<a> <r> <b> .\n"},
            r"train\.nt:4: '<b>' is not in entity2id\.txt",
        ),
    ],
)
def test_bad_input_names_file_line_and_cure(write_files, files, message):
    with pytest.raises(UserError, match=message):
        read_plain(write_files(files))


def test_names_of_one_kind_may_have_a_file_and_the_other_none(write_files):
    graph = read_plain(write_files({"entity2id.txt": "2\na\t1\nb\t0\n", "train.txt": "a\ts\tb\nb\tr\ta\n"}))
    assert (graph.entities, graph.relations) == (["b", "a"], ["s", "r"])
    assert graph.train.tolist() == [[1, 0, 0], [0, 1, 1]]


@pytest.mark.parametrize("packed", [False, True])
def test_n_triples_by_their_grammar(write_files, packed):
    """Terms hold what would separate columns elsewhere; comments and empty lines are none; the order is known."""
    lines = [
        "# exported today",
        "<http://x/a> <http://x/r> <http://x/b b> .",
        "",
        '<http://x/a>\t<http://x/r>\t"a \\"b\\" . c"@en-GB . # said so',
        '_:n1 <http://x/s> "1.5"^^<http://x/float>.',
        "<http://x/s><http://x/r>_:n1 .",
    ]
    folder = write_files({"train.nt": "\n".join(lines), "test.nt": ""})
    if packed:
        for path in list(folder.iterdir()):
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    graph = read_triples(folder)
    literals = '"a \\"b\\" . c"@en-GB', '"1.5"^^<http://x/float>'
    assert graph.entities == ["<http://x/a>", "<http://x/b b>", literals[0], "_:n1", literals[1], "<http://x/s>"]
    assert graph.relations == ["<http://x/r>", "<http://x/s>"]
    assert graph.train.tolist() == [[0, 0, 1], [0, 0, 2], [3, 1, 4], [5, 0, 3]]


@pytest.mark.parametrize("names", [["a", "b", "c"], ["00260881", "7", "2"]], ids=["words", "numbers"])
def test_ids_of_libkge_are_ids_whatever_the_names(write_files, names):
    """The folder holds the files of names too, that it was made of."""
    files = {f"{kind}.txt": f"{names[2]}\t5\t{names[0]}\n{names[1]}\t6\t{names[2]}\n" for kind in ("train", "valid")}
    files |= {"train.del": "0\t0\t1\n2\t1\t0\n", "valid.del": "2\t1\t0\n", "relation_ids.del": "0\t5\n1\t6\n"}
    files |= {"entity_ids.del": f"0\t{names[2]}\n1\t{names[0]}\n2\t{names[1]}\n", "train_sample.del": "0\t0\t1\n"}
    graph = read_plain(write_files(files))
    assert (graph.entities, graph.relations) == ([names[2], names[0], names[1]], ["5", "6"])
    assert [split.tolist() for split in graph.splits.values()] == [[[0, 0, 1], [2, 1, 0]], [[2, 1, 0]], []]


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
