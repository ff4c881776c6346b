"""The metrics of a run in ``metrics.jsonl``, one JSON object per line, and the same metrics for trackers."""

from __future__ import annotations

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
from mocme_jax.data.whole_files import make_folder
from mocme_jax.training.checkpoints.run_folder import append, write_whole, writing
from mocme_jax.training.logs.trackers import TensorBoard, Tracker

FILE_NAME = "metrics.jsonl"
ROW = {"epoch?": int, "step?": int, "seed?": int, str: object}
"""The shape of a row, see ``json_shape``; other lines are dropped."""


class MetricsLog:
    """Appends rows to ``metrics.jsonl``; a context manager.

    TensorBoard files are written to ``tensorboard/`` next to it if the package tensorboardX is installed.

    Args:
      workdir: the folder of the run, created if it does not exist.
      keep_until_step: when a run resumes, the last step that was evaluated before. Rows of later steps are dropped,
        because they will be written again, and so is the row ``test`` that ended the run. None keeps all. A partial
        line, left by a killed run, is always dropped.
      tensorboard: whether to write TensorBoard files.
      trackers: receive the metrics of each evaluation as well. The caller closes them.
      writes: False writes nothing, for processes other than the writing one.

    Raises:
      UserError: the file cannot be written, in the constructor or in ``write``.
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
        self._writes, self._trackers = writes, list(trackers) if writes else []
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
        rows = _complete_rows(self.path)
        if keep_until_step is not None and os.path.lexists(self.path):
            rows = [(line, row) for line, row in rows if "test" not in row and row.get("step", 0) <= keep_until_step]
            purge = 1 + max((row.get("epoch", 0) for _, row in rows), default=0)
        write_whole(self.path, b"".join(line + b"\n" for line, _ in rows))
        if tensorboard:
            self._tensorboard = TensorBoard(folder / "tensorboard", purge)
            self._trackers.append(self._tensorboard)

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row, which is on disk when this returns.

        Args:
          row: values for JSON, including NumPy and JAX numbers and small arrays, nested to any depth. NaN and
            infinities become null. ``epoch`` is the step of trackers; rows without it are written to the file only.
        """
        if not self._writes:
            return
        plain = _plain(row)
        # On disk before the checkpoint of the same step, after which the row would not be written again.
        append(self.path, json.dumps(plain, allow_nan=False) + "\n")
        if isinstance(plain.get("epoch"), int):
            numbers = {
                name: value
                for name, value in flat(plain, between="/").items()
                if name != "epoch" and isinstance(value, int | float) and not isinstance(value, bool)
            }
            for tracker in self._trackers:
                tracker.log(numbers, plain["epoch"])

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *_: Any) -> None:
        if self._tensorboard is not None:
            self._tensorboard.close()


def read_metrics(workdir: str | os.PathLike) -> list[dict]:
    """Return the complete rows of a run's ``metrics.jsonl``, oldest first; see ``rows_of``."""
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
