"""The embedded graph: its files against its datasheet, its split against leaks, its facts against the world.

Files are read here with plain Python and NumPy, not with the project's readers.
"""

import itertools
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from mocme_jax.data import atlas

FOLDER = Path(atlas.__file__).parent
SPLITS = ("train", "valid", "test")
SYMMETRIC = {"borders"}


def _names(path):
    lines = path.read_text(encoding="utf-8").split("\n")
    assert lines.pop() == "", "the file ends with a line feed"
    assert int(lines[0]) == len(lines) - 1
    pairs = [line.split("\t") for line in lines[1:]]
    assert [int(index) for _, index in pairs] == list(range(len(pairs)))
    return [name for name, _ in pairs]


def _triples(path):
    rows = np.loadtxt(path, dtype=int, skiprows=1)
    assert int(path.read_text().split("\n", 1)[0]) == len(rows)
    return [(int(head), int(relation), int(tail)) for head, tail, relation in rows]


ENTITIES = _names(FOLDER / "entity2id.txt")
RELATIONS = _names(FOLDER / "relation2id.txt")
TRIPLES = {split: _triples(FOLDER / f"{split}2id.txt") for split in SPLITS}
ALL = [triple for split in SPLITS for triple in TRIPLES[split]]
FEATURES = {path.stem: np.load(path) for path in sorted(FOLDER.glob("*.npz"))}
DATASHEET = (FOLDER / "DATASHEET.md").read_text(encoding="utf-8")


def _table(first_column):
    """Cells of the rows of the datasheet's table whose header starts with that word; totals last."""
    header = f"| {first_column} |"
    lines = itertools.dropwhile(lambda line: not line.startswith(header), DATASHEET.split("\n"))
    table = list(itertools.takewhile(lambda line: line.startswith("|"), lines))
    assert len(table) > 3
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def test_size_and_scale():
    files = [path for path in FOLDER.rglob("*") if not {"__pycache__", "model"} & set(path.parts)]
    assert sum(path.stat().st_size for path in files) < 3_000_000
    assert 3_500 <= len(ENTITIES) <= 4_500
    assert 8_500 <= len(ALL) <= 9_500
    for split, share in (("train", 0.8), ("valid", 0.1), ("test", 0.1)):
        assert len(TRIPLES[split]) / len(ALL) == pytest.approx(share, abs=0.005)


def test_names_are_unique_and_readable():
    for names in (ENTITIES, RELATIONS):
        assert len(set(names)) == len(names)
        assert all(name and name == name.strip() and name.isprintable() for name in names)
        assert not [name for name in names if "()" in name]
    assert {"France", "Paris", "Europe/Paris", "French", "Euro", "Europe", "Île-de-France"} <= set(ENTITIES)


def test_datasheet_counts_entities_and_coverage():
    *kinds, total = _table("kind")
    end = 0
    for _, ids, count, *covered in kinds:
        first, last = map(int, ids.split(" to "))
        assert first == end
        assert last - first + 1 == int(count)
        end = last + 1
        for name, stated in zip(("text", "numeric", "image"), covered, strict=True):
            inside = (FEATURES[name]["ids"] >= first) & (FEATURES[name]["ids"] <= last)
            assert inside.sum() == int(stated)
    assert end == len(ENTITIES) == int(total[2])
    assert f"{len(ENTITIES)} entities, {len(RELATIONS)} relations" in re.sub(r"\s+", " ", DATASHEET)
    assert f"{len(ALL)} triples" in re.sub(r"\s+", " ", DATASHEET)


def test_datasheet_counts_relations():
    *rows, total = _table("relation")
    assert [row[0] for row in rows] == RELATIONS
    for index, row in enumerate(rows):
        counted = [sum(relation == index for _, relation, _ in TRIPLES[split]) for split in SPLITS]
        assert counted == [int(cell) for cell in row[2:]]
        assert min(counted) > 0
    assert [len(TRIPLES[split]) for split in SPLITS] == [int(cell) for cell in total[2:]]


def test_ends_of_a_relation_are_of_the_kinds_that_the_datasheet_names():
    *kinds, _ = _table("kind")
    kind_of = {}
    for kind, ids, *_ in kinds:
        first, last = map(int, ids.split(" to "))
        kind_of.update(dict.fromkeys(range(first, last + 1), kind))
    *rows, _ = _table("relation")
    pattern = re.compile(r"(.+?) -> (.+?)(?:,| \(|$)")
    for index, (name, meaning, *_) in enumerate(rows):
        head, tail = pattern.match(meaning).groups()
        for fact_head, relation, fact_tail in ALL:
            if relation == index:
                assert (kind_of[fact_head], kind_of[fact_tail]) == (head, tail), name


def test_ids_in_range_and_no_triple_twice():
    rows = np.array(ALL)
    assert rows.min() >= 0
    assert rows[:, [0, 2]].max() < len(ENTITIES)
    assert rows[:, 1].max() < len(RELATIONS)
    assert len(set(ALL)) == len(ALL)
    assert not [triple for triple in ALL if triple[0] == triple[2]]


def test_every_entity_and_relation_is_in_train():
    assert {end for head, _, tail in TRIPLES["train"] for end in (head, tail)} == set(range(len(ENTITIES)))
    assert {relation for _, relation, _ in TRIPLES["train"]} == set(range(len(RELATIONS)))


def test_facts_between_the_same_two_entities_share_a_split():
    splits = defaultdict(set)
    for split in SPLITS:
        for head, _, tail in TRIPLES[split]:
            splits[frozenset((head, tail))].add(split)
    assert not [pair for pair, found in splits.items() if len(found) > 1]


def test_symmetric_relations_are_complete_and_no_relation_is_another_reversed():
    facts = defaultdict(set)
    for head, relation, tail in ALL:
        facts[RELATIONS[relation]].add((head, tail))
    for name in SYMMETRIC:
        assert all((tail, head) in facts[name] for head, tail in facts[name])
    for one, other in itertools.product(facts, repeat=2):
        if one == other and one in SYMMETRIC:
            continue
        reverse = {(tail, head) for head, tail in facts[other]}
        assert len(facts[one] & reverse) <= 0.05 * len(facts[one]), (one, other)


def test_features_are_finite_and_fit_the_ids():
    assert set(FEATURES) == {"text", "numeric", "image"}
    for name, file in FEATURES.items():
        assert set(file) == {"ids", "rows"}, name
        ids, rows = file["ids"], file["rows"]
        assert ids.dtype == np.int32
        assert ids.shape == (len(rows),)
        assert (np.diff(ids) > 0).all()
        assert ids[0] >= 0
        assert ids[-1] < len(ENTITIES)
        assert rows.ndim == 2
        assert rows.dtype in (np.float16, np.float32)
        assert np.isfinite(rows).all()
        assert (np.abs(rows.astype(float)).sum(axis=1) > 0).all()
        assert (rows.astype(float).std(axis=0) > 0).mean() > 0.75
    assert FEATURES["text"]["rows"].shape[1] == 128
    assert FEATURES["numeric"]["rows"].shape[1] == 73
    assert FEATURES["image"]["rows"].shape[1] == 304


def test_most_entities_lack_a_modality():
    held = Counter(int(index) for file in FEATURES.values() for index in file["ids"])
    assert all(held[index] >= 1 for index in range(len(ENTITIES)))
    assert sum(held[index] < len(FEATURES) for index in range(len(ENTITIES))) > 0.9 * len(ENTITIES)
    flags = set(FEATURES["image"]["ids"].tolist())
    assert {ENTITIES.index(name) for name in ("France", "Japan", "Brazil")} <= flags
    assert ENTITIES.index("Paris") not in flags


def test_numbers_are_masked_and_right():
    ids, rows = FEATURES["numeric"]["ids"].tolist(), FEATURES["numeric"]["rows"].astype(float)
    values, masks = rows[:, :5], rows[:, 5:9]
    assert set(np.unique(masks)) == {0.0, 1.0}
    assert np.abs(values).max() <= 4
    for columns, mask in (((0, 1), 0), ((2,), 1), ((3,), 2), ((4,), 3)):
        assert not values[np.ix_(masks[:, mask] == 0, columns)].any()
        assert np.abs(values[masks[:, mask] == 1][:, columns].mean(axis=0)).max() < 0.05
    assert not rows[masks[:, 0] == 0][:, 9:].any()
    row = {name: values[ids.index(ENTITIES.index(name))] for name in ("Oslo", "Sydney", "Lima", "Tokyo")}
    assert row["Oslo"][0] > row["Tokyo"][0] > row["Lima"][0] > row["Sydney"][0]
    assert row["Sydney"][1] > row["Tokyo"][1] > row["Oslo"][1] > row["Lima"][1]
    assert row["Tokyo"][2] > row["Oslo"][2]
    areas = {name: values[ids.index(ENTITIES.index(name))][3] for name in ("Russia", "France", "Malta")}
    assert areas["Russia"] > areas["France"] > areas["Malta"]


def test_position_columns_tell_near_from_far():
    ids, rows = FEATURES["numeric"]["ids"].tolist(), FEATURES["numeric"]["rows"].astype(float)
    names = ("Berlin", "Hamburg", "Vienna", "Lima")
    waves = {name: rows[ids.index(ENTITIES.index(name))][9:] for name in names}
    near, middle, far = (waves["Berlin"] @ waves[name] / 32 for name in ("Hamburg", "Vienna", "Lima"))
    assert near > middle > far
    assert waves["Berlin"] @ waves["Berlin"] / 32 == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("head", "relation", "tail"),
    [
        ("Paris", "capital_of", "France"),
        ("Canberra", "capital_of", "Australia"),
        ("Paris", "in_region", "Île-de-France"),
        ("Île-de-France", "region_of", "France"),
        ("Chicago", "has_time_zone", "America/Chicago"),
        ("Europe/Paris", "zone_of", "France"),
        ("Europe/Paris", "keeps_clock", "Central European Time"),
        ("Japan", "currency", "Japanese Yen"),
        ("Germany", "former_currency", "German Mark"),
        ("Brazil", "official_language", "Portuguese"),
        ("Russian", "written_in", "Cyrillic script"),
        ("Kenya", "in_continent", "Africa"),
        ("Spain", "borders", "Portugal"),
        ("Portugal", "borders", "Spain"),
        ("Singapore (Singapore)", "in_country", "Singapore"),
    ],
)
def test_known_facts(head, relation, tail):
    assert (ENTITIES.index(head), RELATIONS.index(relation), ENTITIES.index(tail)) in set(ALL)


@pytest.mark.parametrize(
    ("head", "relation", "tail"),
    [("Lyon", "capital_of", "France"), ("Spain", "borders", "Germany"), ("Japan", "currency", "Euro")],
)
def test_known_falsehoods(head, relation, tail):
    assert (ENTITIES.index(head), RELATIONS.index(relation), ENTITIES.index(tail)) not in set(ALL)


def test_a_capital_a_country_and_a_zone_a_city():
    facts = defaultdict(Counter)
    for head, relation, tail in ALL:
        facts[RELATIONS[relation], "head"][head] += 1
        facts[RELATIONS[relation], "tail"][tail] += 1
    assert max(facts["capital_of", "tail"].values()) == 1
    for relation in ("has_time_zone", "in_region", "region_of", "written_in"):
        assert max(facts[relation, "head"].values()) == 1


def test_notices_name_every_source():
    text = (FOLDER / "LICENSES.md").read_text(encoding="utf-8")
    for part in ("GeoNames", "Attribution 4.0", "Noto Emoji", "Apache License", "public domain"):
        assert part in text
    for part in ("UNICODE LICENSE V3", "2025 Unicode, Inc.", "SPDX-License-Identifier: Unicode-3.0"):
        assert part in text


def test_rebuild_names_what_is_missing(tmp_path, capsys):
    from mocme_jax.data.atlas import rebuild

    assert rebuild.main(["--npm", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    assert "npm pack" in message or "pip install" in message
    assert not (tmp_path / "out").exists()
