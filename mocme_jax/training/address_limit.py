"""A limit of addresses, as ``ulimit -v`` sets it: told of before the first device, for XLA would end the process."""

from __future__ import annotations

import resource

from mocme_jax.errors import UserError

LEAST = 2 << 30
"""Bytes of addresses that JAX's libraries and threads map for the smallest of models; most are never touched."""


def check_addresses() -> None:
    """Passes where the process may map what JAX needs.

    Raises:
      UserError: it may not; a thread that can't be started ends the process inside XLA, where nobody can tell why.
    """
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < LEAST:
        raise UserError(
            f"the process may map {limit / 1e9:.1f} GB of addresses, and JAX maps at least {LEAST / 1e9:.1f} GB, most "
            "of it never touched; lift the limit with ulimit -v unlimited"
        )
