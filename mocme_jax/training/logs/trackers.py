"""Where a run's numbers are shown, beside its own file: TensorBoard, Weights & Biases, MLflow, or one's own.

A tracker is an object with the two methods of ``Tracker``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from mocme_jax.errors import UserError
from mocme_jax.printed_commands import to_install
from mocme_jax.training.checkpoints.run_folder import writing


class Tracker(Protocol):
    """What takes the numbers of each evaluation."""

    def log(self, numbers: Mapping[str, float], epoch: int) -> None:
        """Takes numbers by name, such as ``dev/mrr`` and ``train/loss/total``, once an evaluation."""

    def close(self) -> None:
        """The run has ended, in whatever way."""


class TensorBoard:
    """Files for TensorBoard, written by the package tensorboardX.

    Args:
      folder: of the files.
      purge: when a run continues, the first epoch that is written again.

    Raises:
      UserError: a file can't be written; so does ``log``.
    """

    def __init__(self, folder: Path, purge: int | None = None):
        self._folder = folder
        if folder.is_symlink():
            raise UserError(f"{folder}: is a link, and files would be written where it leads; remove it")
        with writing(folder):
            self._writer = _package("tensorboardX").SummaryWriter(str(folder), purge_step=purge)

    def log(self, numbers: Mapping[str, float], epoch: int) -> None:
        """See ``Tracker``."""
        with writing(self._folder):
            for name, value in numbers.items():
                self._writer.add_scalar(name, value, epoch)
            self._writer.flush()

    def close(self) -> None:
        """See ``Tracker``."""
        self._writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases, by the package wandb; ``options`` are those of ``wandb.init``."""

    def __init__(self, **options: Any):
        self._run = _package("wandb").init(**options)

    def log(self, numbers: Mapping[str, float], epoch: int) -> None:
        """See ``Tracker``."""
        self._run.log({**numbers, "epoch": epoch})

    def close(self) -> None:
        """See ``Tracker``."""
        self._run.finish()


class MLflow:
    """A run of MLflow, by the package mlflow; ``options`` are those of ``mlflow.start_run``."""

    def __init__(self, **options: Any):
        self._client = _package("mlflow")
        self._client.start_run(**options)

    def log(self, numbers: Mapping[str, float], epoch: int) -> None:
        """See ``Tracker``; names keep their slashes, which MLflow shows as groups."""
        # Not every sign of a metric's name is allowed there.
        allowed = {name.replace("@", "_at_"): value for name, value in numbers.items()}
        self._client.log_metrics(allowed, step=epoch)

    def close(self) -> None:
        """See ``Tracker``."""
        self._client.end_run()


class Callback:
    """Calls a function with the numbers and the epoch of each evaluation."""

    def __init__(self, function: Callable[[Mapping[str, float], int], Any]):
        self._function = function

    def log(self, numbers: Mapping[str, float], epoch: int) -> None:
        """See ``Tracker``."""
        self._function(numbers, epoch)

    def close(self) -> None:
        """Nothing is left to do."""


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(f"the package {name} is not installed; run: {to_install(name)}") from None
