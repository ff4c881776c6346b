"""What an encoding may depend on: the entity and the parameters, and nothing else."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import encode as encode_by_id
from tiny_model import random_params, tiny_inputs, tiny_model

from mocme_jax.method.complementarity import FUSIONS
from mocme_jax.method.mocme import init_params
from mocme_jax.method.scoring import SCORES, complex_query
from mocme_jax.method.vector_fusion import VECTOR_FUSIONS, fused_vectors
from mocme_jax.parallel.entity_tables import look_up

EVERYBODY = np.arange(24, dtype=np.int32)
CLOSE = dict(rtol=2e-4, atol=2e-5)


@functools.cache
def made(**changes):
    """Model, inputs, parameters away from their zeros, and the compiled encoder."""
    model, inputs = tiny_model(**changes), tiny_inputs(widths=changes.get("widths", (5, 3)))
    return model, inputs, random_params(model, inputs), jax.jit(functools.partial(encode_by_id, model))


def loop(model, params, inputs, entity):
    """What every expert says of an entity, ``[H, d]``, in float64."""
    encoder, own = model.encoder, params.model["params"].get("encoder", {})
    own = jax.tree.map(lambda x: np.asarray(x, np.float64), own)
    present = np.asarray(inputs.present[entity])
    rows = np.asarray(params.structure[entity], np.float64).reshape(encoder.experts, encoder.width)
    said = [row if present[0] else 0 * row for row in rows]
    copies = {m: 0 for m in range(len(encoder.widths))}
    for j, reads in enumerate(encoder.reads):
        parts = []
        for m in reads:
            if present[m + 1]:
                kernel = own[f"project_{m}"][copies[m]]
                parts.append(
                    own[f"scales_{m}"][copies[m]] * np.asarray(inputs.features[m][entity], np.float64) @ kernel
                )
            copies[m] += 1
        if parts:
            x = np.mean(parts, axis=0)
            down, up = encoder.width**-0.5 * own["expert_down"][j], 0.1 * encoder.hidden**-0.5 * own["expert_up"][j]
            row = said[j + 1] if j >= len(encoder.reads) - encoder.joint else 0
            said[j + 1] = row + x + np.maximum(x @ down, 0) @ up
    return np.stack(said)


@pytest.mark.parametrize("experts", [1, 2])
@pytest.mark.parametrize("widths", [(), (5,), (5, 3)])
def test_encodings_equal_the_loop(widths, experts):
    model, inputs, params, encode = made(widths=widths, experts=experts)
    inputs = inputs._replace(present=inputs.present.at[5:8, 0].set(False))
    encoding = encode(params, inputs, EVERYBODY)
    expected = np.stack([loop(model, params, inputs, entity) for entity in EVERYBODY])
    chex.assert_shape(encoding.vectors, (24, model.encoder.experts, 8))
    np.testing.assert_allclose(encoding.vectors, expected, rtol=1e-4, atol=1e-4)
    reads = [(), *model.encoder.reads]
    present = np.asarray(inputs.present)[:, 1:]
    has = np.stack([present[:, list(read)].any(axis=1) for read in reads], axis=1)
    np.testing.assert_array_equal(encoding.has, has)
    np.testing.assert_array_equal(encoding.evidence, inputs.evidence)


def test_batch_order_and_padding_do_not_matter():
    _, inputs, params, encode = made()
    whole = encode(params, inputs, EVERYBODY)
    shuffled = np.random.default_rng(0).permutation(EVERYBODY)
    padded = np.concatenate([EVERYBODY[5:9], np.zeros(20, np.int32)])
    for ids in (shuffled, padded, EVERYBODY[4:5]):
        part = encode(params, inputs, ids)
        for one, everyone in zip(part, whole, strict=True):
            np.testing.assert_allclose(one, everyone[ids], **CLOSE)


@pytest.mark.parametrize("fusion", [*FUSIONS, *VECTOR_FUSIONS])
def test_nothing_that_the_mask_hides_is_read(fusion):
    """Neither in values nor in gradients."""
    model, inputs, params, _ = made(fusion=fusion)

    def total(params, inputs):
        encoding = encode_by_id(model, params, inputs, EVERYBODY)
        vectors = model.apply(params.model, encoding, method="entity_vectors")
        return sum(jnp.sum(jnp.sin(x)) for x in vectors), encoding

    run = jax.jit(jax.value_and_grad(total, has_aux=True))
    clean = run(params, inputs)
    chex.assert_tree_all_finite(clean)
    for value in (jnp.nan, jnp.inf, 1e30):
        features = tuple(jnp.where(inputs.present[:, i + 1, None], x, value) for i, x in enumerate(inputs.features))
        chex.assert_trees_all_equal(run(params, inputs._replace(features=features)), clean)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("fusion", ["complementarity", "gate", "relation_gate"])
def test_the_fused_score_is_the_weighted_sum_of_the_experts(score, fusion):
    """Of vectors that hold all experts, matched and paired, for one expert's score in float64 at a time."""
    model, inputs, params, encode = made(score=score, fusion=fusion)
    relations = np.arange(24, dtype=np.int32) % 6
    encoding = encode(params, inputs, EVERYBODY)
    apply = functools.partial(model.apply, params.model)
    vectors = apply(encoding, method="entity_vectors")
    queries = apply(vectors.questions, relations, method="query")
    matched, paired = model.match(queries, vectors.answers), model.pair(queries, vectors.answers)
    own, _ = apply(encoding.vectors, relations, method="expert_queries")
    asked = np.exp(apply(encoding, relations, method="query_log_weights"))
    answering = np.exp(apply(encoding, answers=True, method="log_weights"))
    expected = np.zeros((24, 24))
    for j in range(model.encoder.experts):
        scores = np.asarray(model.score.match(own[:, j], encoding.vectors[:, j]), np.float64)
        expected += asked[:, j, None] * answering[:, j] * scores
    np.testing.assert_allclose(matched, expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(paired, np.diag(expected), rtol=1e-3, atol=1e-4)


def test_shares_add_up_to_one_and_follow_the_relation():
    model, inputs, params, encode = made()
    encoding = encode(params, inputs, EVERYBODY)
    plain = np.asarray(model.apply(params.model, encoding, method="shares"))
    asked = np.asarray(model.apply(params.model, encoding, EVERYBODY % 6, method="shares"))
    for shares in (plain, asked):
        np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)
    weights = model.apply(params.model, encoding, answers=False, method="log_weights")
    of_relations = model.apply(params.model, EVERYBODY % 6, method="relation_log_weights")
    powers = np.exp(np.asarray(weights + of_relations, np.float64))
    np.testing.assert_allclose(asked, powers / powers.sum(axis=1, keepdims=True), rtol=1e-4)


@pytest.mark.parametrize("fusion", VECTOR_FUSIONS)
def test_fused_vectors_equal_a_loop(fusion):
    """Softmax over what the entity has of a · tanh(part), or equal weights; in float64."""
    _, inputs, params, encode = made(fusion=fusion)
    inputs = inputs._replace(present=inputs.present.at[5:8, 0].set(False).at[6].set(False))
    found = encode(params, inputs, EVERYBODY).vectors[:, 0]
    own = jax.tree.map(lambda x: np.asarray(x, np.float64), params.model["params"]["encoder"])
    for entity in range(24):
        parts = [np.asarray(params.structure[entity], np.float64)] if inputs.present[entity, 0] else []
        for m in range(2):
            if inputs.present[entity, m + 1]:
                features = np.asarray(inputs.features[m][entity], np.float64)
                x = own[f"scales_{m}"][0] * features @ own[f"project_{m}"][0]
                down, up = 8**-0.5 * own["expert_down"][m], 0.1 * 4**-0.5 * own["expert_up"][m]
                parts.append(x + np.maximum(x @ down, 0) @ up)
        powers = [np.exp(np.tanh(x) @ own["attention"]) if "attention" in own else 1.0 for x in parts]
        expected = sum((power * x for power, x in zip(powers, parts, strict=True)), np.zeros(8)) / max(
            sum(powers), 1e-9
        )
        np.testing.assert_allclose(found[entity], expected, rtol=1e-4, atol=1e-5)


def test_equal_weights_of_vectors_are_the_four_energies_of_ikrl():
    """f(h_S, t_S) + f(h_S, t_I) + f(h_I, t_S) + f(h_I, t_I) of ComplEx, in complex numbers."""
    rng = np.random.default_rng(4)
    parts = rng.standard_normal((2, 2, 8)).astype(np.float32)  # head and tail, structure and picture
    relation = rng.standard_normal(8).astype(np.float32)
    both = fused_vectors(parts, np.ones((2, 2), bool))
    score = complex_query(both[:1], relation[None]) @ both[1]
    h, t = (parts[end, :, :4].astype(complex) + 1j * parts[end, :, 4:] for end in (0, 1))
    r = relation[:4].astype(complex) + 1j * relation[4:]
    energies = [np.sum(h[i] * r * np.conj(t[j])).real for i in range(2) for j in range(2)]
    assert float(score[0]) == pytest.approx(sum(energies) / 4, rel=1e-4)


def test_a_structure_alone_is_a_plain_model():
    model, inputs, params, encode = made(widths=())
    assert model.encoder.experts == 1
    vectors = model.apply(params.model, encode(params, inputs, EVERYBODY), method="entity_vectors")
    np.testing.assert_array_equal(vectors.questions, params.structure)
    np.testing.assert_array_equal(vectors.answers, params.structure)


def test_rows_of_the_first_parameters_do_not_depend_on_their_number():
    model = tiny_model()
    few, many = (init_params(model, jax.random.key(3), rows) for rows in (8, 16))
    np.testing.assert_array_equal(few.structure, many.structure[:8])
    chex.assert_trees_all_equal(few.model, many.model)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_experts_weigh_the_same_at_the_start(fusion):
    model, inputs = tiny_model(fusion=fusion), tiny_inputs()
    params = init_params(model, jax.random.key(0), 24)
    carried = look_up(params.structure, inputs, EVERYBODY, split=False)
    encoding = model.apply(params.model, carried, method="encode")
    shares = model.apply(params.model, encoding, EVERYBODY % 6, method="shares")
    np.testing.assert_allclose(shares, 1 / model.encoder.experts, rtol=1e-6)


@pytest.mark.parametrize("score", ["complex", "transe", "tucker"])
def test_an_expert_that_is_left_out_adds_nothing(score):
    model, inputs, params, encode = made(score=score)
    apply, relations = functools.partial(model.apply, params.model), EVERYBODY % 6
    vectors = apply(encode(params, inputs, EVERYBODY), method="entity_vectors")

    def scores(questions):
        return np.asarray(model.match(apply(questions, relations, method="query"), vectors.answers), np.float64)

    whole = scores(vectors.questions)
    less = [scores(model.without(vectors.questions, j)) for j in range(model.encoder.experts)]
    np.testing.assert_allclose(sum(whole - one for one in less), whole, rtol=1e-3, atol=1e-3)
    assert all(np.abs(whole - one).max() > 1e-2 for one in less)
    np.testing.assert_array_equal(model.without(vectors.questions, -1), vectors.questions)
