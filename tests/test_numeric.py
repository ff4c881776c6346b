"""Numeric attributes: ranks, masks, names or ids, rows or tables, and each bad input."""

import numpy as np
import pytest

from mocme_jax.data.features import numeric_tables
from mocme_jax.data.features.attribute_values import quantile
from mocme_jax.data.features.numeric_features import numeric_modality
from mocme_jax.data.graph.openke_layout import read_openke
from mocme_jax.errors import UserError

ENTITIES = ["a", "b", "c", "d"]


def quantile_of(values):
    return quantile(values, np.sort(values))


def test_quantiles_against_scipy_free_arithmetic():
    np.testing.assert_allclose(quantile_of(np.array([10.0, -3, 1e30, 5])), [0.25, -0.75, 0.75, -0.25])
    np.testing.assert_allclose(quantile_of(np.array([1.0, 1, 2, 3])), [-0.5, -0.5, 0.25, 0.75])
    np.testing.assert_allclose(quantile_of(np.array([7.0, 7])), [0, 0])


def test_quantiles_are_centred_bounded_and_monotone():
    values = np.round(np.random.default_rng(0).standard_cauchy(500), 1)
    scaled = quantile_of(values)
    assert abs(scaled.mean()) < 1e-12
    assert np.abs(scaled).max() < 1
    order = np.argsort(values)
    assert ((np.diff(scaled[order]) > 0) == (np.diff(values[order]) > 0)).all()
    np.testing.assert_allclose(quantile_of(values**3), scaled)


def test_values_then_masks_by_alphabet(write_files):
    rows = "a\tsize\t1\nb\tsize\t3\nc\tsize\t2\nb\tage\t5\n"
    path = write_files({"n.tsv": rows}) / "n.tsv"
    modality = numeric_modality(path, ENTITIES, min_rows=1)
    third = 2 / 3
    np.testing.assert_allclose(
        modality.features,
        [[0, -third, 0, 1], [0, third, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]],
        atol=1e-6,
    )
    assert modality.present.tolist() == [True, True, True, False]
    kept = numeric_modality(path, ENTITIES, min_rows=2)
    assert kept.features.shape == (4, 2)
    assert numeric_modality(path, ENTITIES, min_rows=9).features.shape == (4, 4), "dropping all would leave nothing"


def test_several_values_count_with_their_mean_and_ids_serve_as_well(write_files):
    by_name = write_files({"n.tsv": "entity\tattribute\tvalue\na\tx\t1\na\tx\t5\nb\tx\t2\n"}) / "n.tsv"
    by_id = write_files({"i.tsv": "0\tx\t3\n1\tx\t2\n"}) / "i.tsv"
    first, second = (numeric_modality(path, ENTITIES, min_rows=1) for path in (by_name, by_id))
    np.testing.assert_array_equal(first.features, second.features)
    assert first.features[:, 0].tolist() == [0.5, -0.5, 0, 0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"n\.tsv: contains no rows"),
        ("a\tx\n", r"n\.tsv:1: expected 'entity<TAB>attribute<TAB>value'"),
        ("a\tx\t1\nb\tx\tbig\n", r"n\.tsv:2: value 'big' is not a finite number"),
        ("a\tx\tnan\n", r"n\.tsv:1: value 'nan' is not a finite number"),
        ("a\tx\tinf\n", r"n\.tsv:1: value 'inf' is not a finite number"),
        ("z\tx\t1\n4\tx\t1\n", r"n\.tsv:1: the graph has none of the names in its 2 rows, such as 'z', '4'"),
    ],
)
def test_bad_rows(write_files, content, message):
    with pytest.raises(UserError, match=message):
        numeric_modality(write_files({"n.tsv": content}) / "n.tsv", ENTITIES)


@pytest.mark.parametrize(
    ("rows", "lacking"),
    [("a\tx\t1\nz\tx\t-9\nb\tx\t2\n", "'z'"), ("0\tx\t1\n4\tx\t-9\n1\tx\t2\n", "'4'")],
    ids=["names", "ids"],
)
def test_rows_of_entities_that_the_graph_lacks_are_said_and_change_nothing(write_files, rows, lacking):
    folder, told = write_files({"n.tsv": rows, "rest.tsv": "a\tx\t1\nb\tx\t2\n"}), []
    modality = numeric_modality(folder / "n.tsv", ENTITIES, notify=told.append)
    np.testing.assert_array_equal(modality.features, numeric_modality(folder / "rest.tsv", ENTITIES).features)
    assert told == [
        f"{folder / 'n.tsv'}:2: 1 of 3 rows have names that are not in the graph and are left out: {lacking}",
    ]


@pytest.mark.parametrize(
    ("name", "entities", "attributes", "finer"), [("DB15K", 11_241, 113, 30), ("MKG-Y", 5_012, 5, 4)]
)
def test_benchmarks(benchmark_data, name, entities, attributes, finer):
    graph = read_openke(benchmark_data / name)
    modality = numeric_modality(benchmark_data / name / "numeric_triples.tsv", graph.entities, min_rows=1)
    assert modality.features.shape == (len(graph.entities), 2 * attributes + 17 * finer)
    assert modality.present.sum() == entities
    values, given, triangles = np.split(modality.features, [attributes, 2 * attributes], axis=1)
    sums = triangles.reshape(len(values), finer, 17).sum(axis=2)
    np.testing.assert_allclose(np.sort(sums.sum(axis=0)), np.sort(given.sum(axis=0))[-finer:], rtol=1e-4)
    assert (values[given == 0] == 0).all()
    assert np.abs(values).max() < 1


@pytest.mark.parametrize("value", ["1_000", "\u0663", "9" * 400, "1e400", "0x10"])
def test_numbers_in_other_writings(write_files, value):
    with pytest.raises(UserError, match=r"n\.tsv:2: value '.*' is not a finite number"):
        numeric_modality(write_files({"n.tsv": f"a\tx\t1\nb\tx\t{value}\n"}) / "n.tsv", ENTITIES)


def test_a_table_that_the_rows_do_not_fill_is_refused_before_it_is_made(write_files):
    # 30,000 attributes of 5,000 entities: 1.2 GB for 700 kB of rows.
    rows = "".join(f"{index % 3}\tattribute {index}\t1\n" for index in range(30_000))
    path = write_files({"n.tsv": rows}) / "n.tsv"
    with pytest.raises(UserError, match=r"30,000 attributes of 5,000 entities would take 300,000,000 cells for 30,000"):
        numeric_modality(path, [f"entity {index}" for index in range(5000)])
    assert numeric_modality(path, ["a", "b", "c"]).features.shape == (3, 60_000)


TABLE = "place,size,age\na,1,\nb,3,5\nc,2,\n"


def test_a_table_says_what_rows_say(write_files):
    folder = write_files({"n.csv": TABLE, "n.tsv": "a\tsize\t1\nb\tsize\t3\nc\tsize\t2\nb\tage\t5\n"})
    table, rows = (numeric_modality(folder / name, ENTITIES, min_rows=1) for name in ("n.csv", "n.tsv"))
    np.testing.assert_array_equal(table.features, rows.features)
    np.testing.assert_array_equal(table.present, rows.present)
    third = 2 / 3
    wanted = [[0, -third, 0, 1], [0, third, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]]
    np.testing.assert_allclose(table.features, wanted, atol=1e-6)


@pytest.mark.parametrize(
    "content",
    [
        "\ufeff" + TABLE,
        TABLE.replace("\n", "\r\n"),
        TABLE.replace("\n", "\n\n") + " \n,,\n",
        'place,"size", age\n"a",1, \nb , 3.0,+5e0\nc,"2",\n',
        ",size,age\n0,1,\n1,3,5\n2,2,\n",
    ],
    ids=["byte-order mark", "CRLF", "blank lines", "quotes and spaces", "ids, no name for the first column"],
)
def test_a_table_in_other_writings(write_files, content):
    folder = write_files({"n.CSV": content, "n.csv": TABLE})
    other, plain = (numeric_modality(folder / name, ENTITIES, min_rows=1) for name in ("n.CSV", "n.csv"))
    np.testing.assert_array_equal(other.features, plain.features)


def test_names_with_commas_quotes_and_line_ends(write_files):
    entities = ["Washington, D.C.", 'the "old" town', "two\nlines", "plain"]
    table = 'name,"size, km2"\n"Washington, D.C.",1\n"the ""old"" town",2\n"two\nlines",3\nplain,x\n'
    path = write_files({"n.csv": table}) / "n.csv"
    with pytest.raises(UserError, match=r"n\.csv:6: column 'size, km2': value 'x' is not a finite number"):
        numeric_modality(path, entities)
    path.write_text(table.replace("x", "4"))
    assert numeric_modality(path, entities).features[:, 0].tolist() == [-0.75, -0.25, 0.25, 0.75]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"n\.csv: contains no values"),
        ("e,x,y\n", r"n\.csv: contains no values"),
        ("e,x\na,\nb,\n", r"n\.csv: contains no values"),
        ("e,x,y\na,1,2\nb,1,2,3\n", r"n\.csv:3: 4 cells in a table of 3 columns"),
        ("e,x,y\na,1\n", r"n\.csv:2: 2 cells in a table of 3 columns"),
        ("e,x,,y\na,1,2,3\n", r"n\.csv:1: column 3 has no name"),
        ("e,x,y,x\na,1,2,3\n", r"n\.csv:1: column 4: another column is also called 'x'"),
        ("e,x,y\na,1,2\nb,1,big\n", r"n\.csv:3: column 'y': value 'big' is not a finite number; correct it or leave"),
        ("e,x\na,nan\n", r"n\.csv:2: column 'x': value 'nan' is not a finite number"),
        ("e,x\na,1_000\n", r"n\.csv:2: column 'x': value '1_000' is not a finite number"),
        ('e,x\na,"1,5"\n', r"n\.csv:2: column 'x': value '1,5' is not a finite number; write a decimal point"),
        ("e;x\na;1,5\n", r"n\.csv:1: no commas between columns; write commas instead of semicolons"),
        ("e\tx\na\t1\n", r"n\.csv:1: no commas between columns; write commas instead of tabs"),
        ("e\na\n", r"n\.csv:1: no commas between columns; a table starts with a header"),
        ("e,x\na,1\nb,2\na,1\n", r"n\.csv:4: 'a' already has a row, on line 2"),
        ("e,x\n,1\n", r"n\.csv:2: names no entity"),
        ("e,x\na,\nz,1\ny,\n", r"n\.csv:3: the graph has none of the names in its 1 rows, such as 'z'"),
        ('e,x\na,"1\nb,2\n', r"n\.csv:2: malformed \(unexpected end of data\)"),
        ('e,x\na,"1"2\n', r"n\.csv:2: malformed"),
        ("e,x\na,1\rb,2\n", r"n\.csv:2: malformed"),
        ("e,x\na,1" + "0" * 200_000 + "\n", r"n\.csv:2: malformed \(field larger than field limit"),
    ],
)
def test_bad_tables(write_files, content, message):
    with pytest.raises(UserError, match=message):
        numeric_modality(write_files({"n.csv": content}) / "n.csv", ENTITIES)


def test_a_decimal_comma_in_a_row(write_files):
    with pytest.raises(UserError, match=r"n\.tsv:1: value '-1,5' is not a finite number; write a decimal point"):
        numeric_modality(write_files({"n.tsv": "a\tx\t-1,5\n"}) / "n.tsv", ENTITIES)


def test_one_long_name_does_not_widen_all(write_files):
    """As an array of text, these would take 40 GB."""
    table = "e,y," + "x" * 100_000 + "\n" + "".join(f"{index},1,2\n" for index in range(50_000))
    path = write_files({"n.csv": table}) / "n.csv"
    assert numeric_modality(path, [f"entity {index}" for index in range(50_000)]).features.shape == (50_000, 4)


WORDS = "place,kind,size,code,label\na,town,1,x1,the first\nb,city,,x1,the second\nc,town,3,,the third\nd,,2,,\n"


def test_columns_of_words_become_one_hot(write_files, monkeypatch):
    """Centred: a word that half of four rows have is +-1/2 there."""
    monkeypatch.setattr(numeric_tables, "MOST_WORDS", 2)
    told = []
    path = write_files({"n.csv": WORDS}) / "n.csv"
    rows = numeric_modality(path, ["a", "b", "c", "d"], min_rows=1, notify=told.append).features
    # In the order of names: code=x1, kind=city, kind=town, size; then which of them are given.
    third = 1 / 3
    wanted = [
        [0, -third, third, -2 * third],
        [0, 2 * third, -2 * third, 0],
        [0, -third, third, 2 * third],
        [0, 0, 0, 0],
    ]
    np.testing.assert_allclose(rows[:, :4], wanted, atol=1e-6)
    assert rows[:, 4:].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 0, 1]]
    assert told == [
        f"{path}: columns of words become one attribute per word: 'kind' (2), 'code' (1)",
        f"{path}: columns of more than 2 different words are left out: 'label' (3)",
    ]


@pytest.mark.parametrize("cell", ["1st", "nan", "inf", "1,5", "12 km", "-"])
def test_a_column_with_numbers_is_no_column_of_words(write_files, cell):
    path = write_files({"n.csv": f'e,x\na,"{cell}"\nb,{"2" if cell == "-" else "none"}\n'}) / "n.csv"
    with pytest.raises(UserError, match=r"n\.csv:[23]: column 'x': value '.*' is not a finite number"):
        numeric_modality(path, ENTITIES)


def test_words_that_would_fill_the_memory_are_refused(write_files):
    words = "".join(f"{row}" + "".join(f",w{row % 30}" for _ in range(90)) + "\n" for row in range(4000))
    path = write_files({"n.csv": "e" + "".join(f",c{column}" for column in range(90)) + "\n" + words}) / "n.csv"
    with pytest.raises(UserError, match=r"columns of words would take more than 8,388,608 cells; leave some out"):
        numeric_modality(path, [f"entity {index}" for index in range(4000)])


def test_a_table_needs_no_header(write_files):
    folder = write_files({"n.csv": "a,1,2\nb,3,\n", "h.csv": "e,x,y\na,1,2\nb,3,\n", "w.csv": "a,1,2\nb,3,5 km\n"})
    with pytest.raises(UserError, match=r"w\.csv:2: column 'column 3': value '5 km' is not a finite number"):
        numeric_modality(folder / "w.csv", ENTITIES)
    bare, headed = (numeric_modality(folder / name, ENTITIES) for name in ("n.csv", "h.csv"))
    np.testing.assert_array_equal(bare.features, headed.features)
