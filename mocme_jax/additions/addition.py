"""The interface between the program and what is added to the method; each addition has a file of its own.

There are three kinds. A table addition changes the structure table before entities are encoded. A score addition adds
to the scores of candidates once a model is trained. A bar rules a candidate out, in training too. Each is a tuple of
arrays with pure functions of them: compiled programs take it as an argument, and the rest of the program loops over all
of a kind. A query is ``(entity, relation)`` with the relation in [0, 2R), where r + R asks for the head of r.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax
import numpy as np

from mocme_jax.data.graph.known_tails import distinct_facts

# NumPy's outside of compiled programs, JAX's inside.
Array: TypeAlias = Any


class TableAddition(Protocol):
    """Changes the structure table before entities are encoded. Its arrays are whole on every device."""

    def change(self, structure: jax.Array) -> jax.Array:
        """The structure table ``[N, d]`` after the change; runs in compiled programs."""
        ...

    def file(self) -> tuple[str, bytes]:
        """The name and the content of a file in the run's folder, with what takes long to find."""
        ...


class ScoreAddition(NamedTuple):
    """Adds to the scores of candidates; a subclass says what.

    Attributes:
      rows: a tree of arrays ``[N, k]``, one row per entity; split over the devices, and by blocks of candidates.
      whole: a tree of arrays that are whole on every device.
    """

    rows: Any
    whole: Any

    @property
    def title(self) -> str:
        """What an explanation calls it."""
        raise NotImplementedError

    def adjust(self, scores: jax.Array, relations: jax.Array) -> jax.Array:
        """Scores ``[B, S]`` of queries with relations int32 ``[B]``, adjusted; runs in compiled programs.

        The rows are those of the S candidates, ``[S, k]``.
        """
        raise NotImplementedError

    def of_facts(self, relations: np.ndarray, answers: np.ndarray, trained: np.ndarray | bool) -> np.ndarray:
        """What is added to the scores of answers, float32, of the arguments' common shape, on the host.

        Where ``trained``, the fact is one of those that the addition was found from, and must not count for itself.
        """
        raise NotImplementedError

    def extended(self, triples: np.ndarray, entities: int) -> ScoreAddition:
        """The same for so many entities, the new ones last; ``triples`` are all that count now, ``[T, 3]``."""
        raise NotImplementedError


class Bar(Protocol):
    """Rules out one candidate of a query at most. Its arrays are whole on every device."""

    def ruled_out(self, entities: Array, relations: Array) -> Array:
        """The entity that is no answer to each query ``[Q]``, int32; -1 where there is none."""
        ...


@dataclasses.dataclass(frozen=True)
class Additions:
    """What is added to the queries of a graph, on the host.

    Attributes:
      scores: the score additions.
      bars: the bars.
      train: int ``[T, 3]``, the triples that the score additions were found from.
      sizes: N entities and R relations.
    """

    scores: tuple[ScoreAddition, ...] = ()
    bars: tuple[Bar, ...] = ()
    train: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 3), np.int32))
    sizes: tuple[int, int] = (0, 0)

    def of_facts(self, entities: np.ndarray, relations: np.ndarray, answers: np.ndarray) -> np.ndarray:
        """What is added to the scores of answers to queries, float32, of the arguments' common shape."""
        trained = self.trained(entities, relations, answers)
        added = (addition.of_facts(relations, answers, trained) for addition in self.scores)
        return sum(added, np.zeros(trained.shape, np.float32))

    def corrections(self, entities: np.ndarray, relations: np.ndarray, answers: np.ndarray) -> np.ndarray:
        """What ``adjust`` lacks of ``of_facts`` at these answers, float32 ``[Q]``: 0 but for training facts."""
        plain = (addition.of_facts(relations, answers, False) for addition in self.scores)
        return self.of_facts(entities, relations, answers) - sum(plain, np.zeros(len(answers), np.float32))

    def trained(self, entities: np.ndarray, relations: np.ndarray, answers: np.ndarray) -> np.ndarray:
        """Whether answers to queries are training facts, bool; False everywhere without score additions.

        Entities that are asked about may be unknown, answers may not.
        """
        wanted = (np.asarray(entities, np.int64) * (2 * self.sizes[1]) + relations) * self.sizes[0] + answers
        place = np.searchsorted(self._facts, wanted)
        return np.append(self._facts, -1)[place] == wanted

    @functools.cached_property
    def _facts(self) -> np.ndarray:
        return distinct_facts([self.train], *self.sizes) if self.scores else np.zeros(0, np.int64)

    def ruled_out(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Candidates that are ruled out: positions in queries ``[Q, 2]`` (further columns are ignored), and ids."""
        found = [bar.ruled_out(queries[:, 0], queries[:, 1]) for bar in self.bars]
        out = np.array(found, np.int32).reshape(-1, len(queries))
        bar, rows = np.nonzero(out >= 0)
        return rows, out[bar, rows]

    def extended(self, triples: np.ndarray, entities: int) -> Additions:
        """The same for so many entities, and triples ``[T, 3]`` that count as training triples too."""
        train = np.concatenate([self.train, triples.astype(np.int32)])
        scores = tuple(addition.extended(train, entities) for addition in self.scores)
        return Additions(scores, self.bars, train, (entities, self.sizes[1]))


def changed(structure: jax.Array, additions: Sequence[TableAddition]) -> jax.Array:
    """The structure table ``[N, d]`` after every table addition."""
    for addition in additions:
        structure = addition.change(structure)
    return structure


def adjusted(additions: Sequence[ScoreAddition], rows: Sequence[Any], scores: jax.Array, relations: jax.Array):
    """Scores ``[B, S]`` after every score addition, whose ``rows`` are given for these S candidates."""
    for addition, own in zip(additions, rows, strict=True):
        scores = addition._replace(rows=own).adjust(scores, relations)
    return scores
