"""MoCME: multi-modal knowledge graph completion with complementary modality experts, in JAX and Flax."""

import importlib

__version__ = "0.3.0"

# Looked up when they are asked for: to import the package is to import no JAX.
_LAZY = {"load": "mocme_jax.serving.run_loading"}


def __getattr__(name: str):
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
