"""What a device can do at most: its largest matrix product rate and its copy bandwidth, as measured."""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mocme_jax.training.objective import PRODUCTS

# Square products of these sizes; the fastest counts.
_SIZES = (1024, 2048, 4096)
# A product that takes longer than this is the last one tried, in seconds.
_PATIENCE = 1.5
_COPIED_BYTES = 256 << 20


class Calibration(NamedTuple):
    """Limits of one device.

    Attributes:
      flops: floating point operations a second of the fastest product.
      bytes: bytes read and written a second while copying an array larger than any cache.
    """

    flops: float
    bytes: float

    def roofline(self, flops: float, moved: float) -> float:
        """The least seconds for so many operations and bytes: the longer of the two alone (Williams et al., 2009)."""
        return max(flops / self.flops, moved / self.bytes)


def calibrate(device: jax.Device, precision: str, repeats: int = 5) -> Calibration:
    """Measures a device.

    Args:
      device: to be idle otherwise. Where several devices share one chip, such as CPU devices, each alone has all of it.
      precision: a word of ``train.precision``; the product is in it.
      repeats: of each measurement; the best counts.
    """
    kind = jnp.bfloat16 if precision == "bfloat16" else jnp.float32
    best = 0.0
    for size in _SIZES:
        with jax.default_matmul_precision(PRODUCTS[precision]):
            square = jax.device_put(jnp.ones((size, size), kind), device)
            seconds = _quickest(jax.jit(jnp.matmul), (square, square), repeats)
        best = max(best, 2 * size**3 / seconds)
        if seconds > _PATIENCE:
            break
    array = jax.device_put(jnp.ones((_COPIED_BYTES // 4,), jnp.float32), device)
    # A copy that cannot be left out: one read and one write a number.
    seconds = _quickest(jax.jit(lambda x: x + 1), (array,), repeats)
    return Calibration(best, 2 * _COPIED_BYTES / seconds)


def _quickest(call: Callable, arguments: tuple, repeats: int) -> float:
    jax.block_until_ready(call(*arguments))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(call(*arguments))
        seconds.append(time.perf_counter() - start)
    return min(seconds)
