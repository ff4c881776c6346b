"""Pointwise mutual information between the parts of an entity, estimated against a panel.

A part is a vector (a view of a modality, or a fused modality). All estimators share one signature,
``(parts [n, c, r], panel [P, c, r], panel_present [P, c], parameters) -> [n, c, c]``: entry (e, i, j) is a pointwise
estimate whose mean over entities estimates MI(x_i; x_j) in nats. Expectations run over the panel, never over the
batch, so an entity's values depend on the entity and the parameters alone. The diagonal is MI with itself: finite,
and for the caller to ignore.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

# exp(critic) of a cosine in [-1, 1]: sharp enough to tell entities of a panel apart.
_CRITIC_SCALE = 8.0


def _panel_count(panel_present: jax.Array) -> jax.Array:
    return jnp.maximum(jnp.sum(panel_present, axis=0), 1).astype(jnp.float32)


def _unit(x: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-12)


def infonce(parts: jax.Array, panel: jax.Array, panel_present: jax.Array, parameters: dict) -> jax.Array:
    """InfoNCE: critic(x_i, x_j) - log mean over the panel of exp critic(x_i, x_j') (van den Oord et al., 2018).

    The entity itself joins the panel's sum, so a value is at most log P and the mean stays a lower bound of MI.
    The critic is a scaled cosine, or bilinear where ``parameters`` holds ``bilinear [c, c, r, r]``.

    Args:
      parts: ``[n, c, r]``.
      panel: ``[P, c, r]``.
      panel_present: bool ``[P, c]``.
      parameters: empty, or ``{"bilinear": [c, c, r, r]}``.
    """
    own, others = _unit(parts), _unit(panel)
    known = panel_present.T.astype(own.dtype)
    if "bilinear" in parameters:
        # Learned on top of the cosine, so that it starts as the untrained critic.
        turned = own[:, :, None, :] + jnp.einsum("nir,ijrs->nijs", own, parameters["bilinear"])
        joint = _CRITIC_SCALE * jnp.einsum("nijs,njs->nij", turned, own)
        marginal = _CRITIC_SCALE * jnp.einsum("nijs,pjs->nijp", turned, others)
        top = jax.lax.stop_gradient(jnp.maximum(jnp.max(marginal, axis=-1), joint))
        total = jnp.sum(known * jnp.exp(marginal - top[..., None]), axis=-1)
    else:
        joint = _CRITIC_SCALE * jnp.einsum("nir,njr->nij", own, own)
        # A cosine is at most 1, so this maximum is known beforehand and saves a pass over [n, c, c, P].
        top = jnp.full_like(joint, _CRITIC_SCALE)
        n, c, r = own.shape
        marginal = _CRITIC_SCALE * (own.reshape(n * c, r) @ jnp.swapaxes(others, 0, 1).reshape(-1, r).T)
        total = jnp.sum(known * jnp.exp(marginal.reshape(n, c, c, -1) - _CRITIC_SCALE), axis=-1)
    # The entity itself joins the sum: no value then exceeds log P.
    total = total + jnp.exp(joint - top)
    return joint - top - jnp.log(total) + jnp.log(_panel_count(panel_present))


def club(parts: jax.Array, panel: jax.Array, panel_present: jax.Array, parameters: dict) -> jax.Array:
    """CLUB: log q(x_j | x_i) - mean over the panel of log q(x_j' | x_i) (Cheng et al., ICML 2020).

    q is a diagonal Gaussian. The panel's mean needs only its first two moments: E (x' - m)^2 = (E x' - m)^2 + Var x'.
    Once q fits, the mean over entities is an upper bound of MI.
    """
    mean, log_variance = conditional_gaussian(parts, parameters)
    count = _panel_count(panel_present)[:, None]
    known = panel_present[:, :, None]
    centre = jnp.sum(jnp.where(known, panel, 0), axis=0) / count
    spread = jnp.sum(jnp.where(known, (panel - centre) ** 2, 0), axis=0) / count
    own = (parts[:, None, :, :] - mean) ** 2
    others = (centre[None, None] - mean) ** 2 + spread[None, None]
    return 0.5 * jnp.sum((others - own) * jnp.exp(-log_variance), axis=-1)


def conditional_gaussian(parts: jax.Array, parameters: dict) -> tuple[jax.Array, jax.Array]:
    """Mean and log variance of q(x_j | x_i), each ``[n, c, c, r]``: a linear map plus one hidden layer.

    ``parameters``: ``linear [c, c, r, r]``, ``inner [c, c, r, h]``, ``mean [c, c, h, r]``, ``spread [c, c, h, r]`` and
    ``bias [c, c, 2, r]``.
    """
    hidden = jnp.tanh(jnp.einsum("nir,ijrh->nijh", parts, parameters["inner"]))
    mean = jnp.einsum("nir,ijrs->nijs", parts, parameters["linear"])
    mean = mean + jnp.einsum("nijh,ijhs->nijs", hidden, parameters["mean"]) + parameters["bias"][:, :, 0]
    log_variance = jnp.einsum("nijh,ijhs->nijs", hidden, parameters["spread"]) + parameters["bias"][:, :, 1]
    # Bounded, so that one confident mistake can't make the fit diverge.
    return mean, jnp.clip(log_variance, -8.0, 8.0)


def gaussian(parts: jax.Array, panel: jax.Array, panel_present: jax.Array, parameters: dict) -> jax.Array:
    """Closed form under a joint Gaussian: log N(x_i, x_j) - log N(x_i) - log N(x_j).

    Moments come from the panel entities that have both parts. The covariance ``[2r, 2r]`` is shrunk towards its
    diagonal as if 2r more entities with uncorrelated coordinates had been seen.
    """
    del parameters
    n, c, r = parts.shape
    kind = parts.dtype
    # No factorisation in less.
    parts, panel = parts.astype(jnp.float32), panel.astype(jnp.float32)

    def pair(i: jax.Array, j: jax.Array) -> jax.Array:
        centre, covariance = _moments(panel[:, i], panel[:, j], panel_present[:, i] & panel_present[:, j])
        own = jnp.concatenate([parts[:, i], parts[:, j]], axis=-1) - centre
        halves = [(slice(None, r), own[:, :r]), (slice(r, None), own[:, r:])]
        separate = sum(_log_normal(x, covariance[s, s]) for s, x in halves)
        return _log_normal(own, covariance) - separate

    first, second = jnp.meshgrid(jnp.arange(c), jnp.arange(c), indexing="ij")
    values = jax.lax.map(lambda ij: pair(ij[0], ij[1]), (first.ravel(), second.ravel()))
    return jnp.moveaxis(values.reshape(c, c, n), -1, 0).astype(kind)


def gaussian_mean(panel: jax.Array, panel_present: jax.Array) -> jax.Array:
    """MI ``[c, c]`` of a panel's parts ``[P, c, r]`` under a joint Gaussian: log (det C_i det C_j / det C_ij) / 2.

    C is the shrunk covariance of ``gaussian``, of which this is the mean but for what shrinking does to it. The
    diagonal, which is for nobody to read, is 0.
    """
    kind, r, c = panel.dtype, panel.shape[-1], panel.shape[1]
    panel = panel.astype(jnp.float32)
    first, second = np.triu_indices(c, 1)

    def one(i: jax.Array, j: jax.Array) -> jax.Array:
        _, covariance = _moments(panel[:, i], panel[:, j], panel_present[:, i] & panel_present[:, j])
        parts = jnp.stack([covariance[:r, :r], covariance[r:, r:]])
        separate = jax.vmap(lambda part: _eliminated(part, jnp.zeros((0, r)))[1])(parts)
        return 0.5 * (jnp.sum(separate) - _eliminated(covariance, jnp.zeros((0, 2 * r)))[1])

    values = jax.vmap(one)(jnp.asarray(first), jnp.asarray(second))
    upper = jnp.zeros((c, c)).at[first, second].set(values)
    return (upper + upper.T).astype(kind)


def _eliminated(covariance: jax.Array, rows: jax.Array) -> tuple[jax.Array, jax.Array]:
    """X' C^-1 x of rows ``[n, k]``, and log det C, by Gaussian elimination of (C, rows').

    The libraries' factorisations, once batched (over pairs, over seeds), share out their work on the CPU among threads
    that the other operations of a step may all be holding; a training then stands still for good (jaxlib 0.10).
    """
    k = len(covariance)
    place = jnp.arange(k)

    def one(i, carry):
        rest, quadratic, log_determinant = carry
        row, column = rest[i], rest[:, i]
        pivot = row[i]
        rest = rest - jnp.where(place > i, column / pivot, 0)[:, None] * row
        return rest, quadratic + row[k:] ** 2 / pivot, log_determinant + jnp.log(pivot)

    joined = jnp.concatenate([covariance, rows.T], axis=1)
    start = joined, jnp.zeros((len(rows),), joined.dtype), jnp.zeros((), joined.dtype)
    _, quadratic, log_determinant = jax.lax.fori_loop(0, k, one, start)
    return quadratic, log_determinant


def _moments(x: jax.Array, y: jax.Array, both: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Centre ``[2r]`` and shrunk covariance ``[2r, 2r]`` of joined parts ``[P, r]``, over entities that have both."""
    both = both[:, None]
    joined = jnp.where(both, jnp.concatenate([x, y], axis=-1), 0)
    width = joined.shape[1]
    count = jnp.maximum(jnp.sum(both), 1).astype(x.dtype)
    centre = jnp.sum(joined, axis=0) / count
    offset = jnp.where(both, joined - centre, 0)
    covariance = jnp.matmul(offset.T, offset, precision="highest") / count
    diagonal = jnp.diag(jnp.diag(covariance) + 1e-6)
    share = width / (width + count)
    return centre, (1 - share) * covariance + share * diagonal + 1e-6 * jnp.eye(width, dtype=x.dtype)


def _log_normal(x: jax.Array, covariance: jax.Array) -> jax.Array:
    """Log N(x; 0, covariance) without its 2 pi term, which cancels between joint and marginals. ``[n, k] -> [n]``."""
    quadratic, log_determinant = _eliminated(covariance, x)
    return -0.5 * (quadratic + log_determinant)


def infonce_fit(parts: jax.Array, panel: jax.Array, panel_present: jax.Array, present: jax.Array, parameters: dict):
    """Loss of a bilinear critic: minus the bound it reaches, a mean over the present pairs i != j."""
    values = infonce(parts, panel, panel_present, parameters)
    return -_pair_mean(values, present)


def club_fit(parts: jax.Array, panel: jax.Array, panel_present: jax.Array, present: jax.Array, parameters: dict):
    """Negative log-likelihood of x_j under q(. | x_i), a mean over the present pairs i != j."""
    mean, log_variance = conditional_gaussian(parts, parameters)
    own = (parts[:, None, :, :] - mean) ** 2
    values = 0.5 * jnp.mean(own * jnp.exp(-log_variance) + log_variance, axis=-1)
    return _pair_mean(values, present)


def panel_mean(pointwise: jax.Array, present: jax.Array) -> jax.Array:
    """MI of parts, ``[c, c]``: the mean of pointwise values ``[P, c, c]`` over the entities that have both parts.

    Args:
      pointwise: of a panel against itself.
      present: bool ``[P, c]``.
    """
    both = present[:, :, None] & present[:, None, :]
    return jnp.sum(jnp.where(both, pointwise, 0), axis=0) / jnp.maximum(jnp.sum(both, axis=0), 1)


def other_pairs(present: jax.Array) -> jax.Array:
    """Bool ``[n, c, c]``: pairs i != j whose parts are both present, from ``[n, c]``."""
    different = ~jnp.eye(present.shape[1], dtype=bool)
    return present[:, :, None] & present[:, None, :] & different[None]


def _pair_mean(values: jax.Array, present: jax.Array) -> jax.Array:
    """Mean over entities of each one's mean over its present pairs, so that equal shares of a batch average to it."""
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


def init_none(key: jax.Array, parts: int, width: int) -> dict:
    """No parameters."""
    del key, parts, width
    return {}


# name -> (estimator, initial parameters, fitting loss or None)
ESTIMATORS: dict[str, tuple[Callable, Callable, Callable | None]] = {
    "infonce": (infonce, init_none, None),
    "infonce_bilinear": (infonce, init_bilinear, infonce_fit),
    "club": (club, init_club, club_fit),
    "gaussian": (gaussian, init_none, None),
}
# What gives the mean over a panel without the values of its entities.
MEANS: dict[str, Callable] = {"gaussian": gaussian_mean}
