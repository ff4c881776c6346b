"""Trackers that pass a run's metrics on to TensorBoard, Weights & Biases, MLflow or your own code."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from mocme_jax.errors import UserError
from mocme_jax.printed_commands import needed_package
from mocme_jax.training.checkpoints.run_folder import writing

# Characters that MLflow does not allow in a metric name.
_REFUSED = re.compile(r"[^\w.\- :/]")


class Tracker(Protocol):
    """The interface of a tracker: any object with these two methods."""

    def log(self, numbers: Mapping[str, float], epoch: int) -> None:
        """Receive metrics once per evaluation.

        Args:
          numbers: values by name, such as ``dev/mrr`` and ``train/loss/total``.
          epoch: the epoch of the evaluation.
        """

    def close(self) -> None:
        """Release resources. Called when the run has ended, also after an error."""


class TensorBoard:
    """A tracker that writes event files for TensorBoard with the package tensorboardX.

    Args:
      folder: the folder of the event files.
      purge: the first epoch that is written again when a run resumes; None for a new run.

    Raises:
      UserError: a file cannot be written, in the constructor or in ``log``.
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
        """Write the metrics; see ``Tracker``."""
        with writing(self._folder):
            for name, value in numbers.items():
                self._writer.add_scalar(name, value, epoch)
            self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


class WeightsAndBiases:
    """A tracker that logs to a Weights & Biases run with the package wandb.

    Args:
      options: arguments of ``wandb.init``.

    Raises:
      UserError: wandb is not installed.
    """

    def __init__(self, **options: Any):
        self._run = _package("wandb").init(**options)
        # Charts use epochs as steps. By default W&B counts calls, which restart when a run resumes.
        self._run.define_metric("*", step_metric="epoch")

    def log(self, numbers: Mapping[str, float], epoch: int) -> None:
        """Log the metrics; see ``Tracker``."""
        self._run.log({**numbers, "epoch": epoch})

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


class MLflow:
    """A tracker that logs to an MLflow run with the package mlflow.

    Args:
      options: arguments of ``mlflow.start_run``.

    Raises:
      UserError: mlflow is not installed.
    """

    def __init__(self, **options: Any):
        self._client = _package("mlflow")
        self._run = self._client.start_run(**options)

    def log(self, numbers: Mapping[str, float], epoch: int) -> None:
        """Log the metrics; see ``Tracker``.

        Slashes in names are kept, and MLflow shows them as groups. Characters that MLflow rejects become ``_``.
        """
        # MLflow does not allow all characters, and modality names are free.
        allowed = {_REFUSED.sub("_", name.replace("@", "_at_")): value for name, value in numbers.items()}
        # By run id, because another run may have been started meanwhile.
        self._client.log_metrics(allowed, step=epoch, run_id=self._run.info.run_id)

    def close(self) -> None:
        """End the run, unless it has ended already."""
        active = self._client.active_run()
        if active is not None and active.info.run_id == self._run.info.run_id:
            self._client.end_run()


class Callback:
    """A tracker that calls a function with the metrics and the epoch of each evaluation.

    Args:
      function: called as ``function(numbers, epoch)``.
    """

    def __init__(self, function: Callable[[Mapping[str, float], int], Any]):
        self._function = function

    def log(self, numbers: Mapping[str, float], epoch: int) -> None:
        """Call the function; see ``Tracker``."""
        self._function(numbers, epoch)

    def close(self) -> None:
        """Do nothing."""


def _package(name: str) -> Any:
    return needed_package(name, f"the package {name} is not installed", name)
