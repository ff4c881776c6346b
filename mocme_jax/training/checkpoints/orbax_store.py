"""The run's checkpoints in its folder, by number: `last/`, to go on from, and `best/`, to evaluate.

The newest two of each are kept. Two Orbax managers rather than one with a metric, which may delete the newest. A
checkpoint holds `state`, a pytree of arrays, and `meta`, JSON that can be read before any model is built. Saving is
asynchronous and atomic: a save that was cut off leaves a folder that is ignored and later removed. Whether one is still
what was saved is known to `sealed_checkpoints`.
"""

from __future__ import annotations

import contextlib
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
from mocme_jax.training.checkpoints.checkpoint_files import Unreadable, check_kinds, check_sizes
from mocme_jax.training.checkpoints.checksums import arrays_by_path, is_table
from mocme_jax.training.checkpoints.run_folder import unwritable, writing

Which = Literal["last", "best"]
NAMES: tuple[Which, ...] = ("last", "best")
KEPT = 2
# What a checkpoint has, some of it even if it is damaged.
_PARTS = ("meta", "state", "_CHECKPOINT_METADATA")


def open_checkpoints(workdir: str | os.PathLike, *, create: bool = True) -> Checkpoints:
    """The checkpoints under `workdir`, a relative path of the current folder.

    With `create`, missing folders are made, and what cut-off saves left is removed; without it nothing is written.

    Raises:
      UserError: without `create`, there are no checkpoints in it; or they hold what no checkpoint does, see
        ``check_kinds``.
    """
    folder = Path(workdir).expanduser().absolute()
    places = [folder / name for name in NAMES if os.path.lexists(folder / name)]
    if not create and not places:
        raise UserError(f"{folder}: holds no checkpoint; train there first, or mend --workdir")
    if create:
        _refuse_what_is_not_ours(folder)
    for place in places:
        check_kinds(place)
    _silence()
    return Checkpoints(folder, create)


def _refuse_what_is_not_ours(folder: Path) -> None:
    """Raises a UserError where opening the checkpoints to write could delete what this program did not make.

    Orbax takes every folder with a number for a name as a checkpoint, and deletes the oldest.
    """
    emptied: list[Path] = []
    for name in NAMES:
        place = folder / name
        if place.is_symlink():
            raise UserError(f"{place}: is a link; checkpoints are made and deleted there: remove the link")
        if not place.is_dir():
            continue
        for entry in sorted(place.iterdir()):
            if entry.name.isdigit() and not any((entry / part).exists() for part in _PARTS):
                if entry.is_dir() and not entry.is_symlink() and not any(entry.iterdir()):
                    emptied.append(entry)
                    continue
                raise UserError(
                    f"{entry}: is no checkpoint of this program, and could be deleted as one; move it elsewhere, or "
                    "name another folder with --workdir=DIR"
                )
    # A kill in the last moment of a deletion leaves a folder with nothing in it.
    for entry in emptied:
        with writing(entry):
            entry.rmdir()


@functools.cache
def _silence() -> None:
    """Keeps from the person who trains what Orbax tells of its options, and of errors beside raising them."""
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    # Of many parts of a save that fail, one is raised and the others are "never retrieved".
    logging.getLogger("asyncio").addFilter(lambda record: "exception was never retrieved" not in record.getMessage())
    told = sys.unraisablehook

    def tell(unraisable: Any) -> None:
        # Storage that failed calls back an event loop that has ended with the save.
        if not (isinstance(unraisable.exc_value, RuntimeError) and "Event loop is closed" in str(unraisable.exc_value)):
            told(unraisable)

    sys.unraisablehook = tell


class Checkpoints:
    """Saves, reads and deletes; a context manager that waits for its saves.

    Arrays are copied before `save` returns, so that they may be donated, and written in the background. A save that
    can't be written is a UserError of that call or of the next that waits for it.
    """

    def __init__(self, folder: Path, create: bool):
        self.folder = folder
        self._create = create
        self._managers: dict[Which, ocp.CheckpointManager] = {}
        # Those with saves whose names may not be on the disk.
        self._unflushed: set[Which] = set()

    def save(self, which: Which, number: int, state: Any, meta: dict) -> None:
        """Saves in the background; the oldest is deleted once this one is complete and there are more than two.

        Args:
          number: above all that are there.
          state, meta: a pytree of arrays, and what JSON can hold.
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
        """What is there, oldest first, once saves under way are complete."""
        if not self._create and not (self.folder / which).is_dir():
            return []
        self.wait()
        return sorted(self._manager(which).all_steps())

    def read_meta(self, which: Which, number: int) -> dict:
        """The JSON saved with a checkpoint; no array is read.

        Raises:
          Unreadable: it can't be.
        """
        path = self.folder / which / str(number) / "meta" / "metadata"
        try:
            meta = read_json(path)
        except UserError as error:
            raise Unreadable(str(error)) from error
        if not isinstance(meta, dict):
            raise Unreadable(f"{path} holds no mapping")
        return meta

    def restore(self, which: Which, number: int, target: Any, table: tuple[str, int] | None = None) -> Any:
        """A saved state.

        Args:
          target: pytree of the state's structure, of arrays or `jax.ShapeDtypeStruct`; their shardings say
            where the arrays go, and those without one go to the first local device.
          table: a name and a number of rows. Arrays with that name in their path may have been saved with another
            number of rows, so many or more: those behind hold nothing, and are cut off or filled up with zeros.

        Raises:
          Unreadable: it can't be read, or its arrays are not those of `target`.
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
            # Orbax would print every array of both trees.
            difference = first_difference(saved, target, table) or _larger_chunk(saved)
            if difference is None:
                wanted = ocp.args.StandardRestore(target, strict=table is None)
                return manager.restore(number, args=ocp.args.Composite(state=wanted)).state
        except Exception as error:
            # Whatever a damaged file makes the libraries raise.
            raise Unreadable(_reason(error)) from error
        raise Unreadable(f"it is of another model or version of this program: {difference}")

    def delete(self, which: Which, number: int) -> None:
        """Deletes a checkpoint, readable or not."""
        try:
            self._manager(which).delete(number)
        except OSError as error:
            raise self._unwritable(which, error) from error

    def wait(self) -> None:
        """Returns once every save is on the disk, and would be there after a power cut."""
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
            # What ended the block is told, be it this or another error.
            if kind is None:
                raise
        finally:
            for manager in self._managers.values():
                # A save that has failed before, which `wait` has told, fails here again.
                with contextlib.suppress(Exception):
                    manager.close()
            self._managers.clear()

    def _manager(self, which: Which) -> ocp.CheckpointManager:
        if which not in self._managers:
            folder, create = self.folder / which, self._create
            # TensorStore flushes the arrays; what Orbax writes beside them, and the names of all, are not flushed. This
            # comes before a checkpoint is called by its number, and before the one before the last is deleted.
            written = functools.partial(flush_tree, folder) if create else None
            options = ocp.CheckpointManagerOptions(
                max_to_keep=KEPT,
                create=create,
                cleanup_tmp_directories=create,
                read_only=not create,
                async_options=ocp.AsyncOptions(post_finalization_callback=written),
                # Else what each checkpoint says of its time is read, and believed.
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


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _larger_chunk(saved: Any) -> str | None:
    """The first array whose pieces are said to be larger than it is, in words: a piece is read as a whole."""
    for path, leaf in arrays_by_path(saved).items():
        pieces = leaf.storage.chunk_shape
        if len(pieces) != len(leaf.shape) or any(map(operator.gt, pieces, [max(size, 1) for size in leaf.shape])):
            return f"{path} is {list(leaf.shape)} in pieces of {list(pieces)}"
    return None


def first_difference(saved: Any, target: Any, table: tuple[str, int] | None = None) -> str | None:
    """The first path, shape or type in which two trees of arrays differ, in words; None where they agree.

    Arrays of ``table``, a name in their path and a number of rows, may differ in their rows, if both have so many.
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
            return f"it has no {path}, where the model has {words(leaf)}"
        if not same(path, saved[path], leaf):
            return f"{path} is {words(saved[path])} in it and {words(leaf)} in the model"
    extra = sorted(set(saved) - set(target))
    return f"it has {extra[0]}, which the model lacks" if extra else None
