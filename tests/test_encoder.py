"""What an encoding may depend on: the entity, the parameters and the panel, and nothing else."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_model import encode as encode_by_id
from tiny_model import panel_of, random_params, tiny_inputs, tiny_model

from mocme_jax.method.complementarity import FUSIONS
from mocme_jax.method.mocme import init_params
from mocme_jax.method.mutual_information import ESTIMATORS

EVERYBODY = np.arange(24, dtype=np.int32)
CLOSE = dict(rtol=2e-4, atol=2e-5)


@functools.cache
def made(**changes):
    """Model, inputs, parameters away from their zeros, and the compiled encoder."""
    model, inputs = tiny_model(**changes), tiny_inputs(widths=changes.get("widths", (5, 3)))
    params = random_params(model, inputs)

    return model, inputs, params, jax.jit(functools.partial(encode_by_id, model))


def with_hidden(inputs, value):
    """The inputs with a value in all rows that the mask hides."""
    features = tuple(jnp.where(inputs.present[:, i + 1, None], x, value) for i, x in enumerate(inputs.features))
    return inputs._replace(features=features)


TRAINED = [pytest.param(estimator, marks=pytest.mark.slow) for estimator in ("infonce_bilinear", "club")]


@pytest.mark.parametrize("estimator", ["gaussian", "infonce", *TRAINED])
def test_batch_order_and_padding_do_not_matter(estimator):
    _, inputs, params, encode = made(estimator=estimator)
    whole = encode(params, inputs, EVERYBODY)
    shuffled = np.random.default_rng(0).permutation(EVERYBODY)
    padded = np.concatenate([EVERYBODY[5:9], np.zeros(20, np.int32)])
    for ids in (shuffled, padded, EVERYBODY[4:5]):
        part = encode(params, inputs, ids)
        for name in ("vectors", "modality_weights", "view_weights", "present"):
            np.testing.assert_allclose(getattr(part, name), getattr(whole, name)[ids], **CLOSE)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_weights(fusion):
    _, inputs, params, encode = made(intra=fusion, inter=fusion)
    present = np.asarray(inputs.present)
    encoding = encode(params, inputs, EVERYBODY)
    modality, view = np.asarray(encoding.modality_weights), np.asarray(encoding.view_weights)
    assert modality.shape == (24, 3)
    assert view.shape == (24, 3, 2)
    assert (modality[~present] == 0).all()
    assert (view[~present] == 0).all()
    if fusion == "sum":
        assert (modality[present] == 1).all()
        assert (view[:, 1:][present[:, 1:]] == 1).all()
    else:
        np.testing.assert_allclose(modality.sum(axis=1), 1, rtol=1e-5)
        np.testing.assert_allclose(view.sum(axis=2), present, rtol=1e-5)
    np.testing.assert_allclose(modality[3], [1, 0, 0])


def test_missing_structure_leaves_an_encoding_from_features():
    _, inputs, params, encode = made()
    encoding = encode(params, inputs, EVERYBODY, EVERYBODY < 12)
    assert (np.asarray(encoding.modality_weights)[:12, 0] == 0).all()
    assert (np.asarray(encoding.modality_weights)[12:, 0] > 0).all()
    chex.assert_tree_all_finite(encoding)
    # The same as a mask that says so from the start, for entities outside the panel, and their rows go unread.
    outside = np.setdiff1d(EVERYBODY[:12], inputs.panel)
    assert len(outside)
    unseen = inputs._replace(present=inputs.present.at[outside, 0].set(False))
    changed = params._replace(structure=params.structure.at[outside].set(1e3))
    again = encode(changed, unseen, outside)
    np.testing.assert_allclose(again.vectors, encoding.vectors[outside], **CLOSE)
    # Features tell such entities apart.
    some = [e for e in range(12) if np.asarray(inputs.present)[e, 1:].any()]
    vectors = np.asarray(encoding.vectors)[some]
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1) + 9 * np.eye(len(some))
    assert distances.min() > 0.01


def test_with_nothing_at_all_there_is_the_learned_vector():
    _, inputs, params, encode = made()
    nothing = params.model["params"]["encoder"]["nothing"]
    encoding = encode(params, inputs, EVERYBODY, EVERYBODY == 3)
    np.testing.assert_array_equal(encoding.vectors[3], nothing)
    np.testing.assert_array_equal(encoding.modality_weights[3], 0)


def test_answers_go_by_structure_where_features_are_for_questions():
    model, inputs = tiny_model(features_in="heads"), tiny_inputs()
    params, hidden = random_params(model, inputs), EVERYBODY < 12

    @functools.partial(jax.jit, static_argnames="answers")
    def encode(inputs, hidden, answers):
        return encode_by_id(model, params, inputs, EVERYBODY, hidden, answers=answers)

    questions, answers = encode(inputs, None, False), encode(inputs, None, True)
    np.testing.assert_allclose(answers.vectors, params.structure, **CLOSE)
    np.testing.assert_array_equal(answers.modality_weights, np.eye(3)[np.zeros(24, int)])
    carries = np.asarray(inputs.present)[:, 1:].any(axis=1)
    assert (np.abs(questions.vectors - answers.vectors).max(axis=1) > 1e-3).tolist() == carries.tolist()
    # With its structure hidden, an entity answers by its features all the same.
    answers, questions = encode(inputs, hidden, True), encode(inputs, hidden, False)
    np.testing.assert_allclose(answers.vectors[:12], questions.vectors[:12], **CLOSE)
    np.testing.assert_array_equal(np.asarray(answers.modality_weights)[12:, 0], 1)


def test_who_is_asked_by_what():
    questions, relations = jnp.array([5.0, 6, 7])[:, None], jnp.array([0, 3, 2])
    for features_in, expected in (("all", [-5, -6, -7]), ("questions", [5, 6, 7]), ("heads", [5, -6, 7])):
        model = tiny_model(features_in=features_in, relations=3)
        asked = model.apply(random_params(model, tiny_inputs()).model, questions, -questions, relations, method="asked")
        assert asked[:, 0].tolist() == expected


# The estimator is read by complementarity alone.
COMBINATIONS = [("complementarity", estimator) for estimator in ESTIMATORS]
COMBINATIONS += [(fusion, "club") for fusion in FUSIONS if fusion != "complementarity"]


@pytest.mark.slow
@pytest.mark.parametrize(("fusion", "estimator"), COMBINATIONS)
def test_every_combination_is_finite_and_reads_nothing_that_the_mask_hides(fusion, estimator):
    """Neither in values nor in gradients, for entities and for the panel."""
    model, inputs = tiny_model(intra=fusion, inter=fusion, estimator=estimator, widths=(5,)), tiny_inputs(widths=(5,))
    params, hidden = random_params(model, inputs), EVERYBODY % 2 == 1

    def total(params, inputs):
        encoding = encode_by_id(model, params, inputs, EVERYBODY, hidden)
        return jnp.sum(jnp.sin(encoding.vectors)) + jnp.sum(encoding.fit) + jnp.sum(encoding.redundancy), encoding

    run = jax.jit(jax.value_and_grad(total, has_aux=True))
    clean = run(params, inputs)
    encoding = clean[0][1]
    chex.assert_tree_all_finite(clean)
    chex.assert_shape(encoding.vectors, (24, 8))
    assert bool(jnp.any(encoding.redundancy)) == (fusion == "complementarity")
    assert bool(jnp.any(encoding.fit)) == (fusion == "complementarity" and ESTIMATORS[estimator].fit is not None)
    for value in (jnp.nan, jnp.inf, 1e30):
        chex.assert_trees_all_equal(run(params, with_hidden(inputs, value)), clean)


def test_modalities_and_views_may_be_fused_differently():
    _, inputs, params, encode = made(intra="mean", inter="sum")
    encoding = encode(params, inputs, EVERYBODY)
    modality, view = np.asarray(encoding.modality_weights), np.asarray(encoding.view_weights)
    np.testing.assert_array_equal(modality, inputs.present)
    features = np.asarray(inputs.present)[:, 1:]
    np.testing.assert_allclose(view[:, 1:][features], 1 / 2, rtol=1e-6)


@pytest.mark.parametrize("experts", [0, 1, 3])
def test_number_of_experts(experts):
    _, inputs, params, encode = made(experts=experts)
    encoding = encode(params, inputs, EVERYBODY)
    view = np.asarray(encoding.view_weights)
    assert view.shape == (24, 3, max(1, experts))
    np.testing.assert_allclose(view.sum(axis=2), inputs.present, rtol=1e-5)
    assert ("expert_up" in params.model["params"]["encoder"]) == (experts > 0)


@pytest.mark.parametrize("relative", [False, True])
def test_without_experts_a_sum_is_structure_plus_projections(relative):
    _, inputs, params, encode = made(experts=0, inter="sum", relative_scales=relative)
    own = jax.tree.map(lambda x: np.asarray(x, np.float64), params.model["params"]["encoder"])
    expected = np.array(params.structure, np.float64)
    unit = 0.5 if relative else 1.0
    for i, features in enumerate(inputs.features):
        for e in np.flatnonzero(inputs.present[:, i + 1]):
            expected[e] += unit * own["scales"][i] * np.asarray(features, np.float64)[e] @ own[f"project_{i}"]
    np.testing.assert_allclose(encode(params, inputs, EVERYBODY).vectors, expected, **CLOSE)


def test_no_feature_modalities_at_all():
    _, inputs, params, encode = made(widths=(), experts=0)
    np.testing.assert_allclose(encode(params, inputs, EVERYBODY).vectors, params.structure, rtol=1e-6)


def test_experts_start_near_the_identity():
    """Each view starts close to its part, and not the same as the next one."""
    inputs, vectors = tiny_inputs(widths=(5,)), []
    model = tiny_model(intra="mean", inter="sum", widths=(5,))
    params = jax.jit(lambda key: init_params(model, key, 24))(jax.random.key(0))
    for experts in (0, 2):
        one = tiny_model(experts=experts, intra="mean", inter="sum", widths=(5,))

        encode = jax.jit(functools.partial(encode_by_id, one))
        vectors.append(np.asarray(encode(params, inputs, EVERYBODY).vectors))
    difference = np.linalg.norm(vectors[1] - vectors[0]) / np.linalg.norm(vectors[0])
    assert 0 < difference < 0.3


def test_the_graphs_information_makes_the_weights():
    """Weights per entity from what was estimated on the panel, in NumPy."""
    model, inputs, params, encode = made(estimator="infonce")
    information = np.asarray(panel_of(model, params, inputs).modalities)
    encoding = encode(params, inputs, EVERYBODY)
    for entity in EVERYBODY:
        has = np.flatnonzero(np.asarray(inputs.present)[entity])
        redundant = [np.mean([information[i, j] for j in has if j != i] or [0.0]) for i in has]
        scores = np.array([0, 1.5, 0.5])[has] - np.array(redundant)
        weights = np.exp(scores - scores.max())
        np.testing.assert_allclose(encoding.modality_weights[entity, has], weights / weights.sum(), rtol=2e-3)
    # Views of a modality weigh the same for all entities that have it.
    views = np.asarray(encoding.view_weights)
    for m in range(3):
        some = views[np.asarray(inputs.present)[:, m], m]
        np.testing.assert_allclose(some, np.broadcast_to(some[:1], some.shape), rtol=1e-5)


def test_redundancy_alone_gives_noise_more_weight():
    """The trap that the prior is there for: noise shares nothing with anything."""
    entities, width = 300, 8
    model = tiny_model(widths=(width, width), width=width, experts=0, prior=(0.0, 0.0, 0.0))
    rng = np.random.default_rng(0)
    inputs = tiny_inputs(entities, (width, width), panel=250)
    inputs = inputs._replace(present=jnp.ones((entities, 3), bool))
    table = rng.standard_normal((entities, width))
    features = table + 0.3 * rng.standard_normal(table.shape), rng.standard_normal(table.shape)
    inputs = inputs._replace(features=tuple(jnp.asarray(x, jnp.float32) for x in features))
    params = random_params(model, inputs)._replace(structure=jnp.asarray(table, jnp.float32))

    def weights(prior):
        one = tiny_model(widths=(width, width), width=width, experts=0, prior=prior)
        encoding = jax.jit(functools.partial(encode_by_id, one))(params, inputs, np.arange(entities, dtype=np.int32))
        return np.asarray(encoding.modality_weights).mean(axis=0)

    structure, informative, noise = weights((0.0, 0.0, 0.0))
    assert noise > max(structure, informative)
    assert weights((3.0, 3.0, 0.0))[2] < noise / 2


def test_the_structure_is_one_view_and_features_have_experts():
    _, inputs, params, encode = made(intra="mean", inter="sum")
    own = params.model["params"]["encoder"]
    assert own["expert_down"].shape == (2, 2, 8, 4)
    encoding = encode(params, inputs, EVERYBODY)
    view = np.asarray(encoding.view_weights)
    assert view[:, 0].tolist() == [[1, 0]] * 24
    np.testing.assert_allclose(encoding.vectors[3], params.structure[3], rtol=1e-6)
    # The first feature modality's experts are the first.
    only = [e for e in range(24) if np.asarray(inputs.present)[e].tolist() == [True, True, False]]
    part = own["scales"][0] * np.asarray(inputs.features[0])[only] @ own["project_0"]
    down, up = own["expert_down"][0] * 8**-0.5, 0.1 * own["expert_up"][0] * 4**-0.5
    views = part[:, None] + np.einsum("nkh,khd->nkd", np.maximum(np.einsum("nd,kdh->nkh", part, down), 0), up)
    expected = np.asarray(params.structure)[only] + views.mean(axis=1)
    np.testing.assert_allclose(np.asarray(encoding.vectors)[only], expected, **CLOSE)


def test_the_fit_moves_the_estimators_alone():
    _, inputs, params, encode = made(estimator="club")
    gradients = jax.jit(jax.grad(lambda p: jnp.sum(encode(p, inputs, EVERYBODY).fit)))(params)
    assert not gradients.structure.any()
    gradients = gradients.model["params"]["encoder"]
    moved = {name for name, leaf in gradients.items() if any(map(jnp.any, jax.tree.leaves(leaf)))}
    assert moved == {"view_estimator", "modality_estimator"}
