"""A check of the address space limit (``ulimit -v``) before JAX starts, because XLA gives no reason when it fails."""

from __future__ import annotations

import resource

from mocme_jax.errors import UserError

LEAST = 2 << 30
"""Bytes of address space that JAX's libraries and threads map for the smallest models; most are never touched."""


def check_addresses() -> None:
    """Check that the process may map the address space that JAX needs.

    Raises:
      UserError: it may not. Without this check, a thread that cannot start would end the process inside XLA.
    """
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < LEAST:
        raise UserError(
            f"the address space is limited to {limit / 1e9:.1f} GB, but JAX maps at least {LEAST / 1e9:.1f} GB (most "
            "of it is never used); lift the limit with ulimit -v unlimited"
        )
