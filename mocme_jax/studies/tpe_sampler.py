"""Points of a search by Optuna's TPE sampler, and which fields make the best points.

The rows of the search are all that is kept. Each call tells them to a new study in memory, so that a search that was
stopped draws the same points as one that was not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from mocme_jax.config_fields import Value
from mocme_jax.errors import MissingPackage
from mocme_jax.printed_commands import needed_package, to_install
from mocme_jax.studies.search_space import Log, Space, Uniform, short
from mocme_jax.training.checkpoints.run_position import as_json

if TYPE_CHECKING:
    import optuna

# Importances say which fields set the best quarter apart, and at least this many points; they need twice as many.
_FEWEST_BEST = 5


class TpeSampler:
    """Draws points where the rows so far make good ones likely.

    Optuna draws its first ten points at random.

    Args:
      space: what is searched.
      seed: of the search.
      own: the values that the config itself has of the space's fields.

    Raises:
      UserError: Optuna is not installed, or is too old.
    """

    def __init__(self, space: Space, seed: int, own: Mapping[str, Value]):
        self._optuna, self._space, self._seed, self._own = _package(), space, seed, own
        self._ranges = {path: self._range(choice) for path, choice in space.items()}

    def draw(self, number: int, rows: Sequence[dict]) -> dict[str, Value]:
        """Point ``number`` of the search, from 1 on, by config field, given the rows of those before it."""
        seed = int(np.random.default_rng([self._seed, number]).integers(2**32))
        with self._told(rows, self._optuna.samplers.TPESampler(seed=seed)) as study:
            drawn = study.ask(self._ranges).params
        return {path: self._value(choice, drawn[path]) for path, choice in self._space.items()}

    def importances(self, rows: Sequence[dict]) -> tuple[int, int, dict[str, float]] | None:
        """How much each field sets the best finished points apart, as shares of 1, the highest first.

        It is PED-ANOVA (Watanabe et al., IJCAI 2023).

        Returns:
          How many points count as the best, of how many, and the shares; None if too few have finished.
        """
        with self._told([row for row in rows if "pruned" not in row]) as study:
            count = len(study.trials)
            if count < 2 * _FEWEST_BEST:
                return None
            best = max(_FEWEST_BEST, count // 4)
            # Half a point less, because Optuna rounds up.
            evaluator = self._optuna.importance.PedAnovaImportanceEvaluator(target_quantile=(best - 0.5) / count)
            return best, count, self._optuna.importance.get_param_importances(study, evaluator=evaluator)

    @contextlib.contextmanager
    def _told(self, rows: Sequence[dict], sampler: Any = None) -> Iterator[optuna.Study]:
        """A study that knows the rows, but for those with a value outside of the space, such as the config's own."""
        logging = self._optuna.logging
        before = logging.get_verbosity()
        logging.set_verbosity(logging.WARNING)
        try:
            study = self._optuna.create_study(direction="maximize", sampler=sampler)
            for row in rows:
                values = as_json({**self._own, **row["changes"]})
                params = {path: self._param(choice, values[path]) for path, choice in self._space.items()}
                if None not in params.values():
                    study.add_trial(self._trial(row, params))
            yield study
        finally:
            logging.set_verbosity(before)

    def _trial(self, row: dict, params: dict[str, float | int]) -> optuna.trial.FrozenTrial:
        states, pruned = self._optuna.trial.TrialState, "pruned" in row
        return self._optuna.trial.create_trial(
            state=states.PRUNED if pruned else states.COMPLETE,
            value=None if pruned else row["dev"]["mrr"],
            params=params,
            distributions=self._ranges,
            intermediate_values={epoch: mrr for epoch, mrr in row["curve"]},
        )

    def _range(self, choice: Log | Uniform | Sequence[Value]) -> optuna.distributions.BaseDistribution:
        kinds = self._optuna.distributions
        if isinstance(choice, Log | Uniform):
            # Its ends are as short as the values that are drawn, which would be outside of it otherwise.
            return kinds.FloatDistribution(short(choice.low), short(choice.high), log=isinstance(choice, Log))
        # By place, because Optuna takes no tuples.
        return kinds.CategoricalDistribution(range(len(choice)))

    def _value(self, choice: Log | Uniform | Sequence[Value], param: float | int) -> Value:
        return short(param) if isinstance(choice, Log | Uniform) else choice[int(param)]

    def _param(self, choice: Log | Uniform | Sequence[Value], value: Any) -> float | int | None:
        """What Optuna calls a value, as JSON holds it; None if it is outside of the choice."""
        if isinstance(choice, Log | Uniform):
            inside = value is not None and short(choice.low) <= value <= short(choice.high)
            return value if inside else None
        values = as_json(list(choice))
        return values.index(value) if value in values else None


def _package() -> ModuleType:
    need = "--sampler=tpe needs the package optuna, version 5 or later"
    optuna = needed_package("optuna", need, extra="search")
    # The evaluator of importances had other arguments before.
    if int(optuna.__version__.partition(".")[0]) < 5:
        raise MissingPackage(f"{need}; run: {to_install(extra='search')}")
    return optuna
