"""What a checkpoint says of itself, changed, with its digest made anew."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mocme_jax.training.checkpoints.sealed_checkpoints import digest_of


def _set(*path: str, to: Any) -> Callable[[dict], None]:
    def change(content: dict) -> None:
        for name in path[:-1]:
            content = content[name]
        content[path[-1]] = to

    return change


def _drop(*path: str) -> Callable[[dict], None]:
    def change(content: dict) -> None:
        for name in path[:-1]:
            content = content[name]
        del content[path[-1]]

    return change


FORGED: dict[str, Callable[[dict], Any]] = {
    "a list": lambda content: [content],
    "a text": lambda content: "config",
    "nothing": lambda content: {},
    "no config": _drop("config"),
    "config a list": _set("config", to=[["model", 1]]),
    "config nothing": _set("config", to={}),
    "config.model a list": _set("config", "model", to=[8]),
    "config.model a number": _set("config", "model", to=8),
    "width 1e9": _set("config", "model", "width", to=10**9),
    "width a text": _set("config", "model", "width", to="8"),
    "width below 0": _set("config", "model", "width", to=-8),
    "width half": _set("config", "model", "width", to=4),
    "experts 1e6": _set("config", "model", "experts", to=10**6),
    "expert_hidden 2^40": _set("config", "model", "expert_hidden", to=1 << 40),
    "core_width 2^20 and tucker": lambda c: c["config"]["model"].update(core_width=1 << 20, score="tucker"),
    "a score that is none": _set("config", "model", "score", to="a score"),
    "a fusion that is a list": _set("config", "model", "fusion", to=["mean"]),
    "modality_scale true": _set("config", "model", "modality_scale", to=True),
    "batch_size 0": _set("config", "train", "batch_size", to=0),
    "a field more": _set("config", "model", "odd", to=1),
    "a group more": _set("config", "odd", to={"a": {"b": 1}}),
    "devices a text": _set("config", "parallel", "devices", to="1"),
    "devices none": _drop("config", "parallel", "devices"),
    "no parallel": _drop("config", "parallel"),
    "seed 10^30": _set("config", "seed", to=10**30),
    "no parts": _drop("parts"),
    "parts a list": _set("parts", to=["train triples"]),
    "a part a number": _set("parts", "train triples", to=7),
    "a modality that is none": _set("parts", "modality \x1b[31m../../x", to="0" * 64),
    "no fingerprint": _drop("fingerprint"),
    "fingerprint a number": _set("fingerprint", to=7),
    "format a list": _set("format", to=[5]),
    "no format": _drop("format"),
    "version a mapping": _set("version", to={}),
    "places a list": _set("places", to=["/"]),
    "a place a number": _set("places", to={"data.dir": 7}),
    "a place with zero": _set("places", to={"data.dir": "/tmp\0/x"}),
    "a place that is another field": _set("places", to={"model.width": "/tmp"}),
    "position a list": _set("position", to=[0, 1]),
    "no position": _drop("position"),
    "position nothing": _set("position", to={}),
    "a field more of position": _set("position", "odd", to=1),
    "step a text": _set("position", "step", to="8"),
    "step below 0": _set("position", "step", to=-8),
    "step 10^30": _set("position", "step", to=10**30),
    "step of another number": _set("position", "step", to=9),
    "epoch below 0": _set("position", "epoch", to=-5),
    "epoch 1.5": _set("position", "epoch", to=1.5),
    "best_step 10^18": _set("position", "best_step", to=10**18),
    "best_mrr a list": _set("position", "best_mrr", to=[0.5]),
    "best_mrr NaN": _set("position", "best_mrr", to=float("nan")),
    "best_mrr 1e400": _set("position", "best_mrr", to=float("inf")),
    "best_mrr 7": _set("position", "best_mrr", to=7.0),
    "minutes a text": _set("position", "minutes", to="long"),
    "evaluated 1": _set("position", "evaluated", to=1),
    "checksums a list": _set("checksums", to=[1]),
    "no checksums": _drop("checksums"),
    "a checksum a text": _set("checksums", "structure", to="1"),
    "no checksum of one": lambda content: content["checksums"].popitem() and None,
    "lanes a text": _set("lanes", to="lanes"),
    "lanes of two": _set("lanes", to=[{}, {}]),
}


def forged(which: str, change: Callable[[dict], Any]) -> Callable[[Path], None]:
    """The newest checkpoint's meta changed, and its digest made anew; older checkpoints are taken away."""

    def forge(folder: Path) -> None:
        *older, newest = sorted((folder / "run" / which).iterdir(), key=lambda path: int(path.name))
        for path in older:
            shutil.rmtree(path)
        path = newest / "meta" / "metadata"
        content = json.loads(path.read_text())["content"]
        changed = change(content)
        content = content if changed is None else changed
        try:
            digest = digest_of(content)
        except ValueError:
            digest = "0" * 64
        path.write_text(json.dumps({"content": content, "digest": digest}))

    return forge
