"""Adagrad for the tables, Adam for the rest."""

from __future__ import annotations

import jax
import optax

# Rows looked up by id; their gradients are sparse, which Adagrad's per-coordinate rates suit (Duchi et al., 2011).
_TABLES = ("structure", "relation")


def create_optimizer(learning_rate: float, table_learning_rate: float, decay: float = 0.0):
    """Adagrad at ``table_learning_rate`` for the structure and relation tables, AdamW at ``learning_rate`` else.

    Args:
      learning_rate: of projections, experts, gates and estimators.
      table_learning_rate: of the tables. Adagrad's sums start at 0: a larger start would drown the small gradients
        of a mean loss, and so would optax's eps, which stands under the root.
      decay: decoupled weight decay of Adam's parameters.
    """
    return optax.partition(
        {
            "table": optax.adagrad(table_learning_rate, initial_accumulator_value=0.0, eps=1e-20),
            "rest": optax.adamw(learning_rate, weight_decay=decay),
        },
        lambda params: jax.tree_util.tree_map_with_path(_label, params),
    )


def _label(path, leaf) -> str:
    del leaf
    return "table" if path[-1].key in _TABLES else "rest"
