"""The class ``RunModel``: the best model of a run with what its folder holds, such as results and calibration."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

from mocme_jax.data.features.raw_values import can_encode
from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph
from mocme_jax.errors import UserError
from mocme_jax.serving.answers import Results
from mocme_jax.serving.calibration import Calibration, calibrate, identity_of, read_calibration, write_calibration
from mocme_jax.serving.completion import Served
from mocme_jax.serving.model_card import write_card
from mocme_jax.serving.name_lookup import Lookup
from mocme_jax.training.logs.run_results import read_results


@dataclasses.dataclass(frozen=True)
class RunModel:
    """The best model of a run.

    Attributes:
      workdir: the folder of the run.
      served: the model in the form that the compiled programs take.
      graph: the graph that the model was trained on; ``valid`` is its dev split.
      entities: names and ids of the entities.
      relations: names and ids of the relations.
      saved: the metadata of the checkpoint.
      notify: called with one line before slow work; None for silence.
      base: the original model, if this one was made by ``add_entities``; else None.
    """

    workdir: Path
    served: Served
    graph: KnowledgeGraph
    entities: Lookup
    relations: Lookup
    saved: dict
    notify: Callable[[str], None] | None = None
    base: "RunModel | None" = None

    def __repr__(self) -> str:
        sizes = f"{len(self.entities):,} entities, {len(self.relations):,} relations"
        carried = ", ".join(modality.name for modality in self.graph.modalities) or "none"
        run = self.saved["position"]
        scored = f"dev MRR {run['best_mrr']:.4f} at epoch {run['best_epoch']}"
        return (
            f"{type(self).__name__}({self.graph.name}: {sizes}; features: {carried}; {scored}; workdir: {self.workdir})"
        )

    @property
    def results(self) -> Results:
        """The content of ``results.json``, such as the graph, the config, and metrics on dev and test, also by group.

        Raises:
          UserError: the run is not finished.
        """
        results = read_results(self.workdir)
        if results is None:
            raise UserError(f"{self.workdir}: contains no results.json: the run has not finished")
        return Results(results)

    @functools.cached_property
    def calibration(self) -> Calibration:
        """The calibration that turns scores into probabilities.

        It is read from the run's folder. If it is not there, it is fitted on dev and saved there.
        """
        if self.base is not None:
            return self.base.calibration
        identity = self.identity
        kept = read_calibration(self.workdir, identity)
        judged = {name for name, rows in (("dev", self.graph.valid), ("test", self.graph.test)) if len(rows)}
        if (
            kept is not None
            and len(kept.answers.sharpness) == 2 * len(self.relations)
            and kept.report["splits"].keys() == judged
        ):
            return kept
        if self.notify is not None:
            self.notify("fitting probabilities on dev (once; saved in the run's folder)")
        fitted = calibrate(self.served, self.graph.train, self.graph.valid, self.graph.test)
        # A corrupt results.json is reported where it is needed.
        with contextlib.suppress(UserError):
            if write_calibration(self.workdir, identity, fitted) and (results := read_results(self.workdir)):
                write_card(self.workdir, results)
        return fitted

    @property
    def takes_raw(self) -> tuple[str, ...]:
        """The modalities for which ``add_entities`` accepts texts, files or numbers as well as vectors."""
        return tuple(modality.name for modality in self.graph.modalities if can_encode(modality))

    @property
    def identity(self) -> dict:
        """The identity of the graph and the checkpoint that a calibration belongs to; see ``identity_of``."""
        return identity_of(self.saved["fingerprint"], self.saved["position"])

    @property
    def modalities(self) -> tuple[str, ...]:
        """The structure and the feature modalities, in the model's order."""
        return ("structure", *(modality.name for modality in self.graph.modalities))
