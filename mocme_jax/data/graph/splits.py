"""What a split shares with the others, and splits carved from train."""

from collections.abc import Mapping

import numpy as np

from mocme_jax.data.audit.inverse_relations import InverseRelation, inverse_relations, reversed_pairs
from mocme_jax.data.graph.triple_keys import key_sizes, keys_of, pieces, row_keys, triple_keys
from mocme_jax.errors import UserError


def clean_rows(split: np.ndarray, *others: np.ndarray) -> np.ndarray:
    """Bool ``[T]``: the rows of ``split`` that none of the other splits holds."""
    clean = np.ones(len(split), bool)
    for other in others:
        sizes = key_sizes(split, other)
        # The keys of the shorter one are held, and the longer one is read in pieces.
        if len(other) < len(split):
            there = np.sort(keys_of(other, *sizes))
            found = (_in_sorted(keys_of(piece, *sizes), there)[0] for piece in pieces(split))
            clean &= ~np.concatenate([*found])
            continue
        wanted, place = np.unique(keys_of(split, *sizes), return_inverse=True)
        met = np.zeros(len(wanted), bool)
        for piece in pieces(other):
            hit, position = _in_sorted(keys_of(piece, *sizes), wanted)
            met[position[hit]] = True
        clean &= ~met[place]
    return clean


def _pairs(triples: np.ndarray) -> np.ndarray:
    """``[T, 3]``: the triples without relation and direction, so those of the same two entities are equal."""
    ends = triples[:, [0, 2]]
    return np.stack([ends.min(axis=1), np.zeros_like(ends[:, 0]), ends.max(axis=1)], axis=1)


def joined_rows(split: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Bool ``[T]``: the rows whose two entities a training triple joins, whether it is the same triple or another."""
    return ~clean_rows(_pairs(split), _pairs(train))


def _in_sorted(keys: np.ndarray, ascending: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each key is among ascending ones, bool ``[n]``, and where, int64 ``[n]``."""
    if not len(ascending):
        return np.zeros(len(keys), bool), np.zeros(len(keys), np.int64)
    position = np.minimum(np.searchsorted(ascending, keys), len(ascending) - 1)
    return ascending[position] == keys, position


def carve_dev(
    train: np.ndarray,
    fraction: float,
    seed: int,
    *,
    avoid: np.ndarray | None = None,
    by_pair: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Splits training triples into train and dev, at random but without leak.

    Every entity and relation of train stays in train. All copies of a triple leave train together (dev holds one). A
    triple and its reverse by an inverse or symmetric relation (see inverse_relations) stay on one side.

    Args:
      train: int ``[T, 3]`` (head, relation, tail).
      fraction: about what share of the distinct triples goes to dev, in (0, 1); less where the rules leave no more.
      seed: of the choice.
      avoid: int ``[T', 3]``, triples that must not be in dev (those of test, where test overlaps train).
      by_pair: keep all triples between the same two entities on one side, whatever their relations.

    Returns:
      train and dev, their rows in the order they had.

    Raises:
      UserError: the graph is too small or too sparse for a single dev triple.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must lie between 0 and 1, got {fraction}")
    _, first, copy_of = np.unique(triple_keys(train)[0], return_index=True, return_inverse=True)
    distinct = train[first]
    by_group, bounds = _groups(distinct, None if by_pair else inverse_relations(distinct))
    order = np.random.default_rng(seed).permutation(len(bounds) - 1)
    allowed = np.ones(len(distinct), bool) if avoid is None else clean_rows(distinct, avoid)
    entity_uses = np.bincount(distinct[:, [0, 2]].ravel())
    relation_uses = np.bincount(distinct[:, 1])
    target = max(1, round(fraction * len(distinct)))
    in_dev = np.zeros(len(distinct), bool)
    taken = 0
    for index in order:
        group = by_group[bounds[index] : bounds[index + 1]]
        rows = distinct[group]
        if taken + len(rows) > target or not allowed[group].all():
            continue
        ends, relations = rows[:, [0, 2]].ravel(), rows[:, 1]
        np.subtract.at(entity_uses, ends, 1)
        np.subtract.at(relation_uses, relations, 1)
        if entity_uses[ends].min() < 1 or relation_uses[relations].min() < 1:
            np.add.at(entity_uses, ends, 1)
            np.add.at(relation_uses, relations, 1)
            continue
        in_dev[group] = True
        taken += len(rows)
        if taken == target:
            break
    if not taken:
        raise UserError(
            f"none of the {len(distinct)} distinct triples of train can be split off, because every entity and "
            "relation must still occur in train; give more triples, or valid and test splits that share none with it"
        )
    return train[~in_dev[copy_of]], train[np.sort(first[in_dev])]


def check_shares(shares: Mapping[str, float]) -> None:
    """Raises a UserError if these shares of the triples, by split, are not between 0 and 1 or leave none for train."""
    for split, share in shares.items():
        if not 0 < share < 1:
            raise UserError(f"{split} is {share:g}: expected a share between 0 and 1")
    if sum(shares.values()) >= 1:
        names = " and ".join(sorted(shares, reverse=True))
        raise UserError(f"{names} are {sum(shares.values()):.0%} of the triples, which leaves none for training")


def split_off(
    triples: np.ndarray, shares: Mapping[str, float], seed: int, *, by_pair: bool = False
) -> dict[str, np.ndarray]:
    """Carves several splits out of triples, one after another; see carve_dev.

    Args:
      triples: int ``[T, 3]`` (head, relation, tail).
      shares: the share of ``triples`` that each split gets, by its name.
      seed, by_pair: see carve_dev.

    Returns:
      The splits by name, and what is left as ``train``.

    Raises:
      UserError: no triple can leave train.
    """
    left, splits = triples, {}
    for split, share in shares.items():
        # Fewer may be left than this split is to get.
        wanted = min(share * len(triples) / len(left), 0.999)
        left, splits[split] = carve_dev(left, wanted, seed, by_pair=by_pair)
    return {"train": left, **splits}


def _groups(distinct: np.ndarray, inverses: list[InverseRelation] | None) -> tuple[np.ndarray, np.ndarray]:
    """Row indices ordered by group, and where each group starts and the last ends.

    The triples between two entities that imply each other backwards are one group. Without ``inverses`` all triples
    between two entities are.
    """
    twin = np.ones(len(distinct), bool) if inverses is None else _twins(distinct, inverses)
    low, high = (extreme(distinct[:, 0], distinct[:, 2]) for extreme in (np.minimum, np.maximum))
    entities = int(high.max()) + 1
    group = row_keys((low, high), (entities,))
    # Triples without a twin get a number of their own, beyond those of the pairs of entities.
    alone = np.flatnonzero(~twin)
    group[alone] = entities * entities + alone
    by_group = np.argsort(group, kind="stable")
    group = group[by_group]
    starts = np.flatnonzero(group[1:] != group[:-1]) + 1
    return by_group, np.concatenate([[0], starts, [len(group)]])


def _twins(distinct: np.ndarray, inverses: list[InverseRelation]) -> np.ndarray:
    """Bool ``[T]``: whether a triple's reverse by an inverse or symmetric relation is among the triples."""
    row, partner = reversed_pairs(distinct, distinct)
    relations = 1 + max([int(distinct[:, 1].max()), *(max(pair.known, pair.implied) for pair in inverses)])
    known = {pair.known * relations + pair.implied for pair in inverses}
    known |= {pair.implied * relations + pair.known for pair in inverses}
    pairs = row_keys((distinct[row, 1], distinct[partner, 1]), (relations,))
    twin = np.zeros(len(distinct), bool)
    twin[row[np.isin(pairs, np.array(sorted(known), np.int64))]] = True
    return twin
