"""The output of the command predict: answers to one query or to a file of queries, new triples, and explanations."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from mocme_jax.countdown import Countdown
from mocme_jax.errors import UserError
from mocme_jax.serving.answer_files import NEW_COLUMNS, RowFile
from mocme_jax.serving.answers import Answer
from mocme_jax.serving.explanation import Explanation, added_to_score, masked_scores
from mocme_jax.serving.known_facts import NEW
from mocme_jax.serving.new_triples import new_triples
from mocme_jax.serving.query_files import answer_questions, read_questions
from mocme_jax.serving.trained_model import TrainedModel
from mocme_jax.training.logs.progress import make_console, print_json, results_table


def predict_one(
    model: TrainedModel,
    head: str | None,
    relation: str | None,
    tail: str | None,
    *,
    k: int,
    exclude: Sequence[str],
    as_json: bool,
) -> None:
    """Print the answers to one query as a table or as JSON."""
    answers = model.complete(head, relation, tail, k, exclude=exclude)
    added = _added(model, answers, head, relation, tail)
    if as_json:
        rows = [dataclasses.asdict(a) | {"adds_to_score": adds} for a, adds in zip(answers, added, strict=True)]
        print_json(rows)
        return
    title = "  ".join(key if key is not None else "?" for key in (head, relation, tail))
    rows = [
        {
            "rank": answer.rank,
            "relation" if relation is None else "entity": answer.label,
            "probability": answer.probability,
            "known": answer.known if answer.known == NEW else f"{answer.known} *",
            "adds to score": "  ".join(f"{name} {value:+.2f}" for name, value in adds.items()),
        }
        for answer, adds in zip(answers, added, strict=True)
    ]
    console = make_console()
    results_table(rows, title=title, console=console)
    if any(answer.known != NEW for answer in answers):
        console.print("* already known; its probability is computed as if it were not known")


def predict_file(
    model: TrainedModel, queries: Path, out: Path, *, k: int, exclude: Sequence[str], console: Console
) -> None:
    """Answer a file of queries in another file, and resume after its last complete query."""
    settings = {"run": model.identity, "queries": digest(queries), "k": k, "exclude": list(exclude)}
    # Read completely first, so that a malformed row is reported before the work starts.
    names = model.entities, model.relations
    total = sum(1 for _ in read_questions(queries, *names))
    with RowFile(out, settings) as file:
        if file.finished:
            console.print(f"{out}: already complete")
            return
        if file.done:
            console.print(f"resuming after query {file.done:,}")
        count, told = file.done, Countdown("queries", console.print)
        for rows in answer_questions(model, read_questions(queries, *names, skip=file.done), k, exclude):
            file.write(rows)
            count += len(rows)
            told(count, total)
        file.finish()
    console.print(f"{out}: {count:,} queries answered", soft_wrap=True)


def predict_new(
    model: TrainedModel,
    out: Path | None,
    *,
    k: int,
    relations: Sequence[str],
    exclude: Sequence[str],
    as_json: bool,
    console: Console,
) -> None:
    """Print or write the most probable triples that the excluded splits do not hold."""
    if out is None:
        rows = _new_rows(model, k, relations, exclude, console)
        if as_json:
            print_json(rows)
        else:
            results_table(rows, title="most probable new triples", console=make_console())
        return
    settings = {"run": model.identity, "k": k, "relations": list(relations), "exclude": list(exclude)}
    # Opened first, so that a file that cannot be written is reported before the work starts.
    with RowFile(out, settings | {"columns": list(NEW_COLUMNS)}, NEW_COLUMNS) as file:
        if file.finished:
            console.print(f"{out}: already complete")
            return
        rows = _new_rows(model, k, relations, exclude, console)
        file.write([(row["rank"], *(row[name] for name in NEW_COLUMNS[1:]))] for row in rows[file.done :])
        file.finish()
    console.print(f"{out}: {len(rows):,} triples", soft_wrap=True)


def _new_rows(
    model: TrainedModel, k: int, relations: Sequence[str], exclude: Sequence[str], console: Console
) -> list[dict]:
    told = Countdown("queries asked", console.print)
    chosen = model.relations.ids(relations) if relations else None
    found = new_triples(model.served, model.calibration, k, relations=chosen, exclude=exclude, told=told)
    entities, names = model.entities.names, model.relations.names
    known = model.served.facts.where(*found.triples.T)
    columns = (found.triples, found.scores, found.probability, found.chance, known)
    return [
        {
            "rank": rank,
            "head": entities[head],
            "relation": names[relation],
            "tail": entities[tail],
            "score": score,
            "probability": probability,
            "chance": chance,
            "known": model.served.facts.word(place),
        }
        for rank, ((head, relation, tail), score, probability, chance, place) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True), start=1
        )
    ]


def predict_why(model: TrainedModel, triple: tuple[str, str, str], *, as_json: bool) -> None:
    """Print an explanation of a triple's score."""
    why = model.explain(triple)
    if as_json:
        print_json(why.to_dict())
        return
    console = make_console()
    title = f"{why.head.label}  {why.relation}  {why.tail.label}: score {why.score:.4f}"
    results_table(_worth(why), title=title, console=console)
    weights = [
        {"expert": name, "query with the head": share, "query with the tail": why.tail.weights[name]}
        for name, share in why.head.weights.items()
    ]
    results_table(weights, title="weights of the experts", console=console)
    console.print("The weights add up to 1. They do not measure what a modality adds; the first table does.")
    nearest = [dataclasses.asdict(one) for one in why.nearest]
    results_table(nearest, title="nearest training triples", console=console)


def _worth(why: Explanation) -> list[dict]:
    rows = [
        {
            "modality": name,
            "score without": score,
            "adds to score": why.score - score,
            **({"nats on dev": why.information.get(name)} if why.information else {}),
        }
        for name, score in why.without.items()
    ]
    for title, added in why.additions.items():
        if added:
            rows.append({"modality": f"({title})", "score without": why.score - added, "adds to score": added})
    whole = {"score without": why.without_any, "adds to score": why.score - why.without_any}
    return [*rows, {"modality": "all modalities"} | whole]


def _added(
    model: TrainedModel, answers: list[Answer], head: str | None, relation: str | None, tail: str | None
) -> list[dict[str, float]]:
    """Return what each modality adds to each answer's score, in the direction of the query; see ``added_to_score``."""
    if not answers:
        return []
    rows = [tuple(answer.id if key is None else key for key in (head, relation, tail)) for answer in answers]
    scores = masked_scores(model.served, model.triples(rows))
    asked = scores[:, :, 1] if head is None else scores[:, :, 0] if tail is None else scores.mean(axis=2)
    return added_to_score(asked, model.modalities)


def digest(path: Path) -> str:
    """Compute the SHA-256 of a file of queries.

    Raises:
      UserError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(
            f"--queries={path}: cannot be read ({error.strerror}); expected a file with rows head<TAB>relation<TAB>tail"
        ) from None
