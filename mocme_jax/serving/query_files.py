"""Queries in a file, answered in chunks, so that files of any length are possible."""

import functools
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mocme_jax.errors import UserError
from mocme_jax.serving.answer_files import Row
from mocme_jax.serving.name_lookup import Lookup
from mocme_jax.serving.rated_answers import Answered
from mocme_jax.serving.trained_model import TrainedModel

CHUNK = 2048
_ASKED = ("", "?")
# The number of the query in the file, from 1, and its head, relation and tail; -1 for the missing one.
Question = tuple[int, tuple[int, ...]]


def read_questions(path: Path, entities: Lookup, relations: Lookup, *, skip: int = 0) -> Iterator[Question]:
    """Read the queries of a file after the first ``skip``.

    Rows are ``head<TAB>relation<TAB>tail``, one of which is ``?`` or empty.

    Raises:
      UserError: the file cannot be read, or a row is malformed or has a name that the graph lacks.
    """
    path = Path(path)

    @functools.cache
    def look_up(key: str, relation: bool) -> int:
        return (relations if relation else entities).id(key)

    try:
        with open(path, encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(itertools.islice(file, skip, None), start=skip + 1):
                cells = line.rstrip("\r\n").split("\t")
                cells += [""] * (3 - len(cells))
                asked = [place for place, cell in enumerate(cells) if cell.strip() in _ASKED]
                if len(cells) != 3 or len(asked) != 1:
                    raise UserError(
                        f"{path}:{number}: expected head, relation, tail with tabs, one of them ?; found {line[:60]!r}"
                    )
                try:
                    triple = tuple(
                        -1 if place == asked[0] else look_up(cell, place == 1) for place, cell in enumerate(cells)
                    )
                except UserError as error:
                    raise UserError(f"{path}:{number}: {error}") from None
                yield number, triple
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; convert the file to UTF-8") from None


def answer_questions(
    model: TrainedModel, questions: Iterator[Question], k: int, exclude: Sequence[str]
) -> Iterator[list[list[Row]]]:
    """Yield the rows of each query in order, as one list of queries per chunk."""
    while chunk := list(itertools.islice(questions, CHUNK)):
        triples = np.array([triple for _, triple in chunk], np.int32)
        missing = np.argmin(triples, axis=1)
        between = np.flatnonzero(missing == 1)
        others, tails = np.flatnonzero(missing != 1), missing[missing != 1] == 2
        rows: dict[int, list[Row]] = {}
        if len(between):
            answered = model.answer_relations(triples[between][:, [0, 2]], k, exclude)
            rows |= zip(between.tolist(), _rows(model, [chunk[i] for i in between], answered), strict=True)
        if len(others):
            head, relation, tail = triples[others].T
            relation = relation + np.where(tails, 0, len(model.relations))
            answered = model.answer(np.stack([np.where(tails, head, tail), relation], axis=1), k, exclude)
            rows |= zip(others.tolist(), _rows(model, [chunk[i] for i in others], answered), strict=True)
        yield [rows[place] for place in range(len(chunk))]


def _rows(model: TrainedModel, questions: list[Question], answered: Answered) -> list[list[Row]]:
    words = [*model.served.facts.splits, model.served.facts.word(-1)]
    lookups = model.entities.names, model.relations.names, model.entities.names
    columns = [part.tolist() for part in (answered.ids, answered.scores, answered.probability, answered.known)]
    found = []
    for (number, triple), ids, scores, probability, known in zip(questions, *columns, strict=True):
        asked = triple.index(-1)
        # The missing one is replaced below; -1 would be the last name.
        ends = [names[index] for names, index in zip(lookups, triple, strict=True)]
        listed = []
        for place, index in enumerate(ids):
            if index >= 0:
                ends[asked] = lookups[asked][index]
                listed.append((number, *ends, place + 1, scores[place], probability[place], words[known[place]]))
        found.append(listed)
    return found
