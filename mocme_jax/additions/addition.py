"""The interface for additions, which are scoring rules outside the method; each addition has its own file.

There are three kinds. A table addition changes the structure table before entities are encoded. A score addition adds
to the scores of candidates after training. A bar rules a candidate out, also in training. Each is a tuple of arrays
with pure functions on them. Compiled programs take it as an argument, and the rest of the program iterates over all
additions of a kind. A query is ``(entity, relation)`` with the relation in [0, 2R); r + R asks for the head of r.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from mocme_jax.data.graph.known_tails import distinct_facts

# Rows of a table that are changed at a time.
_ROWS = 1024

# A NumPy array outside compiled programs, a JAX array inside.
Array: TypeAlias = Any


class TableAddition(Protocol):
    """A change of the structure table before entities are encoded. Its arrays are replicated on every device."""

    def measured(self, structure: jax.Array) -> TableAddition:
        """Return the addition with what it needs to know of the whole table ``[N, d]``; runs in compiled programs."""
        ...

    def rows(self, before: Callable[[jax.Array], jax.Array], ids: jax.Array) -> jax.Array:
        """Return rows ``[n, d]`` of the table after the change; runs in compiled programs.

        Args:
          before: the same before the change: ``ids [n] -> [n, d]``.
          ids: int32 ``[n]``, the entities.
        """
        ...

    def file(self) -> tuple[str, bytes]:
        """Return the name and content of a file for the run's folder, which saves what takes long to compute."""
        ...


class ScoreAddition(NamedTuple):
    """Base class of additions to the scores of candidates.

    Attributes:
      rows: a tree of arrays ``[N, k]`` with one row per entity, sharded over devices and over blocks of candidates.
      whole: a tree of arrays that are replicated on every device.
    """

    rows: Any
    whole: Any

    @property
    def title(self) -> str:
        """The name in explanations."""
        raise NotImplementedError

    def adjust(self, scores: jax.Array, relations: jax.Array) -> jax.Array:
        """Adjust the scores ``[B, S]`` of queries with relations int32 ``[B]``; runs in compiled programs.

        ``rows`` are then those of the S candidates, ``[S, k]``.
        """
        raise NotImplementedError

    def of_facts(self, relations: np.ndarray, answers: np.ndarray, trained: np.ndarray | bool) -> np.ndarray:
        """Compute the addition to the scores of answers on the host.

        Args:
          relations: int in [0, 2R), the relation of each query.
          answers: int, the answer of each query.
          trained: whether the fact is one of those that the addition was computed from. It must not count for itself.

        Returns:
          float32, of the arguments' common shape.
        """
        raise NotImplementedError

    def extended(self, triples: np.ndarray, entities: int) -> ScoreAddition:
        """Return the addition for more entities, with the new ones last.

        Args:
          triples: int ``[T, 3]``, all triples that count from now on.
          entities: the new number of entities.
        """
        raise NotImplementedError


class Bar(Protocol):
    """A rule that rules out at most one candidate per query. Its arrays are replicated on every device."""

    def ruled_out(self, entities: Array, relations: Array) -> Array:
        """Return the entity that cannot be an answer to each query ``[Q]``, int32; -1 if there is none."""
        ...


@dataclasses.dataclass(frozen=True)
class Additions:
    """The additions of a graph, on the host.

    Attributes:
      scores: the score additions.
      bars: the bars.
      train: int ``[T, 3]``, the triples that the score additions were computed from.
      sizes: the numbers of entities N and relations R.
    """

    scores: tuple[ScoreAddition, ...] = ()
    bars: tuple[Bar, ...] = ()
    train: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 3), np.int32))
    sizes: tuple[int, int] = (0, 0)

    def of_facts(self, entities: np.ndarray, relations: np.ndarray, answers: np.ndarray) -> np.ndarray:
        """Compute the sum of the score additions for answers to queries, float32 of the arguments' common shape."""
        trained = self.trained(entities, relations, answers)
        added = (addition.of_facts(relations, answers, trained) for addition in self.scores)
        return sum(added, np.zeros(trained.shape, np.float32))

    def corrections(self, entities: np.ndarray, relations: np.ndarray, answers: np.ndarray) -> np.ndarray:
        """Compute ``of_facts`` minus what ``adjust`` adds, float32 ``[Q]``; only training facts have nonzero values."""
        plain = (addition.of_facts(relations, answers, False) for addition in self.scores)
        return self.of_facts(entities, relations, answers) - sum(plain, np.zeros(len(answers), np.float32))

    def trained(self, entities: np.ndarray, relations: np.ndarray, answers: np.ndarray) -> np.ndarray:
        """Return whether answers to queries are training facts, bool; all False if there are no score additions.

        The known entities of the queries may be unknown to the graph, the answers may not.
        """
        wanted = (np.asarray(entities, np.int64) * (2 * self.sizes[1]) + relations) * self.sizes[0] + answers
        place = np.searchsorted(self._facts, wanted)
        return np.append(self._facts, -1)[place] == wanted

    @functools.cached_property
    def _facts(self) -> np.ndarray:
        return distinct_facts([self.train], *self.sizes) if self.scores else np.zeros(0, np.int64)

    def ruled_out(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the candidates that are ruled out: positions in ``queries`` and entity ids.

        Args:
          queries: int ``[Q, 2]``, entity and relation; further columns are ignored.
        """
        found = [bar.ruled_out(queries[:, 0], queries[:, 1]) for bar in self.bars]
        out = np.array(found, np.int32).reshape(-1, len(queries))
        bar, rows = np.nonzero(out >= 0)
        return rows, out[bar, rows]

    def extended(self, triples: np.ndarray, entities: int) -> Additions:
        """Return the additions for more entities, with triples ``[T, 3]`` that count as training triples too."""
        train = np.concatenate([self.train, triples.astype(np.int32)])
        scores = tuple(addition.extended(train, entities) for addition in self.scores)
        return Additions(scores, self.bars, train, (entities, self.sizes[1]))


def changed(structure: jax.Array, additions: Sequence[TableAddition]) -> jax.Array:
    """Apply every table addition to the structure table ``[N, d]``, a block of rows at a time."""
    if not additions:
        return structure
    known = [addition.measured(structure) for addition in additions]
    everyone = jnp.arange(len(structure), dtype=jnp.int32)
    return jax.lax.map(lambda one: changed_rows(structure, known, one[None])[0], everyone, batch_size=_ROWS)


def changed_rows(structure: jax.Array, additions: Sequence[TableAddition], ids: jax.Array) -> jax.Array:
    """Return rows ``[n, d]`` of the structure table ``[N, d]`` after all table additions, which have measured it."""

    def rows(ids: jax.Array) -> jax.Array:
        return structure[ids]

    for addition in additions:
        rows = functools.partial(addition.rows, rows)
    return rows(ids)


def adjusted(additions: Sequence[ScoreAddition], rows: Sequence[Any], scores: jax.Array, relations: jax.Array):
    """Apply every score addition to scores ``[B, S]``; ``rows`` are those of the S candidates."""
    for addition, own in zip(additions, rows, strict=True):
        scores = addition._replace(rows=own).adjust(scores, relations)
    return scores
