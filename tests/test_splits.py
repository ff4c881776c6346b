"""Carved dev splits, clean rows and inverse relations, against loops over sets."""

import numpy as np
import pytest

from mocme_jax.data.audit.inverse_relations import inverse_relations, leaked_rows
from mocme_jax.data.graph.openke_layout import read_openke
from mocme_jax.data.graph.splits import carve_dev, clean_rows
from mocme_jax.data.graph.triple_keys import distinct_triples, triple_keys
from mocme_jax.errors import UserError


def random_graph(seed: int, rows: int = 400, entities: int = 25) -> np.ndarray:
    """Relation 0 plain, 1 nearly symmetric, 2 and 3 nearly inverse, with duplicates and loops."""
    generator = np.random.default_rng(seed)
    triples = [tuple(map(int, row)) for row in generator.integers(0, [entities, 4, entities], (rows, 3))]
    for head, relation, tail in list(triples):
        if relation and generator.random() < 0.9:
            triples.append((tail, {1: 1, 2: 3, 3: 2}[relation], head))
    triples += triples[:30]
    return np.array(triples, np.int32)[generator.permutation(len(triples))]


def as_set(triples: np.ndarray) -> set[tuple[int, ...]]:
    return set(map(tuple, triples.tolist()))


def naive_inverses(triples: np.ndarray, share: float, fewest: int) -> dict[tuple[int, int], int]:
    known = {row for row in as_set(triples) if row[0] != row[2]}
    relations = {row[1] for row in known}
    found = {}
    for first in relations:
        mine = [row for row in known if row[1] == first]
        for second in relations:
            count = sum((tail, second, head) in known for head, _, tail in mine)
            if count >= fewest and count / len(mine) >= share:
                found[first, second] = count
    return found


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_inverse_relations_against_a_loop(seed, share):
    triples = random_graph(seed)
    found = inverse_relations(triples, share=share, fewest=3)
    assert {(pair.known, pair.implied): pair.count for pair in found} == naive_inverses(triples, share, 3)
    assert [pair.count for pair in found] == sorted((pair.count for pair in found), reverse=True)


def test_planted_inverses_are_found_and_the_plain_relation_is_not():
    pairs = {(pair.known, pair.implied) for pair in inverse_relations(random_graph(0))}
    assert pairs == {(1, 1), (2, 3), (3, 2)}


@pytest.mark.parametrize("seed", range(5))
def test_leaked_rows_against_a_loop(seed):
    triples = random_graph(seed)
    train, test = triples[:-80], triples[-80:]
    inverses = inverse_relations(triples)
    known = as_set(train)
    expected = [
        head != tail and any((tail, pair.known, head) in known for pair in inverses if pair.implied == relation)
        for head, relation, tail in test.tolist()
    ]
    assert leaked_rows(test, train, inverses).tolist() == expected
    assert 0 < sum(expected) < len(expected)


def test_nothing_leaks_from_or_into_nothing():
    triples = random_graph(0)
    inverses = inverse_relations(triples)
    assert leaked_rows(triples[:0], triples, inverses).shape == (0,)
    assert not leaked_rows(triples, triples[:0], inverses).any()
    assert not leaked_rows(triples, triples, []).any()
    assert inverse_relations(triples[:0]) == []


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("fraction", [0.05, 0.3])
def test_carved_dev_obeys_every_rule(seed, fraction):
    triples = random_graph(seed)
    train, dev = carve_dev(triples, fraction, seed)
    whole, kept, carved = as_set(triples), as_set(train), as_set(dev)
    assert len(carved) == len(dev)
    assert kept | carved == whole
    assert not kept & carved
    # All copies of what stays are still there, in their order.
    assert train.tolist() == [row for row in triples.tolist() if tuple(row) not in carved]
    assert {end for row in kept for end in (row[0], row[2])} == {end for row in whole for end in (row[0], row[2])}
    assert {row[1] for row in kept} == {row[1] for row in whole}
    inverses = {(pair.known, pair.implied) for pair in inverse_relations(triples)}
    for head, relation, tail in carved:
        for other in range(4):
            if head != tail and ((other, relation) in inverses or (relation, other) in inverses):
                assert (tail, other, head) not in kept
    assert 0.8 * fraction * len(whole) <= len(dev) <= max(1, round(fraction * len(whole)))


def test_seeds_decide():
    triples = random_graph(0)
    assert np.array_equal(carve_dev(triples, 0.1, 3)[1], carve_dev(triples, 0.1, 3)[1])
    assert not np.array_equal(carve_dev(triples, 0.1, 3)[1], carve_dev(triples, 0.1, 4)[1])


def test_what_is_to_be_avoided_stays_in_train():
    triples = random_graph(0)
    dev = carve_dev(triples, 0.3, 0)[1]
    avoided = dev[::2]
    train, again = carve_dev(triples, 0.3, 0, avoid=avoided)
    assert clean_rows(again, avoided).all()
    assert len(again) > len(avoided)
    assert as_set(avoided) <= as_set(train)


def test_no_triple_to_spare():
    with pytest.raises(UserError, match="none of the 2 distinct triples of train can be split off"):
        carve_dev(np.array([[0, 0, 1], [2, 1, 3]], np.int32), 0.5, 0)
    for fraction in (0, 1, -0.1):
        with pytest.raises(ValueError, match="between 0 and 1"):
            carve_dev(random_graph(0), fraction, 0)


def test_clean_rows_against_sets():
    triples = random_graph(1)
    split, first, second = triples[:100], triples[100:250], triples[250:]
    expected = [tuple(row) not in as_set(first) | as_set(second) for row in split.tolist()]
    assert clean_rows(split, first, second).tolist() == expected
    assert clean_rows(split).all()
    assert clean_rows(split[:0], first).shape == (0,)
    assert clean_rows(split, first[:0]).all()


def test_keys_are_one_to_one_for_large_ids():
    generator = np.random.default_rng(0)
    triples = generator.integers(0, [900_000, 5_000, 900_000], (5_000, 3)).astype(np.int32)
    (keys,) = triple_keys(triples)
    assert len(np.unique(keys)) == len(as_set(triples))
    assert (keys >= 0).all()
    assert distinct_triples(np.repeat(triples, 2, 0)).tolist() == sorted(map(list, as_set(triples)))


@pytest.mark.parametrize("name", ["DB15K", "MKG-W", "MKG-Y", "KVC16K"])
def test_benchmarks_spare_a_dev_split(benchmark_data, name):
    triples = read_openke(benchmark_data / name).train
    train, dev = carve_dev(triples, 0.05, 0)
    assert len(dev) == pytest.approx(0.05 * len(as_set(triples)), rel=0.02)
    assert clean_rows(dev, train).all()
    assert set(train[:, [0, 2]].ravel().tolist()) == set(triples[:, [0, 2]].ravel().tolist())
    assert not leaked_rows(dev, train, inverse_relations(triples)).any()
