"""The classes that hold the answers of a trained model, for people and as arrays."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Answer:
    """One answer to a query.

    Attributes:
      rank: the position in the list, from 1.
      id: the id of the entity or relation.
      name: its name in the graph.
      label: its readable name.
      score: its score; higher is more plausible.
      probability: the probability that it is the missing answer, given that one is missing; see
        ``mocme_jax.serving.probability``.
      known: the split that holds the triple (``train``, ``valid`` or ``test``), or ``new``.
    """

    rank: int
    id: int
    name: str
    label: str
    score: float
    probability: float
    known: str


@dataclasses.dataclass(frozen=True)
class Neighbour:
    """An entity that is similar to another one.

    Attributes:
      rank: the position in the list, from 1.
      id: the id of the entity.
      name: its name in the graph.
      label: its readable name.
      similarity: the cosine of the two encodings, in [-1, 1].
    """

    rank: int
    id: int
    name: str
    label: str
    similarity: float


@dataclasses.dataclass(frozen=True)
class Answered:
    """Answers to Q queries as arrays.

    Attributes:
      ids: int ``[Q, k]``, best first; -1 if there are fewer answers.
      scores: float ``[Q, k]``.
      probability: float64 ``[Q, k]``; see ``Answer``.
      known: int8 ``[Q, k]``, the position of the split that holds the triple; -1 for none.
    """

    ids: np.ndarray
    scores: np.ndarray
    probability: np.ndarray
    known: np.ndarray
