"""Answers queries with a trained model.

  mocme predict --head=France --relation=borders
      predicts tails; leave out --head instead of --tail to predict heads, or --relation to predict relations
  mocme predict --workdir=runs/atlas --queries=FILE.tsv --out=ANSWERS.tsv
      answers a file with rows head<TAB>relation<TAB>tail, one of them ?; rerunning the command resumes
  mocme predict --workdir=runs/atlas --all-new --k=1000 --out=NEW.tsv
      lists the most probable triples that are in no split
  mocme predict --workdir=runs/atlas --explain --head=Paris --relation=capital_of --tail=France
      explains the score of a triple

Splits are train, valid and test. The probability of an answer assumes that the query has exactly one missing answer;
see docs/guides/query.md.
"""

from __future__ import annotations

import collections
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mocme_jax.command_line import run
from mocme_jax.config_fields import Field, Value, a_place
from mocme_jax.errors import UserError
from mocme_jax.flags import OF_A_RUN, OF_A_RUN_OR_NONE, parse_options

if TYPE_CHECKING:
    from mocme_jax.serving.name_lookup import Lookup

SPLITS = ("train", "valid", "test")
OPTIONS = {
    **OF_A_RUN,
    "workdir": OF_A_RUN_OR_NONE,
    "head": Field(None, "an entity, by name or id", kind=str),
    "relation": Field(None, "a relation, by name or id", kind=str),
    "tail": Field(None, "an entity, by name or id", kind=str),
    "k": Field(10, "number of answers per query, or of triples with --all-new", low=1),
    "exclude-known": Field(
        None,
        "splits whose triples are left out of the answers, such as train,valid,test; default: known answers are kept "
        "and marked; --all-new leaves out all three by default",
        kind=tuple,
        element=str,
        choices=SPLITS,
    ),
    "queries": a_place("a file of queries, one per row; the answers are written to --out"),
    "out": a_place("file for the answers: .tsv, .jsonl, or .parquet (extra: parquet)"),
    "all-new": Field(False, "list the most probable new triples of the whole graph"),
    "relations": Field((), "relations for --all-new, by name or id, separated by commas; none: all"),
    "explain": Field(False, "explain the score of the triple --head, --relation, --tail"),
    "json": Field(False, "print JSON instead of a table"),
}


def main() -> None:
    """Reads the flags, then imports JAX and answers."""
    options = parse_options(sys.argv[1:], __doc__, OPTIONS)
    triple = options["head"], options["relation"], options["tail"]
    kind = _checked(options, given=sum(key is not None for key in triple))
    from mocme_jax.serving.answer_files import check_format

    out = Path(options["out"]) if options["out"] else None
    if out is not None:
        check_format(out)
    from mocme_jax.serving import prediction_output as predict
    from mocme_jax.serving.query_files import read_questions
    from mocme_jax.serving.run_loading import load
    from mocme_jax.training.logs.progress import make_console

    known, k = options["exclude_known"], options["k"]
    if kind == "queries":
        predict.digest(Path(options["queries"]))

    def check(entities: Lookup, relations: Lookup) -> None:
        """Raises a UserError for a name that the graph lacks, before the model is read."""
        relations.ids(options["relations"])
        for names, key in zip((entities, relations, entities), triple, strict=True):
            names.ids(() if key is None else key)
        if kind == "queries":
            # All are read, so that a malformed row is reported.
            collections.deque(read_questions(Path(options["queries"]), entities, relations), 0)

    console = make_console(sys.stderr)
    places = {name: options[name] for name in ("workdir", "data_dir", "features_dir")}
    model = load(**places, notify=console.print, check=check)
    if kind == "queries":
        predict.predict_file(model, Path(options["queries"]), out, k=k, exclude=known or (), console=console)
    elif kind == "all-new":
        how = dict(relations=options["relations"], exclude=SPLITS if known is None else known, as_json=options["json"])
        predict.predict_new(model, out, k=k, **how, console=console)
    elif kind == "explain":
        predict.predict_why(model, triple, as_json=options["json"])
    else:
        predict.predict_one(model, *triple, k=k, exclude=known or (), as_json=options["json"])


def _checked(options: Mapping[str, Value], given: int) -> str:
    """The kind of call: ``queries``, ``all-new``, ``explain`` or ``one``; ``given`` counts head, relation and tail."""
    asked = [name for name in ("queries", "all-new", "explain") if options[name.replace("-", "_")]]
    if len(asked) > 1:
        raise UserError(f"--{asked[0]} and --{asked[1]} cannot be combined; give one of them")
    kind = asked[0] if asked else "one"
    if kind in ("queries", "all-new") and given:
        raise UserError(f"--{kind} takes no --head, --relation or --tail")
    if kind == "queries" and options["out"] is None:
        raise UserError("--queries needs --out=FILE, the file for the answers")
    if kind == "one" and given == 3:
        raise UserError("expected two of --head, --relation and --tail, found three; leave one out, or add --explain")
    if kind == "one" and given != 2:
        words = "--head, --relation and --tail"
        raise UserError(f"expected two of {words}, found {given}; or give --queries=FILE, --all-new or --explain")
    if kind == "explain" and given != 3:
        raise UserError("--explain needs --head, --relation and --tail")
    if kind in ("one", "explain") and options["out"] is not None:
        raise UserError("--out needs --queries or --all-new; for one query, redirect the printed output to a file")
    return kind


if __name__ == "__main__":
    run(main)
