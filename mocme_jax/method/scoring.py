"""Score functions with one interface: ComplEx, DistMult, RotatE, TransE and TuckER.

Each is split into ``query(head, relation, core) -> q`` and ``match(q, tails) -> scores``, so that scoring many
candidates is one matrix product where the formula allows it. A higher score means a more plausible triple. Head
prediction is tail prediction with the reciprocal relation r + R (Lacroix et al., ICML 2018).

A complex vector of d/2 coordinates is stored as d reals: first the real parts, then the imaginary parts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

# Distances are sums over coordinates. Passes over the [B, C] sums take the time, so each adds several coordinates.
_COORDINATES_AT_ONCE = 4


class Score(NamedTuple):
    """A score function and the shapes of its parameters.

    Attributes:
      name: the name in ``model.score``.
      query: ``(head [..., d], relation [..., d_r], core) -> [..., d]``; ``core`` is None except for TuckER.
      match: ``(q [B, d], tails [C, d]) -> [B, C]``, the scores of all pairs.
      pair: ``(q [B, d], tails [B, d]) -> [B]``, the scores row by row.
      moduli: ``[..., d] -> [..., d or d/2]``, the absolute values of the factors, for the regulariser.
      relation_width: ``(d, core_width) -> d_r``.
      linear: whether the score is linear in the head and in the tail.
      has_core: whether there is a core tensor ``[d_r, d, d]``.
      phases: whether relation rows are phases in radians. Their moduli are always 1.
      reciprocal: ``[..., d_r] -> [..., d_r]``, the relation that gives (t, h) the score that r gives (h, t). None if
        there is no such relation.
    """

    name: str
    query: Callable
    match: Callable
    pair: Callable
    moduli: Callable
    relation_width: Callable[[int, int], int]
    linear: bool = True
    has_core: bool = False
    phases: bool = False
    reciprocal: Callable | None = None


def _dot_match(q: jax.Array, tails: jax.Array) -> jax.Array:
    return q @ tails.T


def _dot_pair(q: jax.Array, tails: jax.Array) -> jax.Array:
    return jnp.sum(q * tails, axis=-1)


def _distance_match(coordinates: Callable, modulus: Callable) -> Callable:
    """Make a function ``-sum_j modulus(q_j - t_j)`` for all pairs, computed a few coordinates j at a time.

    Args:
      coordinates: ``[B, d] -> p arrays [J, B]``; coordinate j consists of p reals.
      modulus: ``p arrays [B, C] -> [B, C]``.
    """

    def total_of(q: jax.Array, tails: jax.Array, step: int) -> jax.Array:
        pair = coordinates(q), coordinates(tails)
        count = len(pair[0][0])
        whole = count - count % step

        def rows(j):
            return jax.tree.map(lambda x: x[j], pair)

        # Recomputed in the backward pass, because the differences of all coordinates would not fit in memory.
        @jax.checkpoint
        def add(total, block):
            for u, v in block:
                total = total - modulus(*(x[:, None] - y[None, :] for x, y in zip(u, v, strict=True)))
            return total, None

        # Each coordinate of a pass is a separate array. XLA for CPU in jax 0.10 does not vectorise a loop that reads
        # several rows of one array.
        blocks = tuple(rows(slice(j, whole, step)) for j in range(step))
        total, _ = jax.lax.scan(add, jnp.zeros((len(q), len(tails)), q.dtype), blocks)
        return add(total, tuple(map(rows, range(whole, count))))[0]

    @jax.custom_vjp
    def match(q: jax.Array, tails: jax.Array) -> jax.Array:
        return total_of(q, tails, _COORDINATES_AT_ONCE)

    def forward(q, tails):
        return match(q, tails), (q, tails)

    def backward(saved, gradient):
        # One coordinate per pass, so its differences are still in the cache when they are summed over rows and columns.
        return jax.vjp(lambda q, tails: total_of(q, tails, 1), *saved)[1](gradient)

    match.defvjp(forward, backward)
    return match


def split_complex(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Split ``[..., d]`` into the real and the imaginary half, ``[..., d/2]`` each."""
    half = x.shape[-1] // 2
    return x[..., :half], x[..., half:]


def complex_moduli(x: jax.Array) -> jax.Array:
    """Compute the moduli ``|x_j|`` of the complex coordinates of ``[..., d]``: ``[..., d/2]``.

    The square root has no derivative at 0. A tiny constant under it keeps gradients finite for zero factors.
    """
    real, imaginary = split_complex(x)
    return jnp.sqrt(real**2 + imaginary**2 + 1e-18)


def _complex_coordinates(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    real, imaginary = split_complex(x)
    return real.T, imaginary.T


def _complex_modulus(real: jax.Array, imaginary: jax.Array) -> jax.Array:
    return jnp.sqrt(real**2 + imaginary**2 + 1e-18)


def _real_coordinates(x: jax.Array) -> tuple[jax.Array]:
    return (x.T,)


def distmult_query(head: jax.Array, relation: jax.Array, core: None = None) -> jax.Array:
    """Compute DistMult's query ``h * r``; the score is ``sum_j h_j r_j t_j`` (Yang et al., ICLR 2015).

    Args:
      head: ``[..., d]``.
      relation: ``[..., d]``.
      core: unused.

    Returns:
      ``[..., d]``.
    """
    return head * relation


def complex_query(head: jax.Array, relation: jax.Array, core: None = None) -> jax.Array:
    """Compute ComplEx's query ``h * r``; the score is ``Re(sum_j h_j r_j conj(t_j))`` (Trouillon et al., ICML 2016).

    Args:
      head: ``[..., d]``, d/2 complex coordinates.
      relation: ``[..., d]``, d/2 complex coordinates.
      core: unused.

    Returns:
      ``[..., d]``, d/2 complex coordinates.
    """
    h_real, h_imaginary = split_complex(head)
    r_real, r_imaginary = split_complex(relation)
    real = h_real * r_real - h_imaginary * r_imaginary
    imaginary = h_real * r_imaginary + h_imaginary * r_real
    return jnp.concatenate([real, imaginary], axis=-1)


def rotate_query(head: jax.Array, relation: jax.Array, core: None = None) -> jax.Array:
    """Compute RotatE's query ``h_j exp(i r_j)``, the head rotated by the relation's phases (Sun et al., ICLR 2019).

    Args:
      head: ``[..., d]``, d/2 complex coordinates.
      relation: ``[..., d/2]``, phases in radians.
      core: unused.

    Returns:
      ``[..., d]``, d/2 complex coordinates.
    """
    h_real, h_imaginary = split_complex(head)
    cosine, sine = jnp.cos(relation), jnp.sin(relation)
    real = h_real * cosine - h_imaginary * sine
    imaginary = h_real * sine + h_imaginary * cosine
    return jnp.concatenate([real, imaginary], axis=-1)


def rotate_pair(q: jax.Array, tails: jax.Array) -> jax.Array:
    """Compute RotatE's score ``-sum_j |h_j exp(i r_j) - t_j|`` row by row (Sun et al., ICLR 2019).

    Args:
      q: ``[..., d]``, from ``rotate_query``.
      tails: ``[..., d]``.

    Returns:
      ``[...]``.
    """
    return -jnp.sum(complex_moduli(q - tails), axis=-1)


def transe_query(head: jax.Array, relation: jax.Array, core: None = None) -> jax.Array:
    """Compute TransE's query ``h + r`` (Bordes et al., NeurIPS 2013).

    Args:
      head: ``[..., d]``.
      relation: ``[..., d]``.
      core: unused.

    Returns:
      ``[..., d]``.
    """
    return head + relation


def transe_pair(q: jax.Array, tails: jax.Array) -> jax.Array:
    """Compute TransE's score ``-||h + r - t||_1`` row by row (Bordes et al., NeurIPS 2013).

    Args:
      q: ``[..., d]``, from ``transe_query``.
      tails: ``[..., d]``.

    Returns:
      ``[...]``.
    """
    return -jnp.sum(jnp.abs(q - tails), axis=-1)


def tucker_query(head: jax.Array, relation: jax.Array, core: jax.Array) -> jax.Array:
    """Compute TuckER's query ``W x_1 r x_2 h``; the score is ``W x_1 r x_2 h x_3 t`` (Balazevic et al., EMNLP 2019).

    Args:
      head: ``[..., d]``.
      relation: ``[..., d_r]``.
      core: W ``[d_r, d, d]``.

    Returns:
      ``[..., d]``.
    """
    width = head.shape[-1]
    # Heads first: [B, d] x [d, d_r * d] is one matrix product. Relations first would make one matrix per row.
    mixed = jnp.einsum("...d,rde->...re", head, core).reshape(*head.shape[:-1], core.shape[0], width)
    return jnp.einsum("...r,...re->...e", relation, mixed)


def _conjugate(relation: jax.Array) -> jax.Array:
    real, imaginary = split_complex(relation)
    return jnp.concatenate([real, -imaginary], axis=-1)


_rotate_match = _distance_match(_complex_coordinates, _complex_modulus)
_transe_match = _distance_match(_real_coordinates, jnp.abs)


def _same(width: int, core_width: int) -> int:
    return width


_EVERY = (
    Score("complex", complex_query, _dot_match, _dot_pair, complex_moduli, _same, reciprocal=_conjugate),
    Score("distmult", distmult_query, _dot_match, _dot_pair, jnp.abs, _same, reciprocal=lambda relation: relation),
    Score(
        "rotate",
        rotate_query,
        _rotate_match,
        rotate_pair,
        complex_moduli,
        lambda d, core: d // 2,
        linear=False,
        phases=True,
        reciprocal=jnp.negative,
    ),
    Score("transe", transe_query, _transe_match, transe_pair, jnp.abs, _same, linear=False, reciprocal=jnp.negative),
    Score("tucker", tucker_query, _dot_match, _dot_pair, jnp.abs, lambda d, core: core, has_core=True),
)
SCORES: dict[str, Score] = {score.name: score for score in _EVERY}
