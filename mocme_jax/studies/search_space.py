"""A space of configurations to search at random.

Random points beat a grid of as many where few of the fields matter (Bergstra and Bengio, JMLR 2012).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mocme_jax.config_fields import Value


class Log(NamedTuple):
    """Numbers from ``low`` to ``high``, each factor as likely as any other."""

    low: float
    high: float


def around(value: float, factor: float) -> Log:
    """From ``value / factor`` to ``value * factor``: far from a config that works most points fail."""
    return Log(value / factor, value * factor)


class Uniform(NamedTuple):
    """Numbers from ``low`` to ``high``, each as likely as any other."""

    low: float
    high: float


# By config field: a range of numbers, or a list to choose from.
Space = Mapping[str, Log | Uniform | Sequence[Value]]


def draw(space: Space, seed: int, number: int) -> dict[str, Value]:
    """A point of the space, by config field; numbers to three digits, as they are written in a config.

    Points are numbered from 1 on, and do not depend on how many are drawn.
    """
    rng = np.random.default_rng([seed, number])
    return {path: _one(choice, rng) for path, choice in space.items()}


def _one(choice, rng: np.random.Generator) -> Value:
    # One draw a field, whatever its kind, so that a field's change of kind leaves the others as they were.
    share = rng.random()
    if isinstance(choice, Log):
        low, high = math.log(choice.low), math.log(choice.high)
        return float(f"{math.exp(low + share * (high - low)):.3g}")
    if isinstance(choice, Uniform):
        return float(f"{choice.low + share * (choice.high - choice.low):.3g}")
    return choice[min(int(share * len(choice)), len(choice) - 1)]
