"""The folder in which compiled programs are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path

import jax


def use_compilation_cache() -> None:
    """Keep compiled programs in the user's cache folder, unless JAX is configured with another one.

    Only its owner can access the folder, because the files in it are code that will be run.
    """
    if jax.config.jax_compilation_cache_dir is not None:  # type: ignore[attr-defined]
        return
    root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mocme_jax" / "compiled"
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        # If the folder cannot be written, programs are compiled again in every run.
        return
    jax.config.update("jax_compilation_cache_dir", str(root))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
