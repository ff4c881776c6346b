"""A small graph on disk whose held-out triples follow from its training triples, with feature files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

ENTITIES = 48

# Fields of a training that is compared with one of another program: a negative on a class's bound, which a rounding
# moves over it, makes no difference.
NO_JUMPS = {"negatives__class_weights": "1.0,1.0,1.0"}


def write_tiny_graph(folder: Path, *, seed: int = 0, width: int = 6) -> Path:
    """Writes plain files and ``text.npy`` and ``numeric.npz`` into ``folder``, and returns it.

    Entities stand on a ring in groups of six. ``next`` leads one step on, ``opposite`` half way round and
    ``member of`` to the group's first. One triple of ``next`` and of ``opposite`` in ten is held out, half for valid
    and half for test. The text says the group, the number the place in it; some entities lack either.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    ids = np.arange(ENTITIES)
    ring = [(i, "next", (i + 1) % ENTITIES) for i in ids]
    ring += [(i, "opposite", (i + ENTITIES // 2) % ENTITIES) for i in ids]
    members = [(i, "member of", i - i % 6) for i in ids if i % 6]
    held_out = set(rng.permutation(len(ring))[:10].tolist())
    splits = {
        "train": members + [row for index, row in enumerate(ring) if index not in held_out],
        "valid": [ring[index] for index in sorted(held_out)[:5]],
        "test": [ring[index] for index in sorted(held_out)[5:]],
    }
    for split, rows in splits.items():
        lines = [f"place {head}\t{relation}\tplace {tail}\n" for head, relation, tail in rows]
        (folder / f"{split}.txt").write_text("".join(lines), encoding="utf-8")
    names = []
    for rows in splits.values():
        for head, _, tail in rows:
            names += [head, tail]
    order = np.array(list(dict.fromkeys(int(name) for name in names)))
    text = np.eye(ENTITIES // 6, dtype=np.float32)[order // 6] + 0.1 * rng.standard_normal((ENTITIES, 8)).astype("f")
    text[rng.random(ENTITIES) < 0.2] = np.nan
    np.save(folder / "text.npy", text)
    with_number = np.flatnonzero(rng.random(ENTITIES) < 0.7)
    rows = np.stack([order % 6, order / ENTITIES], 1)[with_number].astype(np.float32)
    np.savez(folder / "numeric.npz", ids=with_number, rows=rows)
    return folder


def tiny_flags(graph: Path, workdir: Path, **fields) -> list[str]:
    """Flags of a short run of a small model on that graph; ``train__epochs=6`` sets ``train.epochs``."""
    choices = {
        "data.name": "tiny",
        "data.dir": graph,
        "data.modalities": "structure",
        "model.width": 8,
        "model.expert_hidden": 4,
        "negatives.pool": 16,
        "train.batch_size": 32,
        "train.epochs": 4,
        "train.eval_every": 2,
        "train.patience": 0,
        "parallel.devices": 1,
    }
    choices |= {name.replace("__", "."): value for name, value in fields.items()}
    return [f"--workdir={workdir}", *(f"--config.{name}={value}" for name, value in choices.items())]
