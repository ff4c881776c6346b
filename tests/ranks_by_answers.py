"""Filtered ranks of a finished run from its answers alone: a loop in NumPy that knows nothing of the evaluation.

  python tests/ranks_by_answers.py WORKDIR FOLDER

FOLDER holds the triples by name, ``train.txt``, ``valid.txt`` and ``test.txt`` of rows ``head<TAB>relation<TAB>tail``.
Prints each metric beside that of ``results.json``. Status 1: they differ.
"""

import itertools
import json
import sys
from pathlib import Path

import numpy as np

import mocme_jax

# Of an entity that is no answer at all; it ties with others of the kind.
NO_ANSWER = np.finfo(np.float32).min


def read_triples(folder: Path) -> dict[str, list[list[str]]]:
    """Names of head, relation and tail by split."""
    files = {split: (folder / f"{split}.txt").read_text("utf-8") for split in ("train", "valid", "test")}
    return {split: [line.split("\t") for line in text.splitlines()] for split, text in files.items()}


def ranks_of_test(workdir: Path, triples: dict[str, list[list[str]]]) -> np.ndarray:
    """Ranks ``[2T]`` of the tails, then of the heads, of test: 1 + those that score higher + half of those that tie."""
    model = mocme_jax.load(workdir)
    place = {name: index for index, name in enumerate(model.entities.names)}
    known: dict[tuple[str, str, str], set[int]] = {}
    for head, relation, tail in itertools.chain(*triples.values()):
        known.setdefault(("tail", head, relation), set()).add(place[tail])
        known.setdefault(("head", tail, relation), set()).add(place[head])
    heads, relations, tails = (list(column) for column in zip(*triples["test"], strict=True))
    every = len(place)
    asked = {
        "tail": model.complete(head=heads, relation=relations, k=every),
        "head": model.complete(relation=relations, tail=tails, k=every),
    }
    ranks = []
    for kind, given, golds in (("tail", heads, tails), ("head", tails, heads)):
        for answers, entity, relation, gold in zip(asked[kind], given, relations, golds, strict=True):
            scores = np.full(every, NO_ANSWER, np.float32)
            for answer in answers:
                scores[place[answer.name]] = answer.score
            rivals = np.delete(scores, list(known[kind, entity, relation]))
            of_gold = scores[place[gold]]
            ranks.append(1 + (rivals > of_gold).sum() + (rivals == of_gold).sum() / 2)
    return np.array(ranks)


def compared(workdir: Path, triples: dict[str, list[list[str]]]) -> dict[str, tuple[float, float]]:
    """Each metric of test from answers, and as the run wrote it."""
    ranks = ranks_of_test(workdir, triples)
    found = {"count": len(ranks), "mrr": (1 / ranks).mean(), "mr": ranks.mean()}
    found |= {f"hits@{k}": (ranks <= k).mean() for k in (1, 3, 10)}
    written = json.loads((workdir / "results.json").read_text("utf-8"))["test"]["overall"]
    return {name: (float(value), written[name]) for name, value in found.items()}


if __name__ == "__main__":
    pairs = compared(Path(sys.argv[1]), read_triples(Path(sys.argv[2])))
    print("\n".join(f"{name} {found:.6f} {written:.6f}" for name, (found, written) in pairs.items()))
    sys.exit(any(abs(found - written) > 1e-6 for found, written in pairs.values()))
