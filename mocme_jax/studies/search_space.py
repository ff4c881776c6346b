"""A space of configurations to search, and its random points.

Random points beat a grid of as many where few of the fields matter (Bergstra and Bengio, JMLR 2012).
"""

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


def short(number: float) -> float:
    """A number to three digits, as it is written in a config."""
    return float(f"{number:.3g}")


def described(space: Space) -> dict[str, str]:
    """A space as text, to be compared: each field's range, or list of values."""
    return {path: repr(choice if isinstance(choice, Log | Uniform) else list(choice)) for path, choice in space.items()}


def _one(choice, rng: np.random.Generator) -> Value:
    # One draw a field, whatever its kind, so that a field's change of kind leaves the others as they were.
    share = rng.random()
    if isinstance(choice, Log):
        low, high = math.log(choice.low), math.log(choice.high)
        return short(math.exp(low + share * (high - low)))
    if isinstance(choice, Uniform):
        return short(choice.low + share * (choice.high - choice.low))
    return choice[min(int(share * len(choice)), len(choice) - 1)]
