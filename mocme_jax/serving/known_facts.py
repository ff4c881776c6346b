"""The class ``Facts``: the known triples of all splits, by query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mocme_jax.additions.addition import Additions
from mocme_jax.data.graph.known_tails import KnownTails, known_tails, reciprocal
from mocme_jax.errors import UserError

NEW = "new"


class Facts:
    """The known triples of a graph.

    Args:
      splits: int32 ``[T, 3]`` by name, in the order train, valid, test.
      num_entities: the number of entities N.
      num_relations: the number of relations R.
      additions: additions computed from the training triples; None for none.
    """

    def __init__(
        self,
        splits: Mapping[str, np.ndarray],
        num_entities: int,
        num_relations: int,
        additions: Additions | None = None,
    ):
        self.splits = dict(splits)
        self.num_entities, self.num_relations = num_entities, num_relations
        self.additions = additions or Additions()
        self._tails: dict[tuple[str, ...], KnownTails] = {}
        keys = [self._keys(reciprocal(triples, num_relations)) for triples in self.splits.values()]
        # The first split counts for a fact in several splits.
        self._facts, first = np.unique(np.concatenate(keys), return_index=True)
        self._places = np.repeat(np.arange(len(keys), dtype=np.int8), [len(part) for part in keys])[first]

    def extended(self, added: np.ndarray, num_entities: int) -> Facts:
        """Return the facts for more entities, with triples ``[T, 3]`` that count as training triples."""
        splits = self.splits | {"train": np.concatenate([self.splits["train"], added.astype(np.int32)])}
        return Facts(splits, num_entities, self.num_relations, self.additions.extended(added, num_entities))

    def tails(self, splits: Sequence[str] | None = None) -> KnownTails:
        """Return the known answers by query, of the given splits or of all.

        Raises:
          UserError: there is no split of this name.
        """
        names = tuple(self.splits) if splits is None else tuple(splits)
        self.places(names)
        if names not in self._tails:
            chosen = [self.splits[name] for name in names]
            self._tails[names] = known_tails(chosen, self.num_entities, self.num_relations)
        return self._tails[names]

    def places(self, splits: Sequence[str]) -> list[int]:
        """Return the positions of splits, as in ``where``.

        Raises:
          UserError: there is no split of this name.
        """
        names = list(self.splits)
        for name in splits:
            if name not in names:
                raise UserError(f"split {name!r}: expected one of {', '.join(names)}")
        return [names.index(name) for name in splits]

    def no_candidates(self, questions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the entities that cannot be a query's missing answer: known answers, and what additions rule out.

        Known answers are those of all splits.

        Args:
          questions: int ``[Q, 2]``, entity and relation; further columns are ignored.

        Returns:
          Positions in ``questions``, ascending, and entities. Each pair occurs once.
        """
        known, out = self.tails().pairs(questions), self.additions.ruled_out(questions)
        pairs = np.concatenate([row.astype(np.int64) * self.num_entities + ids for row, ids in (known, out)])
        rows, ids = np.divmod(np.unique(pairs) if len(out[0]) else pairs, self.num_entities)
        return rows, ids.astype(np.int32)

    def where(self, entities: np.ndarray, relations: np.ndarray, answers: np.ndarray) -> np.ndarray:
        """Return the position of the split that holds each triple, -1 for none: int8 of the arguments' common shape.

        Args:
          entities: int, the known entity of each query.
          relations: int in [0, 2R), the relation of each query.
          answers: int, the answer of each query.
        """
        shape = np.broadcast_shapes(np.shape(entities), np.shape(relations), np.shape(answers))
        rows = [np.broadcast_to(x, shape).reshape(-1) for x in (entities, relations, answers)]
        wanted = self._keys(np.stack(rows, axis=1))
        if not len(self._facts):
            return np.full(shape, -1, np.int8)
        found = np.minimum(np.searchsorted(self._facts, wanted), len(self._facts) - 1)
        return np.where(self._facts[found] == wanted, self._places[found], -1).astype(np.int8).reshape(shape)

    def word(self, place: int) -> str:
        """Return the name of a split by its position; ``new`` for -1."""
        return NEW if place < 0 else list(self.splits)[place]

    def _keys(self, questions: np.ndarray) -> np.ndarray:
        entity, relation, answer = np.asarray(questions, np.int64).reshape(-1, 3).T
        return (entity * (2 * self.num_relations) + relation) * self.num_entities + answer
