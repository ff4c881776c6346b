"""The tiny graph under strangers' names, and the files of a study of such names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from tiny_graph import write_tiny_graph

SCRIPT = "<script>alert(1)</script>"
LONG = "x" * 300
ENTITIES = {
    "place 0": SCRIPT,
    "place 6": "Ελλάδα \u202e$\\frac{1}{0}$ مصر",
    "place 12": LONG,
    "place 18": "\"' onmouseover=alert(1) {{ 7 * 7 }}",
}
RELATIONS = {"member of": "of </style><img src=//example.com/x onerror=alert(1)> all", "next": "next&amp;" + LONG}


def strange_graph(folder: Path) -> Path:
    """The tiny graph with some of its names replaced, in the same order."""
    write_tiny_graph(folder)
    for file in folder.glob("*.txt"):
        rows = [line.split("\t") for line in file.read_text(encoding="utf-8").splitlines()]
        lines = ["\t".join((ENTITIES.get(h, h), RELATIONS.get(r, r), ENTITIES.get(t, t))) + "\n" for h, r, t in rows]
        file.write_text("".join(lines), encoding="utf-8")
    return folder


def write_study(folder: Path, config: dict, cells: dict[str, dict], *, seeds: int = 3, left_out=(), table=False):
    """The files of a study whose test MRR is .5, a hundredth less each cell, and a thousandth more each seed.

    Args:
      folder: made.
      config: of a run.
      cells: changes by cell; the first is the reference.
      left_out: pairs of cell and seed that are not finished.
      table: write ``table.json`` as well.
    """
    folder.mkdir(parents=True)
    reference = next(iter(cells))
    graph = {"name": "tiny", "entities": 48, "relations": 3, "triples": {"train": 120, "valid": 5, "test": 5}}
    told = {"study": "components", "reference": reference, "seeds": list(range(seeds)), "config": config}
    told |= {"cells": cells, "graph": graph | {"modalities": {"text": 0.8}, "dev": "released valid split"}}
    told |= {"warnings": ["a third of test is in train"], "jax": "1", "device": "cpu", "version": "1"}
    told |= {"fingerprint": "f"}
    (folder / "study.json").write_text(json.dumps(told), encoding="utf-8")
    rows = []
    for place, (cell, changes) in enumerate(cells.items()):
        for seed in range(seeds):
            if (cell, seed) in left_out:
                continue
            mrr = 0.5 - 0.01 * place + 0.001 * seed
            scores = {"count": 10, "mrr": mrr, "mr": 3.0, "hits@1": mrr - 0.1, "hits@3": mrr, "hits@10": mrr + 0.1}
            row = {"cell": cell, "seed": seed, "changes": changes, "dev": scores, "test": scores}
            row |= {"clean": scores | {"count": 6}, "best_epoch": 4, "epochs": 4, "seconds": 30.0}
            row |= {"curve": [[2, mrr / 2], [4, mrr]]}
            text = 0.3 - 0.1 * place / len(cells)
            row["weights"] = {"structure": 1 - text, "text": text}
            rows.append(row)
    # The last line is of a study that goes on.
    lines = [json.dumps(row) for row in rows] + ['{"cell": "half a']
    (folder / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    if table:
        cells_done = [[row["test"]["mrr"] for row in rows if row["cell"] == cell] for cell in cells]
        means = [{"mean": float(np.mean(values)), "deviation": float(np.std(values))} for values in cells_done]
        entries = [
            {"cell": cell, "seeds": len(values), "dev": mean, "test": mean, "hits@1": mean, "hits@10": mean}
            | {"difference": mean["mean"] - means[0]["mean"], "p": None if cell == reference else 0.0123}
            for cell, values, mean in zip(cells, cells_done, means, strict=True)
        ]
        (folder / "table.json").write_text(json.dumps({"rows": entries, "reference": reference}), encoding="utf-8")
    return folder
