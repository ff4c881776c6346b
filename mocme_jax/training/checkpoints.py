"""The run's two checkpoints in its folder: `last/`, to go on from, and `best/`, to evaluate.

Two Orbax managers rather than one with a metric, which may delete the newest step. A step holds `state`, a
pytree of arrays, and `meta`, JSON that can be read before any model is built. A save that was cut off leaves
a folder that Orbax ignores, and the step before it stays.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp

from mocme_jax.errors import UserError

Which = Literal["last", "best"]
NAMES: tuple[Which, ...] = ("last", "best")


def open_checkpoints(workdir: str | os.PathLike, *, create: bool = True) -> Checkpoints:
    """The checkpoints under `workdir`.

    Args:
      workdir: the run's folder; relative paths are taken from the current one.
      create: make missing folders. Without it nothing is written, and a missing folder is an error.

    Raises:
      UserError: `workdir` is a file; or, without `create`, there are no checkpoints in it.
    """
    folder = Path(workdir).expanduser().absolute()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file, not a folder; name another with --workdir=FOLDER")
    if not create and not any((folder / name).is_dir() for name in NAMES):
        raise UserError(f"{folder}: holds no checkpoint; train there first, or mend --workdir")
    # Orbax tells through absl how it reads the options below; to the person who trains that is noise.
    logging.getLogger("absl").setLevel(logging.ERROR)
    return Checkpoints(folder, create)


class Checkpoints:
    """Saves and restores the run's newest and best state; a context manager that waits for its saves.

    Saving is asynchronous: arrays are copied before the call returns, so that they may be donated, and
    written in the background.
    """

    def __init__(self, folder: Path, create: bool):
        self.folder = folder
        self._create = create
        self._managers: dict[Which, ocp.CheckpointManager] = {}

    def save_last(self, step: int, state: Any, meta: dict) -> None:
        """Saves the state to go on from; the one before it is deleted once this one is complete.

        Args:
          step: rises from save to save; saved steps that are not below it are replaced.
          state: pytree of arrays.
          meta: what JSON can hold.
        """
        self._save("last", step, state, meta)

    def save_best(self, step: int, state: Any, meta: dict) -> None:
        """Saves the best state so far; arguments as for `save_last`."""
        self._save("best", step, state, meta)

    def latest_step(self, which: Which = "last") -> int | None:
        """The step saved last, once that save is complete; None before the first."""
        manager = self._manager(which)
        if manager is None:
            return None
        manager.wait_until_finished()
        return manager.latest_step()

    def read_meta(self, which: Which) -> dict:
        """The JSON saved with a checkpoint; no array is read.

        Raises:
          UserError: there is no such checkpoint, or it can't be read.
        """
        manager, step = self._saved(which)
        try:
            return manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta
        except (OSError, ValueError, KeyError) as error:
            raise self._unreadable(which, step, error) from error

    def restore(self, which: Which, target: Any, table: tuple[str, int] | None = None) -> tuple[Any, dict]:
        """A saved state and its meta.

        Args:
          which: "last" or "best".
          target: pytree of the state's structure, of arrays or `jax.ShapeDtypeStruct`; their shardings say
            where the arrays go, and those without one go to the first local device.
          table: a name and a number of rows. Arrays with that name in their path may have been saved with another
            number of rows, so many or more: those behind hold nothing, and are cut off or filled up with zeros.

        Raises:
          UserError: there is no such checkpoint, it can't be read, or its arrays are not those of `target`.
        """
        manager, step = self._saved(which)
        home = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

        def describe(leaf):
            sharding = getattr(leaf, "sharding", None) or home
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

        target = jax.tree.map(describe, target)
        try:
            saved = manager.item_metadata(step)["state"]
            # Orbax would print every array of both trees.
            difference = first_difference(getattr(saved, "tree", saved), target, table)
            if difference is None:
                wanted = ocp.args.StandardRestore(target, strict=table is None)
                args = ocp.args.Composite(state=wanted, meta=ocp.args.JsonRestore())
                restored = manager.restore(step, args=args)
                return restored.state, restored.meta
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._unreadable(which, step, error) from error
        raise UserError(
            f"{self.folder / which}: step {step} is of another model: {difference}; use the config it was "
            "trained with, or another --workdir"
        )

    def wait(self) -> None:
        """Returns once every save is on the disk."""
        for manager in self._managers.values():
            manager.wait_until_finished()

    def close(self) -> None:
        """Finishes the saves and releases the managers."""
        for manager in self._managers.values():
            manager.close()
        self._managers.clear()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _manager(self, which: Which) -> ocp.CheckpointManager | None:
        if which not in NAMES:
            raise ValueError(f"checkpoint {which!r}, expected one of {NAMES}")
        if which not in self._managers:
            folder = self.folder / which
            if not self._create and not folder.is_dir():
                return None
            self._managers[which] = ocp.CheckpointManager(
                folder,
                options=ocp.CheckpointManagerOptions(
                    max_to_keep=1, create=self._create, read_only=not self._create
                ),
                item_handlers={"state": ocp.StandardCheckpointHandler(), "meta": ocp.JsonCheckpointHandler()},
            )
        return self._managers[which]

    def _save(self, which: Which, step: int, state: Any, meta: dict) -> None:
        manager = self._manager(which)
        if manager is None:
            raise ValueError(f"{self.folder} was opened with create=False, for reading only")
        if jax.process_count() > 1:
            # Two saves under way at once mix up the processes' barriers.
            self.wait()
        later = [saved for saved in manager.all_steps() if saved >= step]
        if later:
            # A run that went on from before makes them anew; Orbax would keep the old and say nothing.
            manager.wait_until_finished()
            for saved in later:
                manager.delete(saved)
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        if not manager.save(step, args=args):
            raise RuntimeError(f"{self.folder / which}: Orbax did not save step {step}")

    def _saved(self, which: Which) -> tuple[ocp.CheckpointManager, int]:
        step = self.latest_step(which)
        if step is None:
            raise UserError(
                f"{self.folder / which}: holds no checkpoint; train there first, or mend --workdir"
            )
        return self._managers[which], step

    def _unreadable(self, which: Which, step: int, error: Exception) -> UserError:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        return UserError(
            f"{self.folder / which / str(step)}: can't be read ({reason}); delete it and train again"
        )


def first_difference(saved: Any, target: Any, table: tuple[str, int] | None = None) -> str | None:
    """The first path, shape or type in which two trees of arrays differ, in words; None where they agree.

    Arrays of ``table``, a name in their path and a number of rows, may differ in their rows, if both have so many.
    """

    def arrays(tree):
        leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
        return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}

    def words(leaf):
        return f"{np.dtype(leaf.dtype)}{list(leaf.shape)}"

    def same(path, leaf, other):
        shapes = tuple(leaf.shape), tuple(other.shape)
        if table is not None and table[0] in path.split("/") and min(shape[:1] for shape in shapes) >= (table[1],):
            shapes = shapes[0][1:], shapes[1][1:]
        return shapes[0] == shapes[1] and leaf.dtype == other.dtype

    saved, target = arrays(saved), arrays(target)
    for path, leaf in target.items():
        if path not in saved:
            return f"it has no {path}, where the model has {words(leaf)}"
        if not same(path, saved[path], leaf):
            return f"{path} is {words(saved[path])} in it and {words(leaf)} in the model"
    extra = sorted(set(saved) - set(target))
    return f"it has {extra[0]}, which the model lacks" if extra else None
