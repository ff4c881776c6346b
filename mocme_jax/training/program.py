"""Compiled programs: many training steps in one call, and the encoding of all entities, over the local devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mocme_jax.errors import UserError
from mocme_jax.model.encoder import Encoding, Inputs
from mocme_jax.model.mocme import EntityVectors, MoCME
from mocme_jax.objective.candidates import KnownIndex
from mocme_jax.objective.objective import Batch, Objective, make_loss
from mocme_jax.objective.shares import AXIS, share


class TrainState(NamedTuple):
    """Everything that a step changes, and the key that it draws from.

    Attributes:
      params: the model's parameters.
      opt_state: the optimizer's state.
      step: int32 scalar, steps taken; the epoch and the place in it follow from it.
      key: PRNG key data, never changed: a step's key is folded from it and the step.
    """

    params: Any
    opt_state: Any
    step: jax.Array
    key: jax.Array


class TrainData(NamedTuple):
    """What training reads and never changes: ``triples`` int32 ``[T, 3]``, known tails, what entities carry."""

    triples: jax.Array
    known: KnownIndex
    inputs: Inputs


def _mapped(program: Callable, arguments: int, devices: int, *, out_axes: tuple, donate: tuple[int, ...] = ()):
    """``program(index, *arguments)`` over the local devices, called with the arguments alone; each device gets them
    whole. pmap wants one mapped argument: the index is it."""
    mapped = jax.pmap(
        program,
        axis_name=AXIS,
        in_axes=(0, *(None,) * arguments),
        out_axes=out_axes,
        donate_argnums=donate,
        devices=jax.local_devices()[:devices],
    )
    return lambda *args: mapped(jnp.arange(devices), *args)


def replicate(tree: Any, devices: int) -> Any:
    """The tree with every array whole on each of the first local devices, as the programs return their state.

    A program that is given arrays placed in another way is traced and compiled a second time.
    """
    mesh = jax.sharding.Mesh(np.array(jax.local_devices()[:devices]), (AXIS,))
    return jax.device_put(tree, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))


def create_train_state(model: MoCME, optimizer, inputs: Inputs, seed: int) -> TrainState:
    """Initial parameters and optimizer state from a seed."""
    init_key, step_key = jax.random.split(jax.random.key(seed))
    params = jax.jit(model.init)(init_key, inputs)
    opt_state = jax.jit(optimizer.init)(params)
    return TrainState(params, opt_state, jnp.zeros((), jnp.int32), jax.random.key_data(step_key))


def make_train_step(model: MoCME, optimizer, objective: Objective, devices: int) -> Callable:
    """One step of one device's share: ``(state, data, batch, key) -> (state, metrics)``, under the named axis.

    Gradients and metrics are means over the devices, so the state stays the same on all of them.
    """
    loss = make_loss(model, objective, devices)

    def train_step(state: TrainState, data: TrainData, batch: Batch, key: jax.Array):
        gradient = jax.grad(loss, has_aux=True)
        gradients, metrics = gradient(state.params, data.inputs, data.known, batch, key)
        gradients, metrics = jax.lax.pmean((gradients, metrics), AXIS)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        metrics["norm/gradient"] = optax.tree.norm(gradients)
        params = optax.apply_updates(state.params, updates)
        return state._replace(params=params, opt_state=opt_state, step=state.step + 1), metrics

    return train_step


def make_train_program(
    model: MoCME, optimizer, objective: Objective, *, batch_size: int, triples: int, devices: int
) -> Callable:
    """``(state, data, steps) -> (state, metrics)``: that many steps on the devices, with no trip to the host.

    The epoch's order is a permutation drawn on the device from the key and the epoch; the last batch of an epoch is
    filled up from its start. A call must not cross an epoch's end. The state passed in is donated. Metrics are means
    over the steps.

    Raises:
      UserError: the batch does not divide by the devices.
    """
    if batch_size % devices:
        raise UserError(
            f"train.batch_size {batch_size} does not divide by the {devices} devices; take a multiple of {devices}"
        )
    train_step = make_train_step(model, optimizer, objective, devices)
    steps_per_epoch = -(-triples // batch_size)

    def program(_, state: TrainState, data: TrainData, steps: jax.Array):
        key = jax.random.wrap_key_data(state.key)
        order_key, draw_key = jax.random.split(key)
        epoch = state.step // steps_per_epoch
        order = jax.random.permutation(jax.random.fold_in(order_key, epoch), triples)

        def one(state: TrainState):
            first = (state.step % steps_per_epoch) * batch_size
            rows = order[(first + jnp.arange(batch_size)) % triples]
            batch = Batch(data.triples[rows], data.known.groups[rows])
            return train_step(state, data, batch, jax.random.fold_in(draw_key, state.step))

        def body(carry):
            done, state, sums = carry
            state, metrics = one(state)
            return done + 1, state, jax.tree.map(jnp.add, sums, metrics)

        shapes = jax.eval_shape(one, state)[1]
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        _, state, sums = jax.lax.while_loop(lambda carry: carry[0] < steps, body, (jnp.int32(0), state, zeros))
        return state, jax.tree.map(lambda total: total / steps, sums)

    return _mapped(program, 3, devices, out_axes=(None, None), donate=(1,))


def make_encode_program(model: MoCME, *, devices: int, block: int = 1024) -> Callable:
    """``(params, inputs) -> (EntityVectors, weights)`` for all entities, a block at a time on each device.

    In full float32, whatever the device's default: what it gives is ranked. Weights: the mean of each modality
    (over entities that have it) and of each view.
    """
    entities = model.encoder.entities
    block = min(block, -(-entities // devices))
    blocks = -(-entities // (block * devices))

    def program(_, params, inputs: Inputs):
        with jax.default_matmul_precision("highest"):
            panel = model.apply(params, inputs, method="encode_panel")
        ids = jnp.arange(blocks * block * devices, dtype=jnp.int32)
        real = share(ids < entities, devices).reshape(blocks, block)
        ids = share(jnp.minimum(ids, entities - 1), devices).reshape(blocks, block)

        def one(args):
            ids, real = args
            encoding: Encoding = model.apply(params, inputs, ids, panel, method="encode")
            vectors = [encoding.vectors]
            if model.features_in != "all":
                vectors.append(model.apply(params, inputs, ids, panel, answers=True, method="encode").vectors)
            present = encoding.present & real[:, None]
            count = jnp.sum(present, axis=0).astype(jnp.float32)
            modality = jnp.sum(jnp.where(present, encoding.modality_weights, 0), axis=0)
            view = jnp.sum(jnp.where(present[..., None], encoding.view_weights, 0), axis=0)
            return vectors, (count, modality, view)

        with jax.default_matmul_precision("highest"):
            vectors, sums = jax.lax.map(one, (ids, real))
        count, modality, view = jax.lax.psum(jax.tree.map(lambda s: jnp.sum(s, axis=0), sums), AXIS)
        count = jnp.maximum(count, 1)
        return [table.reshape(-1, table.shape[-1]) for table in vectors], (modality / count, view / count[:, None])

    mapped = _mapped(program, 2, devices, out_axes=(0, None))

    def encode(params, inputs: Inputs):
        tables, weights = mapped(params, inputs)
        # Whole on every device: each ranks its own queries against all entities.
        tables = [replicate(table.reshape(-1, table.shape[-1])[:entities], devices) for table in tables]
        return EntityVectors(tables[0], tables[-1]), weights

    return encode
