"""The order of the training triples: a new shuffle every epoch, computed only for the requested positions.

A table of the order would be as long as the triples, on every device. A keyed permutation of the numbers below T needs
no table: a Feistel network permutes the numbers of a fixed number of bits, and numbers from T on are permuted again
until they are below T (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002).
"""

import jax
import jax.numpy as jnp
import numpy as np

# Luby and Rackoff need four rounds for pseudorandomness; this has twice as many.
_ROUNDS = 8
# With fewer bits, permutations of a few triples are visibly uneven (a test counts them).
_FEWEST_BITS = 6


def run_keys(key_data: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return a run's two PRNG keys from the key data in its state: for the order of epochs, and for other draws."""
    order_key, draw_key = jax.random.split(jax.random.wrap_key_data(key_data))
    return order_key, draw_key


def batch_rows(key: jax.Array, step: jax.Array, *, batch_size: int, triples: int) -> jax.Array:
    """Return the triples of a step, int32 ``[B]`` in [0, T); each occurs once per epoch.

    The last batch of an epoch is filled up from its start.

    Args:
      key: the key of the run's order.
      step: int32 scalar.
      batch_size: the batch size B.
      triples: the number of triples T.
    """
    steps = -(-triples // batch_size)
    first = (step % steps) * batch_size
    places = (first + jnp.arange(batch_size, dtype=jnp.int32)) % triples
    return shuffled(jax.random.fold_in(key, step // steps), places, triples)


def shuffled(key: jax.Array, places: jax.Array, size: int) -> jax.Array:
    """Return a random permutation of ``[0, size)`` at the positions ``[n]``: int32 ``[n]``; size is below 2^31."""
    bits = max((size - 1).bit_length(), _FEWEST_BITS)
    low, high = bits // 2, bits - bits // 2
    keys = jax.random.bits(key, (_ROUNDS,), jnp.uint32)

    def permuted(value):
        """Permute numbers of ``bits`` bits: each half in turn is changed by a function of the other (invertible)."""
        left, right = value >> low, value & ((1 << low) - 1)
        for i in range(0, _ROUNDS, 2):
            left = left ^ (mixed(right ^ keys[i]) & ((1 << high) - 1))
            right = right ^ (mixed(left ^ keys[i + 1]) & ((1 << low) - 1))
        return (left << low) | right

    start = permuted(places.astype(jnp.uint32))
    outside = lambda value: jnp.any(value >= size)  # noqa: E731
    inside = jax.lax.while_loop(outside, lambda value: jnp.where(value < size, value, permuted(value)), start)
    return inside.astype(jnp.int32)


def mixed(x: jax.Array) -> jax.Array:
    """Hash uint32 of any shape; each bit depends on all bits of ``x`` (MurmurHash3's finaliser, Appleby, 2011)."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x ^ (x >> shift)) * np.uint32(factor)
    return x ^ (x >> 16)
