"""The layouts in which public repositories hold graphs: each is read, and trained on, as it stands.

One small graph is written as each repository would hold it, under names of the kind that it has.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_runner import run_here
from ranks_by_answers import compared, read_triples
from test_torch_file import tensor, write_zip
from tiny_graph import ENTITIES, tiny_flags, write_tiny_graph

from mocme_jax.data.graph.graph_folder import load_graph
from mocme_jax.data.graph.graph_folder import read_triples as read_graph

Triples = dict[str, list[tuple[str, str, str]]]
RELATIONS = ("next", "opposite", "member of")
# The number of a place says what its picture is; ids are in no order that the triples have.
NUMBERS = np.random.default_rng(0).permutation(ENTITIES).tolist()
SPLITS = ("train", "valid", "test")


def renamed(triples: dict, entity: str, relation: Callable[[int], str] = "relation_{}".format) -> Triples:
    """The graph under names that a repository would have, such as ``Q{}``."""
    name = {f"place {number}": entity.format(number) for number in range(ENTITIES)}
    word = {said: relation(index) for index, said in enumerate(RELATIONS)}
    return {split: [(name[h], word[r], name[t]) for h, r, t in rows] for split, rows in triples.items()}


def write_rows(folder: Path, triples: Triples, file: str, row: str) -> None:
    """A file per split; ``row`` such as ``{h} {r} {t} .``."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in triples.items():
        lines = [row.format(h=head, r=relation, t=tail) + "\n" for head, relation, tail in rows]
        (folder / file.format(split)).write_text("".join(lines), encoding="utf-8")


def write_names(path: Path, names: list[str], row: str, count: bool = False) -> None:
    lines = [row.format(name=name, id=index) for index, name in enumerate(names)]
    path.write_text("\n".join([str(len(names))] * count + lines) + "\n", encoding="utf-8")


def as_ids(triples: Triples, entities: list[str], relations: list[str]) -> Triples:
    place, number = ({name: str(index) for index, name in enumerate(names)} for names in (entities, relations))
    return {split: [(place[h], number[r], place[t]) for h, r, t in rows] for split, rows in triples.items()}


def write_pictures(path: Path) -> None:
    """A released tensor of picture vectors, in the order of the ids."""
    rows = np.array([[number, number % 6, 1] for number in NUMBERS], np.float32)
    path.parent.mkdir(exist_ok=True)
    write_zip(path, tensor(rows), {"0": rows.tobytes()})


def momok(folder: Path, triples: dict) -> tuple[Triples, list[str]]:
    """Names without a count, rows with a dot, features beside them."""
    found = renamed(triples, "<http://dbpedia.org/resource/Place_{}>", "<http://dbpedia.org/ontology/r{}>".format)
    write_rows(folder, found, "{}.txt", "{h} {r} {t} .")
    entities = [f"<http://dbpedia.org/resource/Place_{number}>" for number in NUMBERS]
    write_names(folder / "entity2id.txt", entities, "{name} {id}")
    write_names(folder / "relation2id.txt", [f"<http://dbpedia.org/ontology/r{i}>" for i in range(3)], "{name} {id}")
    write_pictures(folder / "img_features.pth")
    return found, []


def native(folder: Path, triples: dict) -> tuple[Triples, list[str]]:
    """OpenKE's files and more; features in a folder for all graphs."""
    found, entities = renamed(triples, "place no. {}", str), [f"place no. {number}" for number in NUMBERS]
    ids = as_ids(found, entities, ["0", "1", "2"])
    write_rows(folder, ids, "{}2id.txt", "{h} {t} {r}")
    for split in SPLITS:
        path = folder / f"{split}2id.txt"
        path.write_text(f"{len(ids[split])}\n{path.read_text()}")
    write_names(folder / "entity2id.txt", entities, "{name}\t{id}", count=True)
    write_names(folder / "relation2id.txt", ["0", "1", "2"], "{name}\t{id}", count=True)
    for name in ("1-1.txt", "n-n.txt", "type_constrain.txt", "test2id_all.txt", "all.txt"):
        (folder / name).write_text("1\n0\t1 2 0\n")
    write_rows(folder, {"test": found["test"]}, "{}.txt", "{h} {r} {t} .")
    for name in ("graph", "DB15K"):
        write_pictures(folder.parent / "embeddings" / f"{name}-visual.pth")
    return found, [f"--config.data.features_dir={folder.parent / 'embeddings'}"]


def mygo(folder: Path, triples: dict) -> tuple[Triples, list[str]]:
    """Ids, and lists of names that are these ids."""
    found = renamed(triples, "{}", str)
    write_rows(folder, found, "{}.txt", "{h}\t{r}\t{t}")
    write_names(folder / "entities.txt", list(map(str, range(ENTITIES))), "{name}")
    write_names(folder / "relations.txt", ["0", "1", "2"], "{name}")
    return found, []


def mygo_named(folder: Path, triples: dict) -> tuple[Triples, list[str]]:
    """The same, with what the entities are called beside it, but not the relations."""
    mygo(folder, triples)
    write_names(
        folder / "entity2id.txt", [f"http://www.wikidata.org/entity/Q{i}" for i in range(ENTITIES)], "{name} {id}"
    )
    return renamed(triples, "http://www.wikidata.org/entity/Q{}", str), []


def umls(folder: Path, triples: dict) -> tuple[Triples, list[str]]:
    found = renamed(triples, "body_part_{}", ("isa", "location_of", "part_of").__getitem__)
    write_rows(folder, found, "{}.txt", "{h}\t{r}\t{t}")
    return found, []


def umls_texts(folder: Path, triples: dict) -> tuple[Triples, list[str]]:
    """As KG-BERT has it: dev.tsv, and lists of names that are not in the order of the triples."""
    found, _ = umls(folder / "as txt", triples)
    write_rows(
        folder, {"dev" if split == "valid" else split: rows for split, rows in found.items()}, "{}.tsv", "{h}\t{r}\t{t}"
    )
    write_names(folder / "entities.txt", [f"body_part_{number}" for number in NUMBERS], "{name}")
    write_names(folder / "relations.txt", ["part_of", "isa", "location_of"], "{name}")
    write_names(folder / "entity2text.txt", [f"body_part_{number}" for number in NUMBERS], "{name}\tpart {id}")
    return found, []


def kinship(folder: Path, triples: dict) -> tuple[Triples, list[str]]:
    """The relation first, and no word of it."""
    found = renamed(triples, "Person{}", "Term{}".format)
    write_rows(folder, found, "{}.txt", "{r}\t{h}\t{t}")
    return found, []


def nations(folder: Path, triples: dict) -> tuple[Triples, list[str]]:
    """As PyKEEN has it, with numbers in a file that is no split."""
    found = renamed(triples, "country{}", ("treaties", "embassy", "ngo").__getitem__)
    write_rows(folder, found, "{}.txt", "{h}\t{r}\t{t}")
    (folder / "literals.txt").write_text("country1\tgdp\t0.5\n")
    return found, []


def wn18rr(folder: Path, triples: dict) -> tuple[Triples, list[str]]:
    found = renamed(triples, "{:08d}", ("_hypernym", "_has_part", "_also_see").__getitem__)
    write_rows(folder, found, "{}.txt", "{h}\t{r}\t{t}")
    return found, []


def wn18rr_dictionaries(folder: Path, triples: dict) -> tuple[Triples, list[str]]:
    """As RotatE has it."""
    found, flags = wn18rr(folder, triples)
    write_names(folder / "entities.dict", [f"{number:08d}" for number in NUMBERS], "{id}\t{name}")
    write_names(folder / "relations.dict", ["_has_part", "_also_see", "_hypernym"], "{id}\t{name}")
    return found, flags


def wn18rr_libkge(folder: Path, triples: dict) -> tuple[Triples, list[str]]:
    """As LibKGE has it: what it downloaded, and what it made of that."""
    found, flags = wn18rr(folder, triples)
    entities, relations = [f"{number:08d}" for number in NUMBERS], ["_has_part", "_also_see", "_hypernym"]
    write_rows(folder, as_ids(found, entities, relations), "{}.del", "{h}\t{r}\t{t}")
    write_names(folder / "entity_ids.del", entities, "{id}\t{name}")
    write_names(folder / "relation_ids.del", relations, "{id}\t{name}")
    for name in ("train_sample.del", "valid_without_unseen.del", "dataset.yaml"):
        (folder / name).write_text("0\t0\t1\n")
    return found, flags


def codex(folder: Path, triples: dict) -> tuple[Triples, list[str]]:
    found = renamed(triples, "Q{}", "P{}".format)
    write_rows(folder, found, "{}.txt", "{h}\t{r}\t{t}")
    write_rows(folder, {split: found["test"] for split in ("valid", "test")}, "{}_negatives.txt", "{h}\t{r}\t{h}")
    return found, []


LAYOUTS = {f.__name__: f for f in (momok, native, mygo, mygo_named, umls, umls_texts, kinship, nations)}
LAYOUTS |= {f.__name__: f for f in (wn18rr, wn18rr_dictionaries, wn18rr_libkge, codex)}
WITH_ADDITIONS = ("native", "codex")
TRAINED = ("momok", "native", "mygo_named", "kinship", "wn18rr_libkge", "codex")


@pytest.fixture
def triples(tmp_path) -> dict:
    """The tiny graph, with questions in test that have several answers in train."""
    found = read_triples(write_tiny_graph(tmp_path / "source"))
    moved = [row for row in found["train"] if row[1] == "member of"][::5]
    return found | {"train": [row for row in found["train"] if row not in moved], "test": found["test"] + moved}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_read_as_it_was_meant(layout, triples, tmp_path):
    folder, told = tmp_path / "graph", []
    expected, _ = LAYOUTS[layout](folder, triples)
    graph = read_graph(folder, told.append)
    entities, relations = graph.entities, graph.relations
    found = {
        split: [(entities[h], relations[r], entities[t]) for h, r, t in rows] for split, rows in graph.splits.items()
    }
    assert found == expected
    assert (len(entities), len(relations)) == (ENTITIES, 3)
    assert len(told) == (layout == "kinship"), told


@pytest.mark.parametrize("layout", ["momok", "native"])
def test_rows_of_features_belong_to_the_entities_that_the_repository_means(layout, triples, tmp_path):
    _, flags = LAYOUTS[layout](tmp_path / "graph", triples)
    features = [flag.partition("=")[2] for flag in flags] or [tmp_path / "graph"]
    graph = load_graph(tmp_path / "graph", features[0], modalities=["image"])
    numbers = [int("".join(filter(str.isdigit, name.rpartition("/")[2]))) for name in graph.entities]
    np.testing.assert_array_equal(graph.modalities[0].features[:, 0], numbers)


@pytest.mark.slow
@pytest.mark.parametrize("layout", TRAINED)
def test_a_layout_trains_and_answers_rank_test_as_the_run_says(layout, triples, tmp_path, monkeypatch):
    expected, flags = LAYOUTS[layout](tmp_path / "graph", triples)
    fields = {"data__name": "graph", "data__modalities": "all", "data__make": "", "train__epochs": 2}
    if layout in WITH_ADDITIONS:
        fields |= {"model__self_answers": "seen", "model__cardinality": 0.5}
    flags = [*tiny_flags(tmp_path / "graph", tmp_path / "run", **fields), *flags]
    assert run_here("train", *flags, monkeypatch=monkeypatch) == 0
    metrics = compared(tmp_path / "run", expected)
    assert metrics["mr"][0] > 1
    for name, (by_answers, by_the_run) in metrics.items():
        assert by_answers == pytest.approx(by_the_run, abs=1e-6), name
