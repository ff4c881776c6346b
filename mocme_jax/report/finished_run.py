"""What a finished run left in its folder, as the report reads it."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mocme_jax.config import flat
from mocme_jax.data.readers.json_shape import misfit
from mocme_jax.errors import UserError
from mocme_jax.flags import flags_of
from mocme_jax.training.information import in_nats, in_words, read_information
from mocme_jax.training.logs.metrics_log import read_metrics
from mocme_jax.training.logs.run_results import read_results
from mocme_jax.training.setup.settings import settings_of

CLASSES = ("easy", "ambiguous", "hard")
STRUCTURE = "structure"


@dataclasses.dataclass(frozen=True)
class Finished:
    """A finished run, from its files alone.

    Attributes:
      workdir: its folder.
      name: what it is called in the report.
      results: of ``results.json``.
      information: what each modality and each expert adds, as ``evaluate --information`` left it; empty without.
      rows: the evaluations of ``metrics.jsonl``, flat (``train/loss/total``), one an epoch.
    """

    workdir: Path
    name: str
    results: dict[str, Any]
    information: dict[str, Any]
    rows: list[dict[str, Any]]

    @property
    def is_structure_alone(self) -> bool:
        """Whether it is the baseline: no features, whatever the rest of its config."""
        return not self.results["graph"]["modalities"]

    @property
    def modalities(self) -> list[str]:
        """The structure and the feature modalities, in the model's order."""
        return [STRUCTURE, *self.results["graph"]["modalities"]]

    @property
    def experts(self) -> list[str]:
        """The experts, in the model's order."""
        return list(self.results["weights"])

    @property
    def added_by_experts(self) -> dict[str, str]:
        """Nats that each expert adds, by name; empty where that is not measured."""
        return {name: in_nats(one) for name, one in self.information.get("experts", {}).items()}

    @property
    def gain_of_weights(self) -> str:
        """What the fit of the weights brings, in words; empty if there is no fit, or if it is not measured."""
        weights = self.information.get("weights")
        return in_words(weights) if weights else ""

    @property
    def model(self) -> SimpleNamespace:
        """What is told of the model; see ``settings_of``."""
        return settings_of(self.results["config"])

    @property
    def flags(self) -> list[str]:
        """What turns the default config into the run's, but for the folders of its machine."""
        return flags_of(self.results["config"])

    def curve(self, name: str) -> tuple[list[int], list[float | None]]:
        """Epochs and values of a flat name of the metrics; both empty where the run has none."""
        rows = [row for row in self.rows if name in row]
        return [row["epoch"] for row in rows], [row[name] for row in rows]


def read_finished(workdir: Path, name: str | None = None) -> Finished:
    """Reads a run's folder.

    Raises:
      UserError: no run has finished there, or its files are damaged.
    """
    workdir = Path(workdir)
    results = read_results(workdir)
    if results is None:
        raise UserError(
            f"{workdir}: contains no results.json of a finished run and no study.json; finish the training, or give "
            "another folder with --workdir"
        )
    # An epoch that was evaluated twice, before and after a stop, counts once, as it was last.
    read = [row for row in read_metrics(workdir) if "epoch" in row]
    flat_rows = {row["epoch"]: flat(row, between="/") for row in read}
    rows = [{k: v for k, v in row.items() if misfit(v, (float, None)) is None} for _, row in sorted(flat_rows.items())]
    name = name or workdir.resolve().name
    information = read_information(workdir, results["run"])
    return Finished(workdir, name, results, information, rows)
