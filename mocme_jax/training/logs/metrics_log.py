"""The run's trace: one JSON object a line in `metrics.jsonl`, and the same numbers for trackers."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mocme_jax.config import flat
from mocme_jax.data.readers.json_file import rows_of
from mocme_jax.data.readers.json_shape import misfit
from mocme_jax.data.whole_files import flush_folder, make_folder
from mocme_jax.training.checkpoints.run_folder import write_whole, writing
from mocme_jax.training.logs.trackers import TensorBoard, Tracker

FILE_NAME = "metrics.jsonl"
ROW = {"epoch?": int, "step?": int, "seed?": int, str: object}
"""The shape of a row, see ``json_shape``; what is no row is dropped."""


class MetricsLog:
    """Appends rows to `metrics.jsonl`; a context manager.

    TensorBoard files go to `tensorboard/` beside it where the package tensorboardX is installed.

    Args:
      workdir: the run's folder, made where missing.
      keep_until_step: when a run goes on, the last step that was evaluated before: rows of later steps, which will be
        written again, are dropped, and so is the row `test` that ended the run. None keeps all. Half a line,
        left by a run that was killed, is dropped in any case.
      tensorboard: False leaves TensorBoard out.
      trackers: take the numbers of each evaluation as well; they are the caller's to close.
      writes: False writes nothing at all, for processes beside the one that does.

    Raises:
      UserError: the file cannot be written; so does ``write``.
    """

    def __init__(
        self,
        workdir: str | os.PathLike,
        *,
        keep_until_step: int | None = None,
        tensorboard: bool = True,
        trackers: Sequence[Tracker] = (),
        writes: bool = True,
    ):
        self._file, self._trackers = None, list(trackers) if writes else []
        self._tensorboard: TensorBoard | None = None
        if not writes:
            return
        folder = Path(workdir)
        tensorboard = tensorboard and importlib.util.find_spec("tensorboardX") is not None
        if tensorboard:
            TensorBoard.check(folder / "tensorboard")
        with writing(folder):
            make_folder(folder)
        self.path, purge = folder / FILE_NAME, None
        if os.path.lexists(self.path):
            rows = _complete_rows(self.path)
            if keep_until_step is not None:
                rows = [
                    (line, row) for line, row in rows if "test" not in row and row.get("step", 0) <= keep_until_step
                ]
                purge = 1 + max((row.get("epoch", 0) for _, row in rows), default=0)
            write_whole(self.path, b"".join(line + b"\n" for line, _ in rows))
        with writing(self.path):
            self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115
            flush_folder(folder)
        if tensorboard:
            self._tensorboard = TensorBoard(folder / "tensorboard", purge)
            self._trackers.append(self._tensorboard)

    def write(self, row: Mapping[str, Any]) -> None:
        """Adds a row, which is on the disk when this returns.

        Args:
          row: what JSON can hold, NumPy and JAX numbers and small arrays too, nested as deep as wanted. NaN
            and infinities become null. `epoch` is TensorBoard's step; rows without one go to the file alone.
        """
        if self._file is None:
            return
        plain = _plain(row)
        with writing(self.path):
            self._file.write(json.dumps(plain, allow_nan=False) + "\n")
            self._file.flush()
            # Before the checkpoint of the same step, which would let nobody write the row again.
            os.fsync(self._file.fileno())
        if isinstance(plain.get("epoch"), int):
            numbers = {
                name: value
                for name, value in flat(plain, between="/").items()
                if name != "epoch" and isinstance(value, int | float) and not isinstance(value, bool)
            }
            # What a tracker's server refuses is no error of the file.
            for tracker in self._trackers:
                tracker.log(numbers, plain["epoch"])

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *_: Any) -> None:
        if self._file is not None:
            # What a full disk refused stays in the buffer, and has been told of.
            with contextlib.suppress(OSError):
                self._file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()


def read_metrics(workdir: str | os.PathLike) -> list[dict]:
    """The complete rows of a run's `metrics.jsonl`, oldest first; see ``rows_of``."""
    return [row for _, row in _complete_rows(Path(workdir) / FILE_NAME)]


def _complete_rows(path: Path) -> list[tuple[bytes, dict]]:
    return [(line, row) for line, row in rows_of(path) if misfit(row, ROW) is None]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return _plain(np.asarray(value).tolist())
