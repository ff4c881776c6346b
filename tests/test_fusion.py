"""Fusion weights against small formulas, entity by entity, and the fit against distributions that are known."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mocme_jax.method import complementarity
from mocme_jax.method.complementarity import FUSIONS, SHRINK, SHRINK_COMMON
from mocme_jax.method.losses import softmax_loss
from mocme_jax.method.mutual_information import infonce_bound

ENTITIES, EXPERTS, WIDTH, RELATIONS = 5, 3, 4, 2
RNG = np.random.default_rng(0)
VECTORS = RNG.standard_normal((ENTITIES, EXPERTS, WIDTH)).astype(np.float32)
HAS = RNG.random((ENTITIES, EXPERTS)) < 0.5
EVIDENCE = np.log1p(np.array([0, 1, 5, 20, 300], np.float32))


def made(kind):
    """A fusion, and parameters of which none is 0."""
    fusion = FUSIONS[kind](EXPERTS, WIDTH, RELATIONS)
    shapes = jax.eval_shape(fusion.init, jax.random.key(0), VECTORS, HAS, EVIDENCE)
    rng = np.random.default_rng(1)
    return fusion, jax.tree.map(lambda x: rng.standard_normal(x.shape).astype(np.float32), shapes)


def formula(kind, own, entity, expert, side):
    """The log weight of an expert for an entity; side 0 is asked about, 1 answers."""
    if kind == "mean":
        return 0.0
    if kind == "gate":
        return VECTORS[entity, expert] @ own["kernel"][side, expert]
    if kind == "attention":
        return VECTORS[entity, expert] @ own["kernel"][side] / 2
    if kind == "relation_gate":
        logits = VECTORS[entity].astype(np.float64) * own["kernel"][side]
        logits = logits.sum(axis=1)
        if side == 0:
            return logits[expert]
        return np.log(EXPERTS * np.exp(logits[expert]) / np.exp(logits).sum())
    amount = own["has" if HAS[entity, expert] else "lacks"][side, expert]
    return amount + own["evidence"][side, expert] * EVIDENCE[entity]


@pytest.mark.parametrize("kind", FUSIONS)
def test_weights_equal_the_formula(kind):
    fusion, variables = made(kind)
    own = variables.get("params", {})
    for side, answers in enumerate((False, True)):
        found = fusion.apply(variables, VECTORS, HAS, EVIDENCE, answers=answers, method="entity")
        expected = [[formula(kind, own, e, j, side) for j in range(EXPERTS)] for e in range(ENTITIES)]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    relations = np.array([3, 0, 2])
    found = fusion.apply(variables, relations, method="relation")
    if kind == "complementarity":
        np.testing.assert_array_equal(found, own["relation"][relations])
        squares = {name: float(np.sum(np.square(x, dtype=np.float64))) for name, x in own.items()}
        penalty = SHRINK * squares.pop("relation") + SHRINK_COMMON * sum(squares.values())
        assert float(fusion.apply(variables, method="penalty")) == pytest.approx(penalty, rel=1e-5)
    else:
        assert not np.any(found)


def test_the_relation_gate_is_a_softmax_with_the_temperature_of_the_relation():
    """MoMoK: exp(u_j v_j / sigmoid(e_r)) over its sum; here H times as large, so that the mean weight is 1."""
    fusion, variables = made("relation_gate")
    kernel, temperature = (np.asarray(variables["params"][name], np.float64) for name in ("kernel", "temperature"))
    relations = np.array([3, 0, 2, 1, 3])
    logits = fusion.apply(variables, VECTORS, HAS, EVIDENCE, answers=False, method="entity")
    found = np.exp(fusion.apply(variables, logits, relations, method="query"))
    for entity, relation in enumerate(relations):
        warmth = 1 / (1 + np.exp(-temperature[relation]))
        powers = [np.exp(VECTORS[entity, j] @ kernel[0, j] / warmth) for j in range(EXPERTS)]
        np.testing.assert_allclose(found[entity], EXPERTS * np.array(powers) / sum(powers), rtol=1e-4)
    start = jax.tree.map(np.zeros_like, variables)
    assert np.all(fusion.apply(start, 0 * logits, relations, method="query") == 0)


def test_gradients_go_into_the_fusion_alone():
    variables = {"params": {"fusion": {"a": jnp.ones(2)}, "encoder": {"b": jnp.ones(3)}, "relation": jnp.ones(2)}}

    def total(variables):
        return sum(jnp.sum(x**2) for x in jax.tree.leaves(complementarity.only_fusion(variables)))

    for name, part in jax.grad(total)(variables)["params"].items():
        assert all(bool(np.any(x)) == (name == "fusion") for x in jax.tree.leaves(part)), name


# What experts say of A answers to Q questions, and which answer is right. Evidence that is independent given the answer
# adds up, so that the best weight of an expert with errors of variance v is known: 1 / v, for its negative squared
# distance over 2.
QUERIES, ANSWERS = 2000, 64


def fitted(scores, gold, *, steps=400, has=None, relations=None):
    """Weights with which the fit ends, ``[Q, J]``, of experts whose scores are ``[J, Q, A]``; and the bound in nats."""
    count = len(scores)
    fusion = FUSIONS["complementarity"](count, 1, 1 if relations is None else 2)
    size = len(gold)
    has = np.ones((size, count), bool) if has is None else has
    arguments = np.zeros((size, count, 1), np.float32), has, np.zeros(size, np.float32)
    relations = np.zeros(size, np.int32) if relations is None else relations
    variables = fusion.init(jax.random.key(0), *arguments)
    own = np.take_along_axis(scores, gold[None, :, None], axis=2)[..., 0]
    negative = np.arange(scores.shape[2]) != gold[:, None]
    optimizer = optax.adam(0.05)

    def weights(variables):
        asked = fusion.apply(variables, *arguments, answers=False, method="entity")
        return jnp.exp(asked + fusion.apply(variables, relations, method="relation"))

    def loss(variables):
        of_experts = weights(variables)
        fused = jnp.einsum("qj,jqa->qa", of_experts, scores)
        losses = softmax_loss(jnp.einsum("qj,jq->q", of_experts, own), fused, negative)
        return jnp.mean(losses) + fusion.apply(variables, method="penalty") / size, losses

    def step(carry, _):
        variables, state = carry
        gradients = jax.grad(lambda v: loss(v)[0])(variables)
        updates, state = optimizer.update(gradients, state)
        return (optax.apply_updates(variables, updates), state), None

    (variables, _), _ = jax.jit(lambda c: jax.lax.scan(step, c, None, length=steps))(
        (variables, optimizer.init(variables))
    )
    _, losses = loss(variables)
    return np.asarray(weights(variables)), float(jnp.mean(infonce_bound(losses, np.sum(negative, axis=1))))


def gaussian_experts(variances, seed=0):
    """Each expert sees where the right answer lies, with errors of its variance; it scores by distance."""
    rng = np.random.default_rng(seed)
    places = rng.standard_normal((ANSWERS, 4))
    gold = rng.integers(0, ANSWERS, QUERIES)
    scores = []
    for variance in variances:
        seen = places[gold] + variance**0.5 * rng.standard_normal((QUERIES, 4))
        scores.append(-0.5 * np.sum((seen[:, None] - places[None]) ** 2, axis=2))
    return np.stack(scores).astype(np.float32), gold


def test_gaussian_experts_weigh_by_their_precision():
    scores, gold = gaussian_experts([0.5, 2.0])
    weights, bound = fitted(scores, gold)
    np.testing.assert_allclose(weights.mean(axis=0), [2.0, 0.5], rtol=0.1)
    # The information that is known: of the posterior among all answers, by precision-weighted scores.
    logits = np.einsum("j,jqa->qa", [2.0, 0.5], scores.astype(np.float64))
    logits -= logits.max(axis=1, keepdims=True)
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert bound == pytest.approx(np.log(ANSWERS) + logs[np.arange(QUERIES), gold].mean(), abs=0.01)


def test_copies_share_the_weight_of_one_and_noise_has_none():
    scores, gold = gaussian_experts([0.5])
    alone, bound = fitted(scores, gold)
    copied, same = fitted(np.concatenate([scores, scores]), gold)
    assert copied.mean(axis=0).sum() == pytest.approx(alone.mean(), rel=0.02)
    assert same == pytest.approx(bound, abs=0.002)
    noise = np.random.default_rng(3).standard_normal(scores.shape).astype(np.float32)
    weights, with_noise = fitted(np.concatenate([scores, noise]), gold)
    assert weights[:, 1].mean() < 0.05 * weights[:, 0].mean()
    assert with_noise == pytest.approx(bound, abs=0.01)


def test_a_noisier_copy_loses_its_weight():
    """Two experts: redundancy must not cancel."""
    scores, gold = gaussian_experts([0.5])
    noisier = scores + 3 * np.random.default_rng(4).standard_normal(scores.shape).astype(np.float32)
    weights, _ = fitted(np.concatenate([scores, noisier]), gold)
    assert weights[:, 1].mean() < 0.1 * weights[:, 0].mean()


def test_an_expert_of_one_relation_weighs_there_alone():
    scores, gold = gaussian_experts([1.0, 1.0])
    relations = np.arange(QUERIES) % 2
    scores[1, relations == 1] = np.random.default_rng(5).standard_normal((QUERIES // 2, ANSWERS))
    weights, _ = fitted(scores, gold, relations=relations, steps=1000)
    assert weights[relations == 0, 1].mean() > 3 * weights[relations == 1, 1].mean()


def test_an_expert_without_features_weighs_otherwise():
    """Where one end of triples has no features, the other end's expert keeps its weight."""
    scores, gold = gaussian_experts([0.5, 0.5])
    has = np.ones((QUERIES, 2), bool)
    has[::2, 1] = False
    scores[1, ::2] = np.random.default_rng(6).standard_normal((QUERIES // 2, ANSWERS))
    weights, _ = fitted(scores, gold, has=has)
    assert weights[1::2, 1].mean() > 1.5
    assert weights[::2, 1].mean() < 0.1


def test_the_bound_is_never_above_what_there_is_to_know():
    rng = np.random.default_rng(0)
    positive, scores = (rng.standard_normal(shape).astype(np.float32) for shape in [(50,), (50, 9)])
    losses = softmax_loss(positive, scores, np.ones((50, 9), bool))
    powers = np.exp(np.concatenate([positive[:, None], scores], axis=1), dtype=np.float64)
    expected = np.log(10) + np.log(powers[:, 0] / powers.sum(axis=1))
    np.testing.assert_allclose(infonce_bound(losses, np.full(50, 9.0)), expected, atol=1e-5)
    assert float(infonce_bound(jnp.zeros(1), jnp.full(1, 9.0))[0]) == pytest.approx(np.log(10))
