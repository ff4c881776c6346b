"""Mutual information between the parts of an entity, estimated on a panel of entities.

A part is a vector: a view of a modality, or a modality. Every estimator has the signature
``(parts [P, c, r], present [P, c], parameters) -> [c, c]``: entry (i, j) estimates MI(x_i; x_j) in nats over the
panel's entities that have both parts. The diagonal is not meaningful, but finite.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# exp(critic) of a cosine in [-1, 1]: sharp enough to tell entities of a panel apart.
_CRITIC_SCALE = 8.0


def _panel_count(present: jax.Array) -> jax.Array:
    return jnp.maximum(jnp.sum(present, axis=0), 1).astype(jnp.float32)


def _unit(x: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-12)


def infonce(parts: jax.Array, present: jax.Array, parameters: dict | None = None) -> jax.Array:
    """InfoNCE: mean of critic(x_i, x_j) - log mean over the panel of exp critic(x_i, x_j') (van den Oord et al., 2018).

    A lower bound of MI, and at most log P. The critic is a scaled cosine, or bilinear if ``parameters`` holds
    ``bilinear [c, c, r, r]``.
    """
    return _panel_mean(_infonce(parts, present, parameters or {}), present)


def _infonce(parts: jax.Array, present: jax.Array, parameters: dict) -> jax.Array:
    """The terms of the mean, ``[P, c, c]``."""
    own = _unit(parts)
    known = present.T.astype(own.dtype)
    if "bilinear" in parameters:
        # Learned on top of the cosine, so that it starts as the untrained critic.
        turned = own[:, :, None, :] + jnp.einsum("nir,ijrs->nijs", own, parameters["bilinear"])
        joint = _CRITIC_SCALE * jnp.einsum("nijs,njs->nij", turned, own)
        marginal = _CRITIC_SCALE * jnp.einsum("nijs,pjs->nijp", turned, own)
        top = jax.lax.stop_gradient(jnp.maximum(jnp.max(marginal, axis=-1), joint))
        total = jnp.sum(known * jnp.exp(marginal - top[..., None]), axis=-1)
    else:
        joint = _CRITIC_SCALE * jnp.einsum("nir,njr->nij", own, own)
        # A cosine is at most 1, so this maximum is known beforehand and saves a pass over [P, c, c, P].
        top = jnp.full_like(joint, _CRITIC_SCALE)
        n, c, r = own.shape
        marginal = _CRITIC_SCALE * (own.reshape(n * c, r) @ jnp.swapaxes(own, 0, 1).reshape(-1, r).T)
        total = jnp.sum(known * jnp.exp(marginal.reshape(n, c, c, -1) - _CRITIC_SCALE), axis=-1)
    # The entity itself joins the sum: no value then exceeds log P.
    total = total + jnp.exp(joint - top)
    return joint - top - jnp.log(total) + jnp.log(_panel_count(present))


def club(parts: jax.Array, present: jax.Array, parameters: dict) -> jax.Array:
    """CLUB: mean of log q(x_j | x_i) - mean over the panel of log q(x_j' | x_i) (Cheng et al., ICML 2020).

    q is a diagonal Gaussian. The panel's mean needs only its first two moments: E (x' - m)^2 = (E x' - m)^2 + Var x'.
    Once q fits, the estimate is an upper bound of MI.
    """
    mean, log_variance = conditional_gaussian(parts, parameters)
    count = _panel_count(present)[:, None]
    known = present[:, :, None]
    centre = jnp.sum(jnp.where(known, parts, 0), axis=0) / count
    spread = jnp.sum(jnp.where(known, (parts - centre) ** 2, 0), axis=0) / count
    own = (parts[:, None, :, :] - mean) ** 2
    others = (centre[None, None] - mean) ** 2 + spread[None, None]
    return _panel_mean(0.5 * jnp.sum((others - own) * jnp.exp(-log_variance), axis=-1), present)


def conditional_gaussian(parts: jax.Array, parameters: dict) -> tuple[jax.Array, jax.Array]:
    """Mean and log variance of q(x_j | x_i), each ``[P, c, c, r]``: a linear map plus one hidden layer.

    ``parameters``: ``linear [c, c, r, r]``, ``inner [c, c, r, h]``, ``mean [c, c, h, r]``, ``spread [c, c, h, r]`` and
    ``bias [c, c, 2, r]``.
    """
    hidden = jnp.tanh(jnp.einsum("nir,ijrh->nijh", parts, parameters["inner"]))
    mean = jnp.einsum("nir,ijrs->nijs", parts, parameters["linear"])
    mean = mean + jnp.einsum("nijh,ijhs->nijs", hidden, parameters["mean"]) + parameters["bias"][:, :, 0]
    log_variance = jnp.einsum("nijh,ijhs->nijs", hidden, parameters["spread"]) + parameters["bias"][:, :, 1]
    # Bounded, so that one confident mistake can't make the fit diverge.
    return mean, jnp.clip(log_variance, -8.0, 8.0)


def gaussian(parts: jax.Array, present: jax.Array, parameters: dict | None = None) -> jax.Array:
    """Closed form under a joint Gaussian: log (det C_i det C_j / det C_ij) / 2.

    C is the covariance ``[2r, 2r]`` over the entities that have both parts, shrunk towards its diagonal as if 2r more
    entities with uncorrelated coordinates had been seen. The diagonal of the result is 0.
    """
    del parameters
    parts, present = jnp.asarray(parts), jnp.asarray(present)
    kind, r, c = parts.dtype, parts.shape[-1], parts.shape[1]
    # No elimination in less.
    parts = parts.astype(jnp.float32)
    first, second = np.triu_indices(c, 1)

    def one(i: jax.Array, j: jax.Array) -> jax.Array:
        covariance = _shrunk_covariance(parts[:, i], parts[:, j], present[:, i] & present[:, j])
        blocks = jnp.stack([covariance[:r, :r], covariance[r:, r:]])
        return 0.5 * (jnp.sum(jax.vmap(_log_determinant)(blocks)) - _log_determinant(covariance))

    values = jax.vmap(one)(jnp.asarray(first), jnp.asarray(second))
    upper = jnp.zeros((c, c)).at[first, second].set(values)
    return (upper + upper.T).astype(kind)


def _log_determinant(covariance: jax.Array) -> jax.Array:
    """Log det C by Gaussian elimination.

    The libraries' factorisations, once batched (over pairs, over seeds), share out their work on the CPU among threads
    that the other operations of a step may all be holding; a training then stands still for good (jaxlib 0.10).
    """
    place = jnp.arange(len(covariance))

    def one(i, carry):
        rest, log_determinant = carry
        row, column = rest[i], rest[:, i]
        pivot = row[i]
        rest = rest - jnp.where(place > i, column / pivot, 0)[:, None] * row
        return rest, log_determinant + jnp.log(pivot)

    return jax.lax.fori_loop(0, len(covariance), one, (covariance, jnp.zeros((), covariance.dtype)))[1]


def _shrunk_covariance(x: jax.Array, y: jax.Array, both: jax.Array) -> jax.Array:
    """Shrunk covariance ``[2r, 2r]`` of joined parts ``[P, r]``, over entities that have both."""
    both = both[:, None]
    joined = jnp.where(both, jnp.concatenate([x, y], axis=-1), 0)
    width = joined.shape[1]
    count = jnp.maximum(jnp.sum(both), 1).astype(x.dtype)
    centre = jnp.sum(joined, axis=0) / count
    offset = jnp.where(both, joined - centre, 0)
    covariance = jnp.matmul(offset.T, offset, precision="highest") / count
    diagonal = jnp.diag(jnp.diag(covariance) + 1e-6)
    share = width / (width + count)
    return (1 - share) * covariance + share * diagonal + 1e-6 * jnp.eye(width, dtype=x.dtype)


def infonce_fit(parts: jax.Array, present: jax.Array, parameters: dict) -> jax.Array:
    """Loss of a bilinear critic: minus the bound it reaches, a mean over the present pairs i != j."""
    return -_pair_mean(_infonce(parts, present, parameters), present)


def club_fit(parts: jax.Array, present: jax.Array, parameters: dict) -> jax.Array:
    """Negative log-likelihood of x_j under q(. | x_i), a mean over the present pairs i != j."""
    mean, log_variance = conditional_gaussian(parts, parameters)
    own = (parts[:, None, :, :] - mean) ** 2
    values = 0.5 * jnp.mean(own * jnp.exp(-log_variance) + log_variance, axis=-1)
    return _pair_mean(values, present)


def _panel_mean(values: jax.Array, present: jax.Array) -> jax.Array:
    """The mean ``[c, c]`` of terms ``[P, c, c]`` over the entities that have both parts."""
    both = present[:, :, None] & present[:, None, :]
    return jnp.sum(jnp.where(both, values, 0), axis=0) / jnp.maximum(jnp.sum(both, axis=0), 1)


def other_pairs(present: jax.Array) -> jax.Array:
    """Bool ``[n, c, c]``: pairs i != j whose parts are both present, from ``[n, c]``."""
    different = ~jnp.eye(present.shape[1], dtype=bool)
    return present[:, :, None] & present[:, None, :] & different[None]


def _pair_mean(values: jax.Array, present: jax.Array) -> jax.Array:
    """Mean over entities of the mean over each one's present pairs of ``[P, c, c]``."""
    pairs = other_pairs(present)
    own = jnp.sum(jnp.where(pairs, values, 0), axis=(1, 2)) / jnp.maximum(jnp.sum(pairs, axis=(1, 2)), 1)
    return jnp.mean(own)


def init_club(key: jax.Array, parts: int, width: int) -> dict:
    """Parameters of ``conditional_gaussian`` for c = parts and h = r = width: mean 0 and variance 1 at the start."""
    square = (parts, parts, width, width)
    return {
        "linear": jnp.zeros(square),
        "inner": jax.random.normal(key, square) / jnp.sqrt(width),
        "mean": jnp.zeros(square),
        "spread": jnp.zeros(square),
        "bias": jnp.zeros((parts, parts, 2, width)),
    }


def init_bilinear(key: jax.Array, parts: int, width: int) -> dict:
    """Parameters of the bilinear critic: zero, so that it starts as the untrained cosine."""
    del key
    return {"bilinear": jnp.zeros((parts, parts, width, width))}


class Estimator(NamedTuple):
    """A way to estimate mutual information.

    Attributes:
      information: ``(parts [P, c, r], present [P, c], parameters) -> [c, c]``, in nats.
      init: ``(key, c, r) -> parameters``; None for an estimator that learns nothing.
      fit: ``(parts, present, parameters) -> scalar``, the loss that fits the parameters; None as well.
    """

    information: Callable[[jax.Array, jax.Array, dict], jax.Array]
    init: Callable[[jax.Array, int, int], dict[str, Any]] | None = None
    fit: Callable[[jax.Array, jax.Array, dict], jax.Array] | None = None


ESTIMATORS: dict[str, Estimator] = {
    "infonce": Estimator(infonce),
    "infonce_bilinear": Estimator(infonce, init_bilinear, infonce_fit),
    "club": Estimator(club, init_club, club_fit),
    "gaussian": Estimator(gaussian),
}
