"""The class ``ModelScorer``: how the parameters of a training are evaluated."""

from collections.abc import Callable
from typing import Any

import numpy as np

from mocme_jax.evaluation.dev_folds import from_folds
from mocme_jax.evaluation.evaluator import Evaluator
from mocme_jax.method.mocme import Params
from mocme_jax.parallel.entity_tables import Inputs
from mocme_jax.training.entity_encoding import Encode
from mocme_jax.training.weight_fit import Fit, Fitted

DEV = "valid"
"""The name of the dev split in ``KnowledgeGraph.splits``."""


class ModelScorer:
    """Fits the fusion weights of parameters, and ranks dev and test with them.

    Attributes:
      evaluator: the evaluator.
      inputs: the encoder's inputs.
      encode: ``(params, inputs) -> (tables, shares)``, for the evaluator.
      fit: the fit on dev; see ``weight_fit``.
    """

    def __init__(self, evaluator: Evaluator, inputs: Inputs, encode: Encode, fit: Fit):
        self.evaluator, self.inputs, self.encode, self.fit = evaluator, inputs, encode, fit

    def on_dev(self, fitted: Fitted, of: Callable[[Params, int | None], Any]) -> np.ndarray:
        """Compute something for the queries of dev, of each fold with parameters that were not fitted on it.

        Args:
          fitted: the parameters.
          of: ``(params, fold) -> [2T_i]``, for the tail queries of a fold's T_i triples, then for their head queries;
            fold None: of all dev triples.

        Returns:
          ``[2T]``, for the tail queries of dev, then for its head queries.
        """
        if not fitted.folds:
            return of(fitted.params, None)
        return from_folds([of(params, fold) for fold, params in enumerate(fitted.folds)])

    def both_dev_ranks(self, fitted: Fitted) -> np.ndarray:
        """Compute both kinds of ranks of dev, float64 ``[2T, 2]``; see ``Evaluator.both_ranks``."""

        def ranks(params: Params, fold: int | None) -> np.ndarray:
            tables, _ = self.encode(params, self.inputs)
            return np.stack(self.evaluator.both_ranks(params.model, tables, DEV, fold), axis=1)

        return self.on_dev(fitted, ranks)

    def dev_ranks(self, fitted: Fitted) -> np.ndarray:
        """Compute realistic filtered ranks of dev, float64 ``[2T]``."""
        return self.both_dev_ranks(fitted)[:, 0]

    def both_test_ranks(self, fitted: Fitted) -> np.ndarray:
        """Compute both kinds of ranks of test, float64 ``[2T, 2]``; see ``Evaluator.both_ranks``."""
        tables, _ = self.encode(fitted.params, self.inputs)
        return np.stack(self.evaluator.both_ranks(fitted.params.model, tables, "test"), axis=1)

    def test_ranks(self, fitted: Fitted) -> np.ndarray:
        """Compute realistic filtered ranks of test, float64 ``[2T]``."""
        return self.both_test_ranks(fitted)[:, 0]

    def shares(self, fitted: Fitted) -> np.ndarray:
        """Compute each expert's share of the weights, ``[H]``; see ``make_encode_program``."""
        return np.asarray(self.encode(fitted.params, self.inputs)[1])
