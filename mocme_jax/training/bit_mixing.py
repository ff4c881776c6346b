"""A hash function of 32-bit numbers."""

from __future__ import annotations

import jax
import numpy as np


def mixed(x: jax.Array) -> jax.Array:
    """Hash uint32 of any shape; each bit depends on all bits of ``x`` (MurmurHash3's finaliser, Appleby, 2011)."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x ^ (x >> shift)) * np.uint32(factor)
    return x ^ (x >> 16)
