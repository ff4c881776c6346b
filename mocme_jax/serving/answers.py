"""What a trained model answers with, for people and as arrays."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Answer:
    """One answer to a question.

    Attributes:
      rank: from 1.
      id, name, label: of an entity or a relation; the label is the name as a person reads it.
      score: the model's.
      probability: that this is the answer, if one is missing; see ``probability``.
      known: the split that holds the triple, or ``new``.
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
    """An entity near another: ``similarity`` is the cosine of their encodings."""

    rank: int
    id: int
    name: str
    label: str
    similarity: float


@dataclasses.dataclass(frozen=True)
class Answered:
    """Answers to Q questions as arrays: what ``Completions`` holds, and two more ``[Q, k]``.

    Attributes:
      ids, scores: see ``Completions``.
      probability: float64.
      known: int8, the place of the split that holds the triple, -1 for new.
    """

    ids: np.ndarray
    scores: np.ndarray
    probability: np.ndarray
    known: np.ndarray
