"""What comes before JAX is used: a check of the address space limit, and the folder of compiled programs."""

import os
import resource
from pathlib import Path

import jax

from mocme_jax.errors import UserError

LEAST = 2 << 30
"""Bytes of address space that JAX's libraries and threads map for the smallest models; most are never touched."""


def prepare_jax() -> None:
    """Check the limit of addresses, and keep compiled programs in the user's cache folder.

    Only its owner can access the folder, because the files in it are code that will be run. If JAX is configured with
    another folder, that one is used.

    Raises:
      UserError: see ``check_addresses``.
    """
    check_addresses()
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


def check_addresses() -> None:
    """Check that the process may map the address space that JAX needs (``ulimit -v``).

    Raises:
      UserError: it may not. Without this check, a thread that cannot start would end the process inside XLA, which
        gives no reason.
    """
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < LEAST:
        raise UserError(
            f"the address space is limited to {limit / 1e9:.1f} GB, but JAX maps at least {LEAST / 1e9:.1f} GB (most "
            "of it is never used); lift the limit with ulimit -v unlimited"
        )
