"""``nonfinite.json``: the batch and the norms of a step whose loss or gradient is not finite."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph
from mocme_jax.training.checkpoints.checksums import arrays_by_path
from mocme_jax.training.checkpoints.run_folder import write_whole
from mocme_jax.training.shuffling import batch_rows, run_keys
from mocme_jax.training.train_state import TrainState

FILE_NAME = "nonfinite.json"


def describe(
    graph: KnowledgeGraph,
    whole: TrainState,
    latest: Mapping[str, float],
    *,
    batch_size: int,
    steps_per_epoch: int,
) -> dict:
    """Describe the step, ready for JSON; numbers that are not finite become the words nan, inf and -inf.

    Args:
      graph: the graph.
      whole: the state after the step, as arrays of all processes.
      latest: the metrics of the step.
      batch_size: the batch size B.
      steps_per_epoch: steps.
    """
    # The state already counts the step.
    step = int(whole.step) - 1
    order_key, _ = run_keys(jnp.asarray(jax.device_get(whole.key)))
    rows = np.asarray(batch_rows(order_key, jnp.int32(step), batch_size=batch_size, triples=len(graph.train)))
    norms = {path: _number(optax.tree.norm(leaf)) for path, leaf in arrays_by_path(whole.params).items()}
    return {
        "step": step + 1,
        "epoch": step // steps_per_epoch + 1,
        "metrics": {name: _number(value) for name, value in latest.items()},
        "norms after the step": norms,
        "triples": [
            {
                "row": int(row),
                "ids": [int(head), int(relation), int(tail)],
                "names": [graph.entities[head], graph.relations[relation], graph.entities[tail]],
            }
            for row, (head, relation, tail) in zip(rows, graph.train[rows], strict=True)
        ],
    }


def write(path: Path, description: dict) -> None:
    """Write the description; see ``write_whole``."""
    write_whole(path, json.dumps(description, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def _number(value) -> float | str:
    value = float(value)
    return value if math.isfinite(value) else str(value)
