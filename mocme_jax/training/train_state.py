"""The state that a training step changes, the data that it reads, and their placement on the devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mocme_jax.method.mocme import MoCME, Params, init_params
from mocme_jax.parallel.entity_tables import Inputs, inputs_spec
from mocme_jax.parallel.known_answers import KnownAnswers, known_spec
from mocme_jax.parallel.mesh import ROWS, WHOLE, Mapper
from mocme_jax.training.optimizers import Optimizers, OptimizerState
from mocme_jax.training.start_vectors import Start, begun

# Scalars by name.
Metrics = dict[str, jax.Array]


class Sums(NamedTuple):
    """Sums of metrics over the steps since the last evaluation.

    Attributes:
      steps: int32 scalar, the number of steps.
      totals: float32 scalars by name.
    """

    steps: jax.Array
    totals: Metrics

    def plus(self, metrics: Metrics) -> Sums:
        """Add the metrics of one step."""
        totals = jax.tree.map(lambda total, new: total + new.astype(total.dtype), self.totals, metrics)
        return Sums(self.steps + 1, totals)


class TrainState(NamedTuple):
    """Everything that a step changes, and its PRNG key.

    Attributes:
      params: the parameters.
      opt_state: the state of the optimizers.
      average: the running average of the parameters, which is evaluated; None if it is not used.
      sums: sums of metrics.
      entropy: ``[N]``, the running mean of the entropy in bits of each entity as a negative; None if pools are not
        drawn by entropy.
      step: int32 scalar, the number of steps taken. The epoch and the position in it follow from it.
      key: PRNG key data, which never change. The key of a step is folded from them and the step.
    """

    params: Params
    opt_state: OptimizerState
    average: Params | None
    sums: Sums
    entropy: jax.Array | None
    step: jax.Array
    key: jax.Array

    @property
    def evaluated(self) -> Params:
        """The parameters to evaluate."""
        return self.params if self.average is None else self.average


class TrainData(NamedTuple):
    """The data that training reads and never changes.

    Attributes:
      triples: int32 ``[T, 3]``, or this device's share if tables are sharded.
      known: their facts, by entity.
      inputs: the encoder's inputs.
    """

    triples: jax.Array
    known: KnownAnswers
    inputs: Inputs


def params_spec(split: bool) -> Params:
    """Return which parameters are sharded over the devices."""
    return Params(WHOLE, ROWS if split else WHOLE)


def state_spec(split: bool, averages: bool, guided: bool) -> TrainState:
    """Return which parts of the state are sharded over the devices."""
    params = params_spec(split)
    average, entropy = params if averages else None, WHOLE if guided else None
    return TrainState(params, OptimizerState(*params), average, WHOLE, entropy, WHOLE, WHOLE)


def data_spec(split: bool) -> TrainData:
    """Return which parts of the data are sharded over the devices."""
    return TrainData(ROWS if split else WHOLE, known_spec(split), inputs_spec(split))


# Seed axes. Typed as Any, because they take the place of arrays in the trees.
_EACH: Any = 0
_SHARED: Any = None


def state_axes(averages: bool, guided: bool) -> TrainState:
    """Return the seed axis of each part of a state of several seeds; None for parts that the seeds share."""
    average, entropy = (_EACH if wanted else _SHARED for wanted in (averages, guided))
    return TrainState(_EACH, _EACH, average, Sums(_SHARED, _EACH), entropy, _SHARED, _EACH)


class StatePlan(NamedTuple):
    """A state to be created or restored.

    Attributes:
      spec: which parts are sharded.
      shapes: the shapes of all arrays, with sharded ones as one table, and their shardings.
      create: ``() -> TrainState``, makes the first state in the form that programs take.
    """

    spec: TrainState
    shapes: TrainState
    create: Callable[[], TrainState]


def plan_train_state(
    model: MoCME,
    optimizers: Optimizers,
    *,
    entities: int,
    averages: bool,
    guided: bool,
    metrics: Sequence[str],
    mapper: Mapper,
    split: bool,
    seeds: Sequence[int],
    start: Start | None = None,
) -> StatePlan:
    """Plan the initial state of one or several seeds: parameters, optimizer state, and sums of the named metrics.

    States of several seeds are stacked as ``state_axes`` says. Rows given by ``start`` are the same for all seeds.
    """
    spec = state_spec(split, averages, guided)

    def initial(seed, start):
        init_key, step_key = jax.random.split(jax.random.key(seed))
        params = init_params(model, init_key, mapper.table_rows(entities, split))
        params = params if start is None else begun(params, start)
        opt_state = OptimizerState(*(one.init(part) for one, part in zip(optimizers, params, strict=True)))
        # A copy, because the memory of the parameters is donated to the first step.
        average = jax.tree.map(jnp.copy, params) if averages else None
        sums = Sums(jnp.zeros((), jnp.int32), {name: jnp.zeros((), jnp.float32) for name in metrics})
        # Entities that have not been seen yet have the maximum entropy.
        entropy = jnp.ones((entities,), jnp.float32) if guided else None
        key = jax.random.key_data(step_key)
        return TrainState(params, opt_state, average, sums, entropy, jnp.zeros((), jnp.int32), key)

    def stacked(seeds, start):
        states = jax.vmap(initial, in_axes=(0, None))(seeds, start)
        return states._replace(sums=Sums(states.sums.steps[0], states.sums.totals), step=states.step[0])

    first, given = (initial, seeds[0]) if len(seeds) == 1 else (stacked, np.asarray(seeds, np.int32))
    shapes = mapper.placed_shapes(jax.eval_shape(first, given, start), spec)
    shardings = jax.tree.map(lambda shape: shape.sharding, shapes)
    return StatePlan(spec, shapes, lambda: mapper.place(jax.jit(first, out_shardings=shardings)(given, start), spec))


def params_shapes(model: MoCME, *, entities: int, mapper: Mapper, split: bool) -> Params:
    """Return the ``params`` of a plan's ``shapes`` without a plan."""
    rows = mapper.table_rows(entities, split)
    shapes = jax.eval_shape(lambda key: init_params(model, key, rows), jax.random.key(0))
    return mapper.placed_shapes(shapes, params_spec(split))
