"""The class ``Checkpoints``: numbered checkpoints in a run's folder, in ``last/`` to resume and ``best/`` to evaluate.

The newest two of each are kept. There are two Orbax managers rather than one with a metric, which could delete the
newest checkpoint. A checkpoint holds ``state``, a pytree of arrays, and ``meta``, JSON that can be read before a model
is built. Saving is asynchronous and atomic: an interrupted save leaves a folder that is ignored and later removed. The
module ``sealed_checkpoints`` checks that a checkpoint has not changed since it was saved.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import math
import operator
import os
import sys
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp

from mocme_jax.data.readers.json_file import read_json
from mocme_jax.data.whole_files import flush_folder, flush_tree
from mocme_jax.errors import UserError
from mocme_jax.training.checkpoints.checkpoint_files import (
    Unreadable,
    check_kinds,
    check_sizes,
    refuse_what_is_not_ours,
)
from mocme_jax.training.checkpoints.checksums import arrays_by_path, is_table
from mocme_jax.training.checkpoints.run_folder import unwritable

Which = Literal["last", "best"]
NAMES: tuple[Which, ...] = ("last", "best")
KEPT = 2


def open_checkpoints(workdir: str | os.PathLike, *, create: bool = True) -> Checkpoints:
    """Open the checkpoints in a run's folder.

    Args:
      workdir: the folder; relative paths start at the current folder.
      create: create missing folders, and remove what interrupted saves left. If False, nothing is written.

    Raises:
      UserError: there are no checkpoints and ``create`` is False, or the folder holds what no checkpoint does; see
        ``check_kinds``.
    """
    folder = Path(workdir).expanduser().absolute()
    places = [folder / name for name in NAMES if os.path.lexists(folder / name)]
    if not create and not places:
        raise UserError(f"{folder}: contains no checkpoint; train there first, or correct --workdir")
    if create:
        refuse_what_is_not_ours([folder / name for name in NAMES])
    for place in places:
        check_kinds(place)
    _silence()
    return Checkpoints(folder, create)


@functools.cache
def _silence() -> None:
    """Hide Orbax's log of its options, and of errors that it also raises."""
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    # If several parts of a save fail, one error is raised and the others are "never retrieved".
    logging.getLogger("asyncio").addFilter(lambda record: "exception was never retrieved" not in record.getMessage())
    told = sys.unraisablehook

    def tell(unraisable: Any) -> None:
        # Failed storage calls back an event loop that ended with the save.
        late = isinstance(unraisable.exc_value, RuntimeError) and "Event loop is closed" in str(unraisable.exc_value)
        # If one part of a checkpoint cannot be read, Orbax gives up reading the others, and each complains of that.
        code = getattr(unraisable.object, "cr_code", None)
        if not (late or (code is not None and f"{os.sep}orbax{os.sep}" in code.co_filename)):
            told(unraisable)

    sys.unraisablehook = tell


class Checkpoints:
    """Saves, reads and deletes checkpoints; a context manager that waits for its saves.

    Arrays are copied before ``save`` returns, so they may be donated, and are written in the background. If a save
    cannot be written, that call or the next that waits for it raises a UserError.
    """

    def __init__(self, folder: Path, create: bool):
        self.folder = folder
        self._create = create
        self._managers: dict[Which, ocp.CheckpointManager] = {}
        # Folders with saves whose names may not be on disk yet.
        self._unflushed: set[Which] = set()

    def save(self, which: Which, number: int, state: Any, meta: dict) -> None:
        """Save a checkpoint in the background. When it is complete, the oldest is deleted if there are more than two.

        Args:
          which: ``last`` or ``best``.
          number: the number of the checkpoint, higher than all existing ones.
          state: a pytree of arrays.
          meta: a value for JSON.
        """
        if not self._create:
            raise ValueError(f"{self.folder} was opened with create=False, for reading only")
        manager = self._manager(which)
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        self._unflushed.add(which)
        try:
            saved = manager.save(number, args=args)
        except Exception as error:
            raise self._unwritable(which, error) from error
        if not saved:
            raise RuntimeError(f"{self.folder / which}: Orbax did not save {number}, after {manager.all_steps()}")

    def numbers(self, which: Which) -> list[int]:
        """Return the numbers of the checkpoints, oldest first, after pending saves are complete."""
        if not self._create and not (self.folder / which).is_dir():
            return []
        self.wait()
        return sorted(self._manager(which).all_steps())

    def read_meta(self, which: Which, number: int) -> dict:
        """Read the JSON of a checkpoint without reading arrays.

        Raises:
          Unreadable: it cannot be read.
        """
        path = self.folder / which / str(number) / "meta" / "metadata"
        try:
            meta = read_json(path)
        except UserError as error:
            raise Unreadable(str(error)) from error
        if not isinstance(meta, dict):
            raise Unreadable(f"{path} does not contain a mapping")
        return meta

    def restore(self, which: Which, number: int, target: Any, table: tuple[str, int] | None = None) -> Any:
        """Read a saved state.

        Args:
          which: ``last`` or ``best``.
          number: the number of the checkpoint.
          target: a pytree of arrays or ``jax.ShapeDtypeStruct`` with the structure of the state. Arrays are placed by
            their shardings; those without one go to the first local device.
          table: a name and a number of rows. Arrays with that name in their path may have been saved with another
            number of rows, at least as many. The additional rows are padding, which is cut off or filled up with zeros.

        Raises:
          Unreadable: it cannot be read, or its arrays are not those of ``target``.
        """
        home = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

        def describe(leaf):
            sharding = getattr(leaf, "sharding", None) or home
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

        target = jax.tree.map(describe, target)
        check_sizes(
            self.folder / which / str(number),
            sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(target)),
        )
        manager = self._manager(which)
        try:
            saved = manager.item_metadata(number)["state"]
            saved = getattr(saved, "tree", saved)
            # Checked here, because Orbax would print every array of both trees.
            difference = first_difference(saved, target, table) or _larger_chunk(saved)
            if difference is None:
                wanted = ocp.args.StandardRestore(target, strict=table is None)
                return manager.restore(number, args=ocp.args.Composite(state=wanted)).state
        except Exception as error:
            # Corrupt files can cause any exception in the libraries.
            raise Unreadable(_reason(error)) from error
        raise Unreadable(f"it is of another model or version of this program: {difference}")

    def delete(self, which: Which, number: int) -> None:
        """Delete a checkpoint, readable or not."""
        try:
            self._manager(which).delete(number)
        except OSError as error:
            raise self._unwritable(which, error) from error

    def wait(self) -> None:
        """Wait until every save is on disk and would survive a power cut."""
        for which, manager in self._managers.items():
            try:
                manager.wait_until_finished()
                if which in self._unflushed:
                    flush_tree(self.folder / which)
                    self._unflushed.discard(which)
            except Exception as error:
                raise self._unwritable(which, error) from error

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type | None, *_: Any) -> None:
        try:
            self.wait()
        except UserError:
            # An error that ended the block has priority.
            if kind is None:
                raise
        finally:
            for manager in self._managers.values():
                # A failed save, which `wait` has reported, fails here again.
                with contextlib.suppress(Exception):
                    manager.close()
            self._managers.clear()

    def _manager(self, which: Which) -> ocp.CheckpointManager:
        if which not in self._managers:
            folder, create = self.folder / which, self._create
            # TensorStore flushes the arrays, but not Orbax's other files and all file names. This happens before
            # a checkpoint is renamed to its number, and before the oldest is deleted.
            written = functools.partial(_flush_and_release, folder) if create else None
            options = ocp.CheckpointManagerOptions(
                max_to_keep=KEPT,
                create=create,
                cleanup_tmp_directories=create,
                read_only=not create,
                async_options=ocp.AsyncOptions(post_finalization_callback=written),
                # Otherwise each checkpoint's own timestamp would be read and trusted.
                lightweight_initialize=True,
            )
            handlers = {"state": ocp.StandardCheckpointHandler(), "meta": ocp.JsonCheckpointHandler()}
            try:
                self._managers[which] = ocp.CheckpointManager(folder, options=options, item_handlers=handlers)
                if create:
                    flush_folder(self.folder)
            except OSError as error:
                raise self._unwritable(which, error) from error
        return self._managers[which]

    def _unwritable(self, which: Which, error: Exception) -> UserError:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__cause__ or cause.__context__
        return unwritable(self.folder / which, cause or error)


def _flush_and_release(folder: Path) -> None:
    """Return once a folder is on disk, and give the memory of the save back to the system.

    The C library of Linux keeps freed memory in one heap per thread. Without this, a process that saved a state five
    times held one and a half times the state for nothing. Other systems have no such function.
    """
    flush_tree(folder)
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _larger_chunk(saved: Any) -> str | None:
    """Describe the first array whose chunks claim to be larger than the array, because a chunk is read as a whole."""
    for path, leaf in arrays_by_path(saved).items():
        pieces = leaf.storage.chunk_shape
        if len(pieces) != len(leaf.shape) or any(map(operator.gt, pieces, [max(size, 1) for size in leaf.shape])):
            return f"{path} is {list(leaf.shape)} in chunks of {list(pieces)}"
    return None


def first_difference(saved: Any, target: Any, table: tuple[str, int] | None = None) -> str | None:
    """Describe the first path, shape or type in which two trees of arrays differ; None if they agree.

    Arrays of ``table``, a name in their path and a number of rows, may differ in their rows if both have at least as
    many.
    """

    def words(leaf):
        return f"{np.dtype(leaf.dtype)}{list(leaf.shape)}"

    def same(path, leaf, other):
        shapes = tuple(leaf.shape), tuple(other.shape)
        if is_table(path, leaf, table) and is_table(path, other, table):
            shapes = shapes[0][1:], shapes[1][1:]
        return shapes[0] == shapes[1] and leaf.dtype == other.dtype

    saved, target = arrays_by_path(saved), arrays_by_path(target)
    for path, leaf in target.items():
        if path not in saved:
            return f"it has no {path}, but the model has {words(leaf)}"
        if not same(path, saved[path], leaf):
            return f"{path} is {words(saved[path])} in it and {words(leaf)} in the model"
    extra = sorted(set(saved) - set(target))
    return f"it has {extra[0]}, which the model lacks" if extra else None
