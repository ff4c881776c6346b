"""Valid files of a run's and a study's folder, made here."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from mocme_jax.training.checkpoints.run_position import FORMAT

from .seeds import Files, _npy

SCORES = {"count": 4, "mrr": 0.5, "mr": 2.0, "hits@1": 0.5, "hits@3": 0.5, "hits@10": 1.0}
NONE = {"count": 0} | dict.fromkeys(("mrr", "mr", "hits@1", "hits@3", "hits@10"))
GRAPH = {"name": "g", "entities": 3, "relations": 1, "triples": {"train": 3}, "modalities": {"text": 0.5}, "dev": "d"}
CONFIG = {"seed": 0, "model": {"width": 8}, "negatives": {"class_weights": [0.5, 1.0, 2.0]}, "data": {"dir": None}}
OF = {"fingerprint": "f", "best_epoch": 1, "best_mrr": 0.5}
POSITION = {"step": 4, "epoch": 2, "evaluated": False, "best_epoch": 1, "best_step": 2, "best_mrr": 0.5, "stale": 0}
POSITION |= {"minutes": 1.0, "stopped": False, "diverged": 0}
STUDY: dict[str, Any] = {"config": CONFIG, "parts": {"train triples": "a"}, "fingerprint": "f", "version": "1"}
STUDY |= {"format": FORMAT, "study": "s", "reference": "full", "seeds": [0, 1], "graph": GRAPH, "warnings": ["w"]}
STUDY |= {"cells": {"full": {}, "less": {"model.width": 4}}, "jax": "0.12", "device": "cpu"}


def metrics() -> list[Files]:
    rest = {"dev": {"mrr": 0.5}, "train": {"loss": [1, None]}}
    rows = [{"epoch": epoch, "step": 10 * epoch} | rest for epoch in range(4)]
    lines = [json.dumps(row) for row in [{"note": "start"}, *rows, {"test": {"mrr": 0.1}}]]
    return [{"metrics.jsonl": "\n".join(lines).encode() + b"\n"}]


def results() -> list[Files]:
    groups = {"direction": {"head": SCORES, "tail": NONE}, "answer_seen": {"seen": SCORES, "unseen": SCORES}}
    report = {"overall": SCORES, "clean": NONE, "groups": groups}
    held = {"graph": GRAPH, "warnings": ["w"], "run": POSITION, "dev": report, "test": report, "config": CONFIG}
    held |= {"weights": {"structure": 1.0}, "jax": "0.12", "device": "cpu", "version": "1", "fingerprint": "f"}
    added = {"nats": 0.5, "margin": None, "triples": 3}
    information = {"best_step": 2, "modalities": {"text": added}, "experts": {"structure": added}, "relations": {}}
    information["weights"] = {"fitted": 0.5, "before": 0.4, "gain": 0.1, "margin": None}
    files = {"results.json": held, "information.json": information}
    return [metrics()[0] | {name: json.dumps(value).encode() for name, value in files.items()}]


def calibration() -> list[Files]:
    from mocme_jax.training.checkpoints.sealed_checkpoints import digest_of

    above = {threshold: {"questions": 3, "right": 0.5} for threshold in ("0.5", "0.7", "0.9", "0.95")}
    one = {"questions": 4, "error": 0.1, "by_chance": 0.1, "mean": 0.5, "right": None, "above": above}
    judged = dict.fromkeys(("before", "after", "after, first ten", "relations"), one)
    report = {"meaning": "m", "own_fits": 1, "splits": {"dev": judged, "test": judged}}
    curve = {"share": [0.0, 0.5, 1.0], "right": [0.0, 0.4, 0.9]}
    kept = {"of": OF, "report": report, "missing": [[0.5, 0.5], [0.1, 0.2]]}
    kept |= {"answers": {"sharpness": [1.0, 2.0], "doubt": [0.1, 0.1], "curve": curve}}
    kept |= {"relations": {"sharpness": 1.0, "doubt": 0.1, "curve": curve}}
    return [{"calibration.json": json.dumps(kept | {"digest": digest_of(kept)}).encode()}]


def study() -> list[Files]:
    row = {"best_epoch": 2, "epochs": 2, "curve": [[1, 0.25], [2, 0.5]], "dev": SCORES, "test": SCORES, "clean": SCORES}
    row |= {"weights": {"structure": 1.0}, "seconds": 3.0}
    rows = [
        {"cell": cell, "changes": changes, "seed": seed} | row
        for cell, changes in STUDY["cells"].items()
        for seed in (0, 1)
    ]
    rows.append({"cell": "gone", "changes": {}, "seed": 0, "diverged": 3} | row | {"dev": {"mrr": 0.0}})
    spread = {"mean": 0.5, "deviation": None}
    line = {"seeds": 2, "difference": 0.0, "p": None, "clean_difference": None, "clean_p": 0.5, "seconds": 6.0}
    line |= dict.fromkeys(("dev", "test", "clean", "hits@1", "hits@10"), spread)
    table = {"reference": "full", "rows": [{"cell": cell} | line for cell in STUDY["cells"]]}
    texts = {"study.json": json.dumps(STUDY), "rows.jsonl": "\n".join(map(json.dumps, rows)) + "\n"}
    ranks = {f"ranks/{cell}.{seed}.npy": _npy(np.ones(4, np.float32)) for cell in STUDY["cells"] for seed in (0, 1)}
    files = {name: text.encode() for name, text in texts.items()} | ranks
    return [files, files | {"table.json": json.dumps(table).encode()}]


def answers() -> list[Files]:
    settings = json.dumps({"k": 3}).encode()
    rows = [{"query": number, "answers": [{"head": "h", "score": 0.5}]} for number in (1, 2)]
    return [
        {"a.tsv": b"query\thead\tscore\n1\th\t0.5\n1\ti\t0.5\n2\th\t0.5\n", "a.tsv.settings.json": settings},
        {"a.jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode(), "a.jsonl.settings.json": settings},
    ]


def state() -> dict[str, np.ndarray]:
    """What the checkpoints hold."""
    return {"structure": np.arange(12, dtype=np.float32).reshape(4, 3), "scale": np.ones(2, np.float32)}


def identity() -> dict[str, Any]:
    """Whose they are."""
    from mocme_jax.training.checkpoints.run_position import identity_of

    parts = {"train triples": "b", "modality text": "c"}
    return identity_of(CONFIG, parts, "f") | {"places": {"data.dir": "/graph"}}


@functools.cache
def shapes() -> dict[str, Any]:
    """Of the arrays of ``state``."""
    import jax

    return jax.eval_shape(lambda: {name: jax.numpy.asarray(array) for name, array in state().items()})


@functools.cache
def checkpoints() -> list[Files]:
    """One checkpoint of last/, as the program saves it."""
    import jax

    from mocme_jax.training.checkpoints.orbax_store import open_checkpoints
    from mocme_jax.training.checkpoints.run_position import Position
    from mocme_jax.training.checkpoints.sealed_checkpoints import Saves

    def refuse(line: str) -> None:
        raise AssertionError(line)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with open_checkpoints(folder) as saved:
            arrays = {name: jax.numpy.asarray(array) for name, array in state().items()}
            Saves(saved, identity(), None, refuse).save("last", Position(**POSITION), arrays)
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        return [{path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}]
