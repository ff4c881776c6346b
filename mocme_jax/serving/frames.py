"""Lists that turn into a DataFrame where pandas is installed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from mocme_jax.errors import UserError
from mocme_jax.printed_commands import to_install


class Rows(list):
    """A list of dicts or dataclasses: ``to_frame`` makes each a row."""

    def to_frame(self) -> Any:
        """A pandas DataFrame, a column a name.

        Raises:
          UserError: pandas is not installed.
        """
        return frame(dataclasses.asdict(row) if dataclasses.is_dataclass(row) else row for row in self)


class ListOfRows(list):
    """A list of ``Rows``, one a question: ``to_frame`` joins them, and numbers the questions in its first column."""

    def to_frame(self) -> Any:
        """See ``Rows.to_frame``."""
        return frame({"question": number} | dataclasses.asdict(row) for number, rows in enumerate(self) for row in rows)


class Results(dict):
    """What ``results.json`` holds: ``to_frame`` makes each of its scores a row."""

    def to_frame(self) -> Any:
        """See ``Rows.to_frame``; dev, test, and test's clean rows where these are fewer."""
        from mocme_jax.training.logs.run_results import scores_of

        return frame({"split": name} | scores for name, scores in scores_of(self).items())

    def __repr__(self) -> str:
        dev, test = self["dev"]["overall"], self["test"]
        tested = "" if test is None else f", test MRR {test['overall']['mrr']:.4f}"
        return f"Results({self['graph']['name']}: dev MRR {dev['mrr']:.4f}{tested}; keys: {', '.join(self)})"


def frame(rows: Iterable[dict[str, Any]]) -> Any:
    """Rows as a pandas DataFrame."""
    try:
        import pandas
    except ImportError:
        raise UserError(f"a DataFrame needs the package pandas; run: {to_install('pandas')}") from None
    return pandas.DataFrame(list(rows))
