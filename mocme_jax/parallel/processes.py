"""Several processes as one run, with JAX's multi-controller runtime."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mocme_jax.errors import UserError

# Seconds without a heartbeat after which a process counts as dead. JAX then ends the others, because they cannot
# continue without its devices.
HEARTBEAT = 30


@contextlib.contextmanager
def joined(coordinator: str | None, count: int, process: int) -> Iterator[None]:
    """Join the other processes of a run for the time of a ``with`` block. Enter it before JAX is used.

    Args:
      coordinator: HOST:PORT of process 0; ``auto`` to detect SLURM, a TPU pod, Kubernetes or MPI; None for one process.
      count: the number of processes; ignored for ``auto``.
      process: the number of this process, from 0; ignored for ``auto``.

    Raises:
      UserError: the address is malformed, or the processes cannot be joined.
    """
    if coordinator is None:
        yield
        return
    arguments: dict[str, Any] = {}
    if coordinator != "auto":
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdigit():
            raise UserError(f"parallel.coordinator {coordinator!r}: expected HOST:PORT, auto, or nothing")
        if process >= count:
            raise UserError(f"parallel.process is {process}, but the {count} processes are numbered from 0")
        arguments = dict(coordinator_address=coordinator, num_processes=count, process_id=process)
    import jax

    try:
        jax.distributed.initialize(**arguments, heartbeat_timeout_seconds=HEARTBEAT)
    except (RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        raise UserError(f"parallel.coordinator {coordinator}: the processes cannot be joined ({reason})") from error
    try:
        yield
    except KeyboardInterrupt:
        # An orderly shutdown would wait for the other processes, which may have ended already.
        print("interrupted", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(130)
    jax.distributed.shutdown()


def everyone(values: Sequence[int]) -> np.ndarray:
    """All-gather one list of numbers per process: int ``[processes, n]``.

    All processes must call it at the same point.
    """
    import jax

    if jax.process_count() == 1:
        return np.array([values], np.int32)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(np.array(values, np.int32)))


def all_rows(rows: np.ndarray) -> np.ndarray:
    """All-gather the rows ``[n, ...]`` of all processes, in the order of the processes; n may differ.

    64-bit integers keep all their bits.
    """
    import jax

    if jax.process_count() == 1:
        return rows
    from jax.experimental import multihost_utils

    # As bytes, because JAX would truncate 64-bit numbers to 32 bits.
    data = np.frombuffer(rows.tobytes(), np.uint8)
    lengths = everyone([len(data)])[:, 0]
    filled = np.pad(data, (0, lengths.max() - len(data)))
    everyones = np.asarray(multihost_utils.process_allgather(filled)).reshape(len(lengths), -1)
    parts = [part[:length].tobytes() for part, length in zip(everyones, lengths, strict=True)]
    return np.frombuffer(b"".join(parts), rows.dtype).reshape(-1, *rows.shape[1:])
