"""Queries in a file, answered in chunks, so that files of any length are possible."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mocme_jax.errors import UserError
from mocme_jax.serving.answer_files import Row
from mocme_jax.serving.name_lookup import Lookup
from mocme_jax.serving.rated_answers import Answered
from mocme_jax.serving.trained_model import TrainedModel

CHUNK = 2048
_ASKED = ("", "?")


class Question(NamedTuple):
    """A query by ids.

    Attributes:
      number: the number of the query in the file, from 1.
      triple: head, relation and tail; -1 for the missing one.
      asked: the position of the missing one: 0, 1 or 2.
    """

    number: int
    triple: tuple[int, int, int]
    asked: int


def read_questions(path: Path, entities: Lookup, relations: Lookup, *, skip: int = 0) -> Iterator[Question]:
    """Read the queries of a file after the first ``skip``.

    Rows are ``head<TAB>relation<TAB>tail``, one of which is ``?`` or empty.

    Raises:
      UserError: the file cannot be read, or a row is malformed or has a name that the graph lacks.
    """
    path = Path(path)
    cache: dict[tuple[bool, str], int] = {}

    def look_up(key: str, relation: bool) -> int:
        if (relation, key) not in cache:
            cache[relation, key] = (relations if relation else entities).id(key)
        return cache[relation, key]

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
                yield Question(number, triple, asked[0])
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; convert the file to UTF-8") from None


def answer_questions(
    model: TrainedModel, questions: Iterator[Question], k: int, exclude: Sequence[str]
) -> Iterator[list[list[Row]]]:
    """Yield the rows of each query in order, as one list of queries per chunk."""
    while chunk := list(itertools.islice(questions, CHUNK)):
        rows: dict[int, list[Row]] = {}
        for between in (False, True):
            part = [question for question in chunk if (question.asked == 1) is between]
            if part:
                answered = _answer(model, part, k, exclude, between=between)
                rows |= {question.number: listed for question, listed in zip(part, answered, strict=True)}
        yield [rows[question.number] for question in chunk]


def _answer(
    model: TrainedModel, questions: list[Question], k: int, exclude: Sequence[str], *, between: bool
) -> list[list[Row]]:
    triples = np.array([question.triple for question in questions], np.int32)
    asked = np.array([question.asked for question in questions])
    if between:
        answered = model.answer_relations(triples[:, [0, 2]], k, exclude)
    else:
        tails = asked == 2
        entity = np.where(tails, triples[:, 0], triples[:, 2])
        relation = triples[:, 1] + np.where(tails, 0, len(model.relations))
        answered = model.answer(np.stack([entity, relation], axis=1), k, exclude)
    return _rows(model, questions, answered, model.relations.names if between else model.entities.names)


def _rows(model: TrainedModel, questions: list[Question], answered: Answered, names: list[str]) -> list[list[Row]]:
    words = [*model.served.facts.splits, model.served.facts.word(-1)]
    columns = [part.tolist() for part in (answered.ids, answered.scores, answered.probability, answered.known)]
    found = []
    for question, ids, scores, probability, known in zip(questions, *columns, strict=True):
        number, (head, relation, tail), asked = question
        # The missing one is replaced below; -1 would be the last name.
        ends = [model.entities.names[head], model.relations.names[relation], model.entities.names[tail]]
        listed = []
        for place, index in enumerate(ids):
            if index >= 0:
                ends[asked] = names[index]
                listed.append((number, *ends, place + 1, scores[place], probability[place], words[known[place]]))
        found.append(listed)
    return found
