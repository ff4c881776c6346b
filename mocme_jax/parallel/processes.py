"""Several processes as one run, with JAX's multi-controller runtime."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mocme_jax.errors import UserError
from mocme_jax.parallel.meeting import meet

# Seconds without a heartbeat after which a process counts as dead. JAX then ends the others, because they cannot
# continue without its devices.
HEARTBEAT = 30
# Seconds for JAX to connect processes that have met already and may import packages from a slow file system.
INITIALIZATION = 120


class Place(NamedTuple):
    """The place of a process in a run: the arguments of ``jax.distributed.initialize``."""

    coordinator_address: str
    num_processes: int
    process_id: int
    local_device_ids: Sequence[int] | None
    coordinator_bind_address: str | None


def met(coordinator: str | None, count: int, process: int, *, seconds: float, run: str) -> Place | None:
    """Wait for the other processes of a run, and return the place of this one; None if it is alone.

    Args:
      coordinator: HOST:PORT of process 0; ``auto`` to detect SLURM, a TPU pod, Kubernetes or MPI; None for one process.
      count: the number of processes; ignored for ``auto``.
      process: the number of this process, from 0; ignored for ``auto``.
      seconds: the longest time to wait for the other processes.
      run: what all processes of the run have in common; see ``meet``.

    Raises:
      UserError: the address is malformed, or the processes cannot meet.
    """
    if coordinator is None:
        return None
    devices = None
    if coordinator == "auto":
        coordinator, count, process, devices = _detected(seconds)
    bind = meet(coordinator, count, process, seconds=seconds, run=run)
    return Place(coordinator, count, process, devices, bind or None)


@contextlib.contextmanager
def joined(place: Place | None) -> Iterator[int]:
    """Join the other processes of a run for the time of a ``with`` block, and give the number of this one.

    Enter it before JAX is used.

    Args:
      place: the result of ``met``.

    Raises:
      UserError: the processes cannot be joined.
    """
    if place is None:
        yield 0
        return
    import jax

    try:
        jax.distributed.initialize(
            **place._asdict(),
            # Otherwise JAX would take a single device per process wherever it finds SLURM or MPI.
            cluster_detection_method="deactivate",
            initialization_timeout=INITIALIZATION,
            heartbeat_timeout_seconds=HEARTBEAT,
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"parallel.coordinator {place.coordinator_address}: the processes cannot be joined ({_first_line(error)})"
        ) from error
    try:
        yield place.process_id
    except KeyboardInterrupt:
        # An orderly shutdown would wait for the other processes, which may have ended already.
        print("interrupted", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(130)
    jax.distributed.shutdown()


def _detected(seconds: float) -> tuple[str, int, int, Sequence[int] | None]:
    """Ask JAX for the coordinator, the number of processes, the number of this one, and its devices (None for all)."""
    from jax._src.clusters import ClusterEnv

    how = "give parallel.coordinator=HOST:PORT, parallel.processes and parallel.process instead of auto"
    try:
        found = ClusterEnv.auto_detect_unset_distributed_params(None, None, None, None, None, int(seconds))
    # Each kind of cluster is asked by code of its own, with whatever packages it needs.
    except Exception as error:
        reason = f"{type(error).__name__}: {_first_line(error)}"
        raise UserError(f"parallel.coordinator auto: the cluster cannot be asked ({reason}); {how}") from error
    coordinator, count, process, devices = found
    if coordinator is None or count is None or process is None:
        raise UserError(f"parallel.coordinator auto: no SLURM, TPU pod, Kubernetes or MPI was found here; {how}")
    return coordinator, count, process, devices


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200]


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
