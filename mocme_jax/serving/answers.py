"""Answers and results for people: records, and lists of them with ``to_frame``, which returns a DataFrame."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from mocme_jax.errors import UserError
from mocme_jax.printed_commands import to_install


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


class Rows(list):
    """A list of dicts or dataclasses."""

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with one row per element and one column per field.

        Raises:
          UserError: pandas is not installed.
        """
        return frame(dataclasses.asdict(row) if dataclasses.is_dataclass(row) else row for row in self)


class ListOfRows(list):
    """A list of ``Rows``, one per query."""

    def to_frame(self) -> Any:
        """Return one DataFrame of all rows; its first column, ``query``, is the position of the query.

        Raises:
          UserError: pandas is not installed.
        """
        return frame({"query": number} | dataclasses.asdict(row) for number, rows in enumerate(self) for row in rows)


class Results(dict):
    """The content of ``results.json``."""

    def to_frame(self) -> Any:
        """Return a DataFrame of the metrics with one row each for dev and test.

        If test holds triples that train holds too, a third row has the metrics without them.

        Raises:
          UserError: pandas is not installed.
        """
        from mocme_jax.training.logs.run_results import scores_of

        return frame({"split": name} | scores for name, scores in scores_of(self).items())

    def __repr__(self) -> str:
        dev, test = self["dev"]["overall"], self["test"]
        tested = "" if test is None else f", test MRR {test['overall']['mrr']:.4f}"
        return f"Results({self['graph']['name']}: dev MRR {dev['mrr']:.4f}{tested}; keys: {', '.join(self)})"


def frame(rows: Iterable[dict[str, Any]]) -> Any:
    """Convert rows to a pandas DataFrame.

    Raises:
      UserError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise UserError(f"a DataFrame needs the package pandas; run: {to_install('pandas')}") from None
    return pandas.DataFrame(list(rows))
