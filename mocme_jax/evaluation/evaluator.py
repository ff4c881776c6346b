"""The class ``Evaluator``, which ranks a split with a model and computes its metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from mocme_jax.additions.addition import Additions
from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph
from mocme_jax.data.graph.known_tails import known_tails, reciprocal
from mocme_jax.data.graph.splits import clean_rows
from mocme_jax.errors import enough_memory
from mocme_jax.evaluation.dev_folds import dev_folds
from mocme_jax.evaluation.evaluation_plan import EvaluationPlan, plan_evaluation
from mocme_jax.evaluation.metrics import grouped_metrics, ranking_metrics
from mocme_jax.evaluation.ranking import EntitySource, Ranker
from mocme_jax.method.mocme import MoCME
from mocme_jax.parallel.mesh import Mapper

# For the message when memory runs out: what needs it, and what to do.
_SCORING = ("an evaluation", "take more devices with parallel.shard_entities, or lower model.width")


class Evaluator:
    """Ranks the splits of one graph. Evaluation plans are made on first use and kept.

    The methods take ``tables``: the ``EntityVectors`` of all entities, or another type in ``sources``.

    Args:
      graph: the splits to rank, and ``train``, which defines the entities seen in training.
      known: the known triples to filter, one array int32 ``[T, 3]`` per split.
      mapper: the devices.
      additions: additions to the scores; None for no additions. They are kept as ``additions``.
      sources: sources of vectors besides ``EntityVectors``, by the type of their tables.
    """

    def __init__(
        self,
        model: MoCME,
        graph: KnowledgeGraph,
        known: Sequence[np.ndarray],
        *,
        mapper: Mapper,
        additions: Additions | None = None,
        sources: Mapping[type, EntitySource] = MappingProxyType({}),
    ):
        self.graph = graph
        self._known, self.additions = known, additions or Additions()
        self._plans: dict[tuple[str, int | None], EvaluationPlan] = {}

        def query(params: Any, questions: jax.Array, relations: jax.Array) -> jax.Array:
            queries: Any = model.apply(params, questions, relations, method="query")
            return queries

        one = self.additions
        self._ranker = Ranker(query, model.match, mapper=mapper, scores=one.scores, bars=one.bars, sources=sources)

    def plan(self, split: str, fold: int | None = None) -> EvaluationPlan:
        """Return the evaluation plan of a split or of one of its folds (see ``dev_folds``), in both directions."""
        if (split, fold) not in self._plans:
            triples, sizes = self.graph.splits[split], (len(self.graph.entities), len(self.graph.relations))
            triples = triples if fold is None else triples[dev_folds(len(triples))[fold]]
            # Only the answers of these queries, because all facts of a large graph may not fit in memory.
            queries = reciprocal(triples, sizes[1])
            known = known_tails(self._known, *sizes, asked=queries)
            corrections = self.additions.corrections(*queries.T)
            self._plans[split, fold] = plan_evaluation(triples, known, corrections=corrections)
        return self._plans[split, fold]

    def ranks(self, params: Any, tables: Any, split: str) -> np.ndarray:
        """Compute realistic filtered ranks, float64 ``[2T]``; see ``evaluation.ranking``."""
        return self.both_ranks(params, tables, split)[0]

    def both_ranks(
        self, params: Any, tables: Any, split: str, fold: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Compute realistic filtered ranks, and those in which the gold answer wins all ties, float64 ``[2T]`` each.

        The latter is how OpenKE counts (``base/Test.h`` of github.com/thunlp/OpenKE): 1 + the candidates that score
        strictly higher.
        """
        with enough_memory(*_SCORING):
            ranks, ties = self._ranker(params, tables, self.plan(split, fold))
            return ranks, ranks - ties / 2

    def log_probabilities(self, params: Any, tables: Any, split: str, fold: int | None = None) -> np.ndarray:
        """Compute log probabilities of the gold answers in nats, float64 ``[2T]``; see ``Ranker``."""
        with enough_memory(*_SCORING):
            return self._ranker.log_probabilities(params, tables, self.plan(split, fold))

    def scored(self, ranks: np.ndarray, split: str) -> dict:
        """Compute metrics from the ranks ``[2T]`` of a split: over all rows (``overall``) and over the ``clean`` rows.

        A test row is clean if the released train split does not hold it. All rows of dev splits are clean.
        """
        triples = self.graph.splits[split]
        clean = clean_rows(triples, self._known[0]) if split == "test" else np.ones(len(triples), bool)
        return {"overall": ranking_metrics(ranks), "clean": ranking_metrics(ranks[np.tile(clean, 2)])}

    def report(self, ranks: np.ndarray, split: str) -> dict:
        """Compute metrics from the ranks ``[2T]`` of a split: those of ``scored``, and by group (``groups``).

        ``groups`` is empty except in process 0. See ``grouped_metrics``.
        """
        report = self.scored(ranks, split) | {"groups": {}}
        if jax.process_index() == 0:
            # Relation kinds need all of train in memory, so only one process computes them.
            report["groups"] = grouped_metrics(
                ranks,
                self.plan(split).queries,
                relations=self.graph.relations,
                train=self.graph.train,
                present={modality.name: modality.present for modality in self.graph.modalities},
                num_entities=len(self.graph.entities),
            )
        return report
