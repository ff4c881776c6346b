"""Small models, inputs and objectives for tests; keyword arguments replace single choices."""

import jax
import jax.numpy as jnp
import numpy as np

from mocme_jax.method import egns
from mocme_jax.method.complementarity import FUSIONS
from mocme_jax.method.encoder import Encoder
from mocme_jax.method.losses import logistic_loss, margin_softmax_loss, softmax_loss
from mocme_jax.method.mocme import MoCME, init_params
from mocme_jax.method.regularisers import REGULARISERS
from mocme_jax.method.scoring import SCORES
from mocme_jax.method.vector_fusion import VECTOR_FUSIONS, VectorFusion
from mocme_jax.parallel.device_axis import AXIS
from mocme_jax.parallel.entity_tables import Inputs, look_up
from mocme_jax.training.objective import Objective


def tiny_model(score="complex", relations=3, fusion="complementarity", widths=(5, 3), width=8, experts=1) -> MoCME:
    """With an expert for each modality and ``experts`` for all, as ``builders.build_model_of`` makes them."""
    if fusion in VECTOR_FUSIONS:
        one = VectorFusion(widths, width, VECTOR_FUSIONS[fusion], 4, 0.5)
        return MoCME(one, FUSIONS["mean"](1, width, relations), relations, SCORES[score], 4)
    everything, joint = tuple(range(len(widths))), experts if widths else 0
    reads = (tuple((m,) for m in everything) if len(widths) > 1 else ()) + (everything,) * joint
    encoder = Encoder(widths, width, reads, joint, 4, 0.5)
    weights = FUSIONS[fusion if reads else "mean"](encoder.experts, width, relations)
    return MoCME(encoder, weights, relations, SCORES[score], 4)


def tiny_inputs(entities=24, widths=(5, 3), seed=0) -> Inputs:
    """Every modality is missing here and there; entities 0 to 2 have all, 3 has none but the structure."""
    rng = np.random.default_rng(seed)
    present = np.concatenate([np.ones((entities, 1), bool), rng.random((entities, len(widths))) < 0.6], axis=1)
    present[:3], present[3, 1:] = True, False
    features = [rng.standard_normal((entities, width)).astype(np.float32) for width in widths]
    features = [np.where(present[:, i + 1, None], x, 0) for i, x in enumerate(features)]
    evidence = np.log1p(rng.integers(0, 50, entities)).astype(np.float32)
    return Inputs(tuple(map(jnp.asarray, features)), jnp.asarray(present), jnp.asarray(evidence))


def tiny_objective(
    weighting="entropy", loss="softmax", reference="relative", confident="hard", many=3, regulariser="n3", **changes
) -> Objective:
    weightings = dict(uniform=egns.uniform, self_adversarial=egns.self_adversarial)
    weightings["entropy"] = egns.EntropyGuided(
        0.3, 0.8, (0.5, 1.0, 2.0), egns.REFERENCES[reference], egns.CONFIDENT[confident], many
    )
    losses = dict(softmax=softmax_loss, margin_softmax=margin_softmax_loss, logistic=logistic_loss)
    choices = dict(
        pool=6,
        batch_candidates=True,
        guided=False,
        reference=egns.REFERENCES[reference],
        weighting=weightings[weighting],
        loss=losses[loss],
        regulariser=REGULARISERS[regulariser],
        regularisation=0.01,
        query_dropout=0.0,
        precision="float32",
    )
    return Objective(**(choices | changes))


def random_params(model, inputs, scale=0.3, seed=0):
    """Parameters of which none stands at an initial zero, made without compiling ``init``."""
    shapes = jax.eval_shape(lambda key: init_params(model, key, len(inputs.present)), jax.random.key(0))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(scale * rng.standard_normal(x.shape), x.dtype), shapes)


def encode(model, params, inputs, ids):
    """Entities by id, encoded from whole tables."""
    return model.apply(params.model, look_up(params.structure, inputs, ids, split=False), method="encode")


def lanes(function, count=1):
    """The function of a device's index, as ``count`` lanes that make up the axis of devices; results are stacked."""
    return jax.vmap(function, axis_name=AXIS)(jnp.arange(count))


def alone(function):
    """The function with the axis of devices about it, and one device on it."""
    return lambda *arguments: jax.tree.map(lambda x: x[0], lanes(lambda _: function(*arguments)))
