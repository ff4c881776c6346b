"""The training step of one device, and the compiled program that runs many steps on all devices."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from mocme_jax.errors import UserError
from mocme_jax.method.egns import remembered
from mocme_jax.method.mocme import Params
from mocme_jax.parallel.device_axis import AXIS, SEEDS, across_devices
from mocme_jax.parallel.mesh import WHOLE, Mapper, Program
from mocme_jax.parallel.sharded_tables import take_everywhere
from mocme_jax.training.objective import StepLoss
from mocme_jax.training.optimizers import Optimizers, OptimizerState, update_rows
from mocme_jax.training.shuffling import batch_rows, run_keys
from mocme_jax.training.train_state import (
    Metrics,
    TrainData,
    TrainState,
    data_spec,
    state_axes,
    state_spec,
)

# Steps between two updates of the running average. An update is a pass over all parameters.
AVERAGE_EVERY = 16


def make_train_step(loss: StepLoss, optimizers: Optimizers, *, devices: int, split: bool, sparse: bool) -> Callable:
    """Make the training step of one device, ``(state, data, batch, key) -> (state, metrics)``, under the named axis.

    Gradients of replicated parameters and metrics are means over the devices, so the state stays the same on all
    devices.

    Args:
      loss: the loss of a step.
      optimizers: the optimizers.
      devices: the number of devices.
      split: whether the structure table is sharded.
      sparse: update only the rows of the structure table that the step read, instead of the whole table.
    """

    def dense(state: TrainState, fetch: Callable, loss_of: Callable):
        def whole(params: Params):
            return loss_of(params.model, fetch(params.structure))

        gradients, told = jax.grad(whole, has_aux=True)(state.params)
        # The gradient of a device's own rows is already that of the sum of all devices' losses.
        table = gradients.structure / devices if split else jax.lax.pmean(gradients.structure, AXIS)
        update, table_state = optimizers.structure.update(table, state.opt_state.structure, state.params.structure)
        squares = jnp.sum(table**2)
        squares = jax.lax.psum(squares, AXIS) if split else squares
        return gradients.model, state.params.structure + update, table_state, squares, told

    def rows_only(state: TrainState, fetch: Callable, loss_of: Callable, ids: jax.Array):
        fetched = fetch(state.params.structure)

        def of_rows(params, structure):
            return loss_of(params, fetched._replace(structure=structure))

        gradient = jax.grad(of_rows, argnums=(0, 1), has_aux=True)
        (gradients, rows), told = gradient(state.params.model, fetched.structure)
        table, table_state, squares = update_rows(
            optimizers.structure, state.params.structure, state.opt_state.structure, ids, rows / devices, split=split
        )
        return gradients, table, table_state, jax.lax.psum(squares, AXIS) if split else squares, told

    def train_step(state: TrainState, data: TrainData, batch: jax.Array, key: jax.Array):
        columns = loss.columns(batch, key, state.entropy)
        negatives = loss.negatives(data.known, columns, batch)

        def fetch(structure):
            return loss.fetch(structure, data.inputs, columns, batch)

        def loss_of(params, fetched):
            return loss.loss(params, fetched, columns, negatives, batch, key)

        if sparse:
            found = rows_only(state, fetch, loss_of, columns.ids[columns.places])
        else:
            found = dense(state, fetch, loss_of)
        gradients, table, table_state, squares, (metrics, seen) = found
        gradients, metrics = jax.lax.pmean((gradients, metrics), AXIS)
        updates, model_state = optimizers.model.update(gradients, state.opt_state.model, state.params.model)
        metrics["norm/gradient"] = jnp.sqrt(optax.tree.norm(gradients, squared=True) + squares)
        params = Params(optax.apply_updates(state.params.model, updates), table)
        opt_state = OptimizerState(model_state, table_state)
        entropy = state.entropy
        if entropy is not None and seen is not None:
            entropy = remembered(entropy, seen, across_devices(devices))
        state = state._replace(params=params, opt_state=opt_state, entropy=entropy, step=state.step + 1)
        return state, metrics

    return train_step


def averaged(state: TrainState, steps: float) -> TrainState:
    """Move the average of the state towards the parameters, at every 16th step.

    It is an exponential average over about this many steps, and the plain mean before that many steps have been taken
    (Polyak and Juditsky, 1992). At other steps the average does not change in any bit, so calls may end at any step.

    Args:
      state: the state.
      steps: the span of the average in steps.
    """
    updates = (state.step // AVERAGE_EVERY).astype(jnp.float32)
    pace = jnp.maximum(AVERAGE_EVERY / steps, 1 / jnp.maximum(updates, 1))
    # Before the first update, the average equals the parameters.
    copied = (state.step <= AVERAGE_EVERY) | (pace >= 1)
    moves = (state.step % AVERAGE_EVERY == 0) | (state.step < AVERAGE_EVERY)

    def one(old, new):
        return jnp.where(moves, jnp.where(copied, new, old + pace * (new - old)), old)

    return state._replace(average=jax.tree.map(one, state.average, state.params))


def finite(metrics: Metrics) -> jax.Array:
    """Return whether the loss and the gradient of a step are finite; a bool scalar, or one per seed."""
    return jnp.isfinite(metrics["loss/total"]) & jnp.isfinite(metrics["norm/gradient"])


def make_train_program(
    loss: StepLoss,
    optimizers: Optimizers,
    *,
    batch_size: int,
    triples: int,
    mapper: Mapper,
    split: bool = False,
    sparse: bool = False,
    average_steps: float = 0.0,
    seeds: bool = False,
) -> Program:
    """Make the program ``(state, data, steps) -> (state, latest)``, which takes that many steps on the devices.

    The state after a number of steps is the same, bit for bit, however the steps are divided into calls. The triples
    and random draws of a step depend on the key and the step only, and metrics are summed in the state. A step whose
    loss or gradient is not finite is the last of its call. ``latest`` holds the metrics of the last step, and ``step``,
    the number of steps taken after it. The state passed in is donated.

    Args:
      loss: see ``make_train_step``.
      optimizers: see ``make_train_step``.
      batch_size: the batch size B over all devices.
      triples: the number of training triples T.
      mapper: the devices.
      split: see ``make_train_step``.
      sparse: see ``make_train_step``.
      average_steps: the span of the running average in steps; 0 if the state has none.
      seeds: whether state and data are of several seeds (see ``state_axes``). Each seed is a lane of one program and
        gives the same results as alone. Tables must be replicated. ``latest`` is then ``[S]``. The call continues while
        any seed is finite; for a seed that is not, ``latest`` describes its first such step.

    Raises:
      UserError: the batch size does not divide by the number of devices.
    """
    devices = mapper.count
    if batch_size % devices:
        raise UserError(
            f"train.batch_size {batch_size} is not a multiple of the {devices} devices; choose a multiple of {devices}"
        )
    train_step = make_train_step(loss, optimizers, devices=devices, split=split, sparse=sparse)

    def program(state: TrainState, data: TrainData, steps: jax.Array):
        order_key, draw_key = run_keys(state.key)
        last = state.step + steps

        def fine(latest):
            # One condition for all seeds, because a loop with lanes that end at different steps would copy its state.
            return jax.lax.pmax(finite(latest).astype(jnp.int32), SEEDS) > 0 if seeds else finite(latest)

        def going(end):
            return lambda carry: (carry[0].step < end) & fine(carry[1])

        def one(carry):
            state, before = carry
            rows = batch_rows(order_key, state.step, batch_size=batch_size, triples=triples)
            batch = take_everywhere(data.triples, rows) if split else data.triples[rows]
            state, metrics = train_step(state, data, batch, jax.random.fold_in(draw_key, state.step))
            latest = metrics | {"step": state.step}
            if seeds:
                # A seed that is no longer finite keeps the metrics of its first such step.
                latest = jax.tree.map(lambda old, new: jnp.where(finite(before), new, old), before, latest)
            return state._replace(sums=state.sums.plus(metrics)), latest

        def stretch(carry):
            """Take the steps up to the next update of the average."""
            end = jnp.minimum(last, (carry[0].step // AVERAGE_EVERY + 1) * AVERAGE_EVERY)
            state, latest = jax.lax.while_loop(going(end), one, carry)
            return averaged(state, average_steps), latest

        none = jax.tree.map(jnp.zeros_like, state.sums.totals) | {"step": jnp.zeros((), jnp.int32)}
        return jax.lax.while_loop(going(last), stretch if average_steps else one, (state, none))

    if seeds:
        axes = state_axes(bool(average_steps), loss.guided)
        # All seeds share the data.
        program = jax.vmap(program, in_axes=(axes, None, None), out_axes=(axes, 0), axis_name=SEEDS)
    spec = state_spec(split, bool(average_steps), loss.guided)
    return mapper.map(program, (spec, data_spec(split), WHOLE), (spec, WHOLE), donate=(0,))
