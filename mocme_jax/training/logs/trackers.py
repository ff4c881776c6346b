"""Where a run's numbers are shown, beside its own file: TensorBoard, Weights & Biases, MLflow, or one's own.

A tracker is an object with the two methods of ``Tracker``.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from mocme_jax.errors import UserError
from mocme_jax.printed_commands import to_install
from mocme_jax.training.checkpoints.run_folder import writing

# Signs that MLflow does not allow in a metric's name.
_REFUSED = re.compile(r"[^\w.\- :/]")


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
      UserError: a file cannot be written; so does ``log``.
    """

    def __init__(self, folder: Path, purge: int | None = None):
        self._folder = folder
        self.check(folder)
        with writing(folder):
            self._writer = _package("tensorboardX").SummaryWriter(str(folder), purge_step=purge)

    @staticmethod
    def check(folder: Path) -> None:
        """Raises a UserError where the folder is something else; nothing is written yet."""
        if folder.is_symlink():
            raise UserError(f"{folder}: is a link, so files would be written to its target; remove it")
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder}: is no folder, and TensorBoard's files are written there; remove it")

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
        # Charts are drawn over epochs; by itself W&B counts calls, which begin anew when a run continues.
        self._run.define_metric("*", step_metric="epoch")

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
        self._run = self._client.start_run(**options)

    def log(self, numbers: Mapping[str, float], epoch: int) -> None:
        """See ``Tracker``; names keep their slashes, which MLflow shows as groups."""
        # Not every sign is allowed there, and a modality may be called anything.
        allowed = {_REFUSED.sub("_", name.replace("@", "_at_")): value for name, value in numbers.items()}
        # By its id: another run may have been started meanwhile.
        self._client.log_metrics(allowed, step=epoch, run_id=self._run.info.run_id)

    def close(self) -> None:
        """See ``Tracker``; does nothing if the run has ended."""
        active = self._client.active_run()
        if active is not None and active.info.run_id == self._run.info.run_id:
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
