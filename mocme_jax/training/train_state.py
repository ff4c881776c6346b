"""What a training step changes, what it reads, and how both lie on the devices."""

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
from mocme_jax.training.held_out import HeldOut
from mocme_jax.training.optimizers import Optimizers, OptimizerState
from mocme_jax.training.start_vectors import Start, begun

# By name, scalars.
Metrics = dict[str, jax.Array]


class Sums(NamedTuple):
    """Metrics added up step by step since the last evaluation: ``steps`` int32, ``totals`` float32 scalars by name."""

    steps: jax.Array
    totals: Metrics

    def plus(self, metrics: Metrics) -> Sums:
        """With one step more."""
        totals = jax.tree.map(lambda total, new: total + new.astype(total.dtype), self.totals, metrics)
        return Sums(self.steps + 1, totals)


class TrainState(NamedTuple):
    """Everything that a step changes, and the key that it draws from.

    Attributes:
      average: a running average of the parameters, which is what is evaluated; None where none is wanted.
      entropy: ``[N]``, running mean of the entropy in bits of the belief in each entity as a negative; None where pools
        are not drawn by it.
      step: int32 scalar, steps taken; the epoch and the place in it follow from it.
      key: PRNG key data, never changed: a step's key is folded from it and the step.
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
    """What training reads and never changes.

    Attributes:
      triples: int32 ``[T, 3]``, or this device's share of them where tables are split.
      held: which of them are held out.
      known: the facts of the others, by entity.
    """

    triples: jax.Array
    held: HeldOut
    known: KnownAnswers
    inputs: Inputs


def params_spec(split: bool) -> Params:
    """Which parameters are split over the devices."""
    return Params(WHOLE, ROWS if split else WHOLE)


def state_spec(split: bool, averages: bool, guided: bool) -> TrainState:
    """Which parts of the state are split over the devices."""
    params = params_spec(split)
    average, entropy = params if averages else None, WHOLE if guided else None
    return TrainState(params, OptimizerState(*params), average, WHOLE, entropy, WHOLE, WHOLE)


def data_spec(split: bool) -> TrainData:
    """Which parts of the data are split over the devices."""
    known = known_spec(split)
    return TrainData(ROWS if split else WHOLE, HeldOut(WHOLE, known), known, inputs_spec(split))


# Axes of trees of several seeds. Not typed as arrays, whose places in the trees they take.
_EACH: Any = 0
_SHARED: Any = None


def state_axes(averages: bool, guided: bool) -> TrainState:
    """Which axis of the states of several seeds, trained together, counts the seeds; None where they share a value."""
    average, entropy = (_EACH if wanted else _SHARED for wanted in (averages, guided))
    return TrainState(_EACH, _EACH, average, Sums(_SHARED, _EACH), entropy, _SHARED, _EACH)


def data_axes() -> TrainData:
    """The same of what is read: all seeds share it."""
    return TrainData(_SHARED, _SHARED, _SHARED, _SHARED)


class StatePlan(NamedTuple):
    """A state to be made or restored.

    Attributes:
      shapes: of all arrays, split ones as one table, with the places where they belong.
      create: ``() -> TrainState``, the first state, as the programs take it.
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
    """Initial parameters and optimizer state from each seed, made where they belong; sums of the named metrics.

    The states of several seeds are one, stacked as ``state_axes`` says. Rows that ``start`` gives are the same in all.
    """
    spec = state_spec(split, averages, guided)

    def initial(seed, start):
        init_key, step_key = jax.random.split(jax.random.key(seed))
        params = init_params(model, init_key, mapper.table_rows(entities, split))
        params = params if start is None else begun(params, start)
        opt_state = OptimizerState(*(one.init(part) for one, part in zip(optimizers, params, strict=True)))
        # A copy: the parameters' own memory is given to the first step.
        average = jax.tree.map(jnp.copy, params) if averages else None
        sums = Sums(jnp.zeros((), jnp.int32), {name: jnp.zeros((), jnp.float32) for name in metrics})
        # Of what has not been seen yet the model is as unsure as can be.
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
    """The ``params`` of a plan's ``shapes``, where there is no training."""
    rows = mapper.table_rows(entities, split)
    shapes = jax.eval_shape(lambda key: init_params(model, key, rows), jax.random.key(0))
    return mapper.placed_shapes(shapes, params_spec(split))
