"""The fit of the fusion weights on dev: beside a NumPy loop over all candidates, and what it may not depend on."""

import dataclasses
import functools
from types import SimpleNamespace
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_graph import write_tiny_graph
from tiny_model import encode, random_params, tiny_inputs, tiny_model

from mocme_jax.additions.addition import Additions, changed
from mocme_jax.additions.self_answers import SelfAnswers
from mocme_jax.config import config_from_dict
from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph
from mocme_jax.evaluation.dev_folds import dev_folds, from_folds
from mocme_jax.evaluation.evaluator import Evaluator
from mocme_jax.evaluation.metrics import ranking_metrics
from mocme_jax.method.complementarity import FUSIONS, SHRINK, SHRINK_COMMON
from mocme_jax.method.encoder import Encoder
from mocme_jax.method.mocme import MoCME, Params
from mocme_jax.parallel.entity_tables import inputs_spec
from mocme_jax.parallel.known_answers import LIST_WIDTH
from mocme_jax.parallel.mesh import WHOLE, Mapper
from mocme_jax.training.best_model import restore_best
from mocme_jax.training.device_data import make_known
from mocme_jax.training.entity_encoding import Unencoded, block_source, make_block_encoding, make_encode_program
from mocme_jax.training.information import gain_of_weights
from mocme_jax.training.lanes import OneLane, StackedLanes
from mocme_jax.training.model_scorer import ModelScorer
from mocme_jax.training.setup import builders
from mocme_jax.training.train_state import TrainState, params_spec
from mocme_jax.training.weight_fit import make_weight_fit, unfitted, with_fusion

ENTITIES, RELATIONS, DEV = 48, 3, 120
ONE = Mapper("pmap", 1)
# The last relation has self-answers in train, the others have none.
NEVER = np.tile([True, True, False], 2)
FUSION = ("evidence", "has", "lacks", "relation")


def choose_train():
    """Random triples, and a query with more answers than a list holds."""
    rng = np.random.default_rng(0)
    hub = [(0, 1, tail) for tail in range(5, 5 + LIST_WIDTH + 4)]
    triples = np.concatenate([rng.integers(0, [ENTITIES, RELATIONS, ENTITIES], (150, 3)), hub])
    return triples[~((triples[:, 0] == triples[:, 2]) & NEVER[triples[:, 1]])].astype(np.int32)


TRAIN = choose_train()


@functools.cache
def trained(score="complex", fusion="complementarity"):
    """Make a model, its inputs, and random parameters, so that no weight is 0."""
    model, inputs = tiny_model(score, fusion=fusion), tiny_inputs(ENTITIES)
    return model, inputs, random_params(model, inputs, scale=0.7)


@functools.cache
def experts_scores(score="complex"):
    """The encoding of all entities, and ``scores_of`` the trained model."""
    return scores_of(*trained(score))


def scores_of(model, inputs, params):
    """The encoding, and each expert's scores ``[H, 2R, N, N]`` of all candidates for all queries."""
    encoding = encode(model, params, inputs, np.arange(ENTITIES))
    found = []
    for relation in range(2 * RELATIONS):
        rows = jnp.full(ENTITIES, relation)
        asked, _ = model.apply(params.model, encoding.vectors, rows, method="expert_queries")
        found.append(jax.vmap(model.score.match, in_axes=1)(asked, encoding.vectors))
    return encoding, np.asarray(jnp.stack(found, axis=1), np.float64)


@functools.cache
def dev_of(score="complex"):
    """Dev triples that expert 1 knows."""
    return draw_dev(experts_scores(score)[1][1])


def draw_dev(scores):
    """Draw dev triples by one expert's scores ``[2R, N, N]``, with noise; the others know nothing of them."""
    rng, known, dev = np.random.default_rng(1), set(map(tuple, TRAIN.tolist())), []
    while len(dev) < DEV:
        relation, head = int(rng.integers(RELATIONS)), int(rng.integers(ENTITIES)) if len(dev) % 12 else 0
        own = 4 * scores[relation, head] / scores[relation, head].std()
        tail = int(np.argmax(own + rng.gumbel(size=ENTITIES)))
        if (head, relation, tail) not in known and not (head == tail and NEVER[relation]):
            known.add((head, relation, tail))
            dev.append((head, relation, tail))
    return np.array(dev, np.int32)


@functools.cache
def mapper_of(kind, count):
    return Mapper(kind, count)


def fit_of(dev=None, *, known_dev=None, mapper=ONE, split=False, score="complex", **options):
    """The fit and the model's parameters, placed."""
    model, inputs, params = trained(score)
    dev = dev_of(score) if dev is None else dev
    bars = (SelfAnswers(NEVER),)
    known = make_known([TRAIN], ENTITIES, RELATIONS, mapper, split=split, bars=bars)
    known_dev = make_known([dev if known_dev is None else known_dev], ENTITIES, RELATIONS, mapper, split=split)
    placed = mapper.place(jax.device_get(inputs), inputs_spec(split))
    options |= dict(entities=ENTITIES, mapper=mapper, split=split)
    fit = make_weight_fit(model, dev, placed, known, known_dev, **options)
    return fit, mapper.place(jax.device_get(params), params_spec(split))


@functools.cache
def fitted_of(score="complex"):
    fit, params = fit_of(score=score)
    return fit(params)


def fusion_of(params):
    return jax.device_get(params.model["params"]["fusion"])


def log_weights(fusion, encoding):
    """Of queries ``[2R, N, H]`` and of answers ``[N, H]``, by the formula."""
    has, evidence = np.asarray(encoding.has), np.asarray(encoding.evidence, np.float64)[:, None]
    ends = [
        np.where(has, fusion["has"][side], fusion["lacks"][side]) + evidence * fusion["evidence"][side]
        for side in (0, 1)
    ]
    return ends[0] + fusion["relation"][:, None], ends[1]


def fused_scores(fusion, score="complex"):
    """Fused scores ``[2R, N, N]`` in float64."""
    encoding, scores = experts_scores(score)
    asked, answers = log_weights(fusion, encoding)
    return np.einsum("rnh,mh,hrnm->rnm", np.exp(asked), np.exp(answers), scores)


def queries_of(dev):
    """Relation in [0, 2R), known entity and answer."""
    return [(r, h, t) for h, r, t in dev.tolist()] + [(r + RELATIONS, t, h) for h, r, t in dev.tolist()]


@functools.cache
def facts(score):
    return set(queries_of(TRAIN)) | set(queries_of(dev_of(score)))


def penalised_loss(fusion, dev, score="complex"):
    """The loss of all queries and all candidates, by a loop."""
    scores, total = fused_scores(fusion, score), 0.0
    for relation, entity, answer in queries_of(dev):
        barred = entity if NEVER[relation] else -1
        fine = [e for e in range(ENTITIES) if (relation, entity, e) not in facts(score) and e != barred]
        own = scores[relation, entity]
        total += np.logaddexp.reduce(own[[answer, *fine]]) - own[answer]
    common = sum(np.sum(np.square(fusion[name])) for name in ("has", "lacks", "evidence"))
    return (total + SHRINK * np.sum(np.square(fusion["relation"])) + SHRINK_COMMON * common) / (2 * len(dev))


def flat(fusion):
    return np.concatenate([np.ravel(fusion[name]).astype(np.float64) for name in FUSION])


def unflat(values):
    shapes, done, found = {name: fusion_of(trained()[2])[name].shape for name in FUSION}, 0, {}
    for name in FUSION:
        size = int(np.prod(shapes[name]))
        found[name], done = values[done : done + size].reshape(shapes[name]), done + size
    return found


@functools.cache
def slope(at, dev_fold, score="complex"):
    """The norm of the loss's gradient by central differences; ``dev_fold`` -1: all of dev."""
    dev = dev_of(score) if dev_fold < 0 else dev_of(score)[dev_folds(DEV)[dev_fold]]
    values, steps = np.array(at), 1e-4 * np.eye(len(at))
    return np.linalg.norm(
        [
            (penalised_loss(unflat(values + one), dev, score) - penalised_loss(unflat(values - one), dev, score)) / 2e-4
            for one in steps
        ]
    )


# Weights of all of dev, and those that rank fold 0, which are fitted on fold 1. With another mask or penalty, the slope
# is above these shares.
@pytest.mark.parametrize(("fold", "share"), [(-1, 0.008), (1, 0.005)])
def test_the_weights_minimise_the_penalised_loss_of_all_queries_and_candidates(fold, share):
    fitted = fitted_of()
    dev = dev_of() if fold < 0 else dev_of()[dev_folds(DEV)[fold]]
    values = flat(fusion_of(fitted.params if fold < 0 else fitted.folds[1 - fold]))
    equal = np.zeros_like(values)
    assert penalised_loss(unflat(values), dev) < penalised_loss(unflat(equal), dev) - 0.1
    assert slope(tuple(values), fold) < share * slope(tuple(equal), fold)


@pytest.mark.parametrize("score", ["transe", "rotate", "tucker"])
def test_the_weights_are_better_than_those_around_them(score):
    values, rng = flat(fusion_of(fitted_of(score).params)), np.random.default_rng(0)
    best = penalised_loss(unflat(values), dev_of(score), score)
    assert best < penalised_loss(unflat(0 * values), dev_of(score), score)
    for _ in range(5):
        near = unflat(values + 0.3 * rng.standard_normal(len(values)))
        assert best < penalised_loss(near, dev_of(score), score)


def test_only_the_fusion_changes_and_its_own_values_do_not_matter():
    fit, params = fit_of()
    before = jax.device_get(params)
    fitted = fit(params)
    assert len(fitted.folds) == 2
    for one in (fitted.params, *fitted.folds):
        assert not np.array_equal(flat(fusion_of(one)), flat(fusion_of(params)))
        chex.assert_trees_all_equal(with_fusion(jax.device_get(one), fusion_of(params)), before)
    chex.assert_trees_all_equal(jax.device_get(fit(fitted.params)), jax.device_get(fitted))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "count", "split"),
    [("pmap", 2, False), ("pmap", 8, True), ("shard_map", 4, True), ("shard_map", 2, False), ("none", 2, True)],
)
def test_devices_and_mappers_give_the_same_weights(kind, count, split):
    fit, params = fit_of(mapper=mapper_of(kind, count), split=split)
    fitted = fit(params)
    for one, other in zip((fitted.params, *fitted.folds), (fitted_of().params, *fitted_of().folds), strict=True):
        np.testing.assert_allclose(flat(fusion_of(one)), flat(fusion_of(other)), atol=2e-3)


def test_a_fold_has_no_say_in_the_weights_that_rank_it():
    """Known answers stay, so that only the fold's own triples change."""
    fit, params = fit_of()
    before = fit(params)
    for number, fold in enumerate(dev_folds(DEV)):
        other = dev_of().copy()
        other[fold] = np.random.default_rng(2).integers(0, [ENTITIES, RELATIONS, ENTITIES], (int(fold.sum()), 3))
        after = fit_of(other, known_dev=dev_of())[0](params)
        np.testing.assert_array_equal(flat(fusion_of(after.folds[number])), flat(fusion_of(before.folds[number])))
        for one, two in ((after.params, before.params), (after.folds[1 - number], before.folds[1 - number])):
            assert np.abs(flat(fusion_of(one)) - flat(fusion_of(two))).max() > 0.1


def test_folds_are_halves_and_put_together_again():
    first, second = dev_folds(DEV)
    np.testing.assert_array_equal(first, ~second)
    assert first.sum() == second.sum()
    assert np.flatnonzero(first)[-1] - first.sum() > 0, "not the first half"
    values = np.arange(2 * DEV)
    np.testing.assert_array_equal(from_folds([values[np.tile(fold, 2)] for fold in (first, second)]), values)
    assert [fold.tolist() for fold in dev_folds(1)] == [[True]]


@functools.cache
def scorer_of(in_blocks=False, dev=True):
    model, inputs, _ = trained()
    dev = dev_of() if dev else dev_of()[:0]
    graph = KnowledgeGraph("tiny", range(ENTITIES), range(RELATIONS), TRAIN, dev, dev_of()[::-1])
    sources = {Unencoded: block_source(model, entities=ENTITIES, devices=1, split=False)}
    additions = Additions((), (SelfAnswers(NEVER),), TRAIN, (ENTITIES, RELATIONS))
    evaluator = Evaluator(model, graph, [TRAIN, dev_of()], mapper=ONE, sources=sources, additions=additions)
    make = make_block_encoding if in_blocks else make_encode_program
    encode = make(model, entities=ENTITIES, mapper=ONE, split=False)
    placed = ONE.place(jax.device_get(inputs), inputs_spec(False))
    return ModelScorer(evaluator, placed, encode, fit_of()[0] if len(dev) else unfitted)


def loop_ranks(fusion, dev):
    scores, ranks = fused_scores(fusion), []
    for relation, entity, answer in queries_of(dev):
        own, barred = scores[relation, entity], entity if NEVER[relation] else -1
        fine = [e for e in range(ENTITIES) if (relation, entity, e) not in facts("complex") and e != barred]
        ranks.append(1 + int(np.sum(own[fine] > own[answer])))
    return np.array(ranks)


@pytest.mark.parametrize("in_blocks", [False, True])
def test_each_fold_of_dev_is_ranked_with_weights_of_the_other_and_test_with_those_of_all(in_blocks):
    scorer, fitted, expected = scorer_of(in_blocks), fitted_of(), np.zeros((2, DEV))
    for fold, params in zip(dev_folds(DEV), fitted.folds, strict=True):
        expected[:, fold] = loop_ranks(fusion_of(params), dev_of()[fold]).reshape(2, -1)
    ranks = scorer.dev_ranks(fitted)
    np.testing.assert_array_equal(ranks, expected.ravel())
    np.testing.assert_array_equal(scorer.both_dev_ranks(fitted), np.stack([ranks, ranks], axis=1))
    all_of_dev = loop_ranks(fusion_of(fitted.params), dev_of())
    assert (ranks != all_of_dev).any()
    np.testing.assert_array_equal(scorer.test_ranks(fitted).reshape(2, -1)[:, ::-1], all_of_dev.reshape(2, -1))
    asked, _ = log_weights(fusion_of(fitted.params), experts_scores()[0])
    assert np.sum(scorer.shares(fitted)) == pytest.approx(1, rel=1e-5)
    assert np.argmax(scorer.shares(fitted)) == np.argmax(asked.mean(axis=(0, 1)))


def test_the_gain_is_over_equal_weights_of_the_same_experts():
    model, scorer, fitted = trained()[0], scorer_of(), fitted_of()
    ranks = scorer.dev_ranks(fitted)
    told = gain_of_weights(model, fitted, scorer, ONE, ranks)
    equal = jax.tree.map(np.zeros_like, fusion_of(fitted.params))
    after, before = 1 / ranks, 1 / loop_ranks(equal, dev_of())
    assert told["fitted"] == pytest.approx(after.mean())
    assert told["before"] == pytest.approx(before.mean())
    gains = (after - before).reshape(2, -1).mean(axis=0)
    assert told["gain"] == pytest.approx(gains.mean())
    assert told["margin"] == pytest.approx(1.96 * gains.std(ddof=1) / np.sqrt(DEV))
    assert told["gain"] > told["margin"]
    assert gain_of_weights(model, unfitted(fitted.params), scorer, ONE, ranks) is None


def test_without_dev_all_weights_stay_and_a_single_triple_does_not_rank_itself():
    params = ONE.place(jax.device_get(trained()[2]), params_spec(False))
    scorer = scorer_of(dev=False)
    fitted = scorer.fit(params)
    assert fitted.folds == ()
    chex.assert_trees_all_equal(fitted.params, params)
    alone = fit_of(dev_of()[:1])[0](params)
    assert np.any(flat(fusion_of(alone.params)))
    (one,) = alone.folds
    assert not np.any(flat(fusion_of(one)))


def mean_weights(fusion):
    """Of each expert, the mean log weight of a query and an answer."""
    asked, answers = log_weights(fusion, experts_scores()[0])
    return asked.mean(axis=(0, 1)) + answers.mean(axis=0)


def test_an_expert_that_knows_the_answers_outweighs_noise():
    """Expert 1 drew the answers. So it does by each fold of dev alone."""
    for params in (fitted_of().params, *fitted_of().folds):
        weights = mean_weights(fusion_of(params))
        assert weights[1] > 0
        assert np.delete(weights, 1).max() < -0.5


def test_a_copy_shares_the_weight():
    """Both copies have the same weights, and together they weigh about as much as one without a copy."""
    model, inputs = tiny_model(widths=(5, 5), experts=0), tiny_inputs(ENTITIES, (5, 5))
    copied = dict(features=inputs.features[:1] * 2, present=inputs.present.at[:, 2].set(inputs.present[:, 1]))
    inputs, params = inputs._replace(**copied), random_params(model, inputs, scale=0.7)
    encoder, width = params.model["params"]["encoder"], model.encoder.width

    def twice(table):
        return table.at[:, 2 * width :].set(table[:, width : 2 * width])

    relation = twice(params.model["params"]["relation"])
    copies = {
        name.replace("_0", end): jnp.repeat(x[:1], 1 if "_0" in name else 2, axis=0)
        for name, x in encoder.items()
        for end in ("_0", "_1")
        if "_1" not in name
    }
    params = params._replace(structure=twice(params.structure))
    params.model["params"].update(relation=relation, encoder=copies)
    one = {name: x[:1] for name, x in copies.items() if "_1" not in name}
    own = {"relation": relation[:, : 2 * width], "encoder": one, "fusion": {}}
    own["fusion"] = jax.tree.map(lambda x: x[..., :2], params.model["params"]["fusion"])
    alone = Params({"params": own}, params.structure[:, : 2 * width])
    single = MoCME(
        Encoder((5,), width, ((0,),), 0, 4, 0.5),
        FUSIONS["complementarity"](2, width, RELATIONS),
        RELATIONS,
        model.score,
        4,
    )
    few = inputs._replace(features=inputs.features[:1], present=inputs.present[:, :2])
    cases = (model, inputs, params), (single, few, alone)
    scores = [scores_of(*case)[1] for case in cases]
    np.testing.assert_allclose(scores[0][:2], scores[1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(scores[0][1], scores[0][2], rtol=1e-4, atol=1e-4)
    dev = draw_dev(scores[0][1])
    known, known_dev = (make_known([rows], ENTITIES, RELATIONS, ONE) for rows in (TRAIN, dev))
    weights = []
    for model, inputs, params in cases:
        fit = make_weight_fit(model, dev, inputs, known, known_dev, entities=ENTITIES, mapper=ONE)
        asked, answers = log_weights(
            fusion_of(fit(ONE.place(jax.device_get(params), WHOLE)).params), scores_of(model, inputs, params)[0]
        )
        weights.append(np.exp(asked.mean(axis=(0, 1)) + answers.mean(axis=0)))
    assert weights[0][1] == pytest.approx(weights[0][2], rel=1e-3)
    assert weights[0][1] < 0.7 * weights[1][1]
    assert weights[0][1:].sum() == pytest.approx(weights[1][1], rel=0.25)


class Halved(NamedTuple):
    """A table addition: all but some rows are halved, by a factor that is measured."""

    kept: np.ndarray
    factor: np.ndarray = np.float32(1)

    def measured(self, structure):
        return self._replace(factor=jnp.float32(0.5) * (jnp.max(structure) > -jnp.inf))

    def rows(self, before, ids):
        return jnp.where(jnp.isin(ids, self.kept)[:, None], before(ids), self.factor * before(ids))


def test_table_additions_count():
    """As if the table were changed already."""
    additions = (Halved(np.arange(0, ENTITIES, 3, dtype=np.int32)),)
    fit, params = fit_of(additions=additions)
    expected = fit_of()[0](params._replace(structure=changed(params.structure, additions)))
    found = fit(params)
    np.testing.assert_allclose(flat(fusion_of(found.params)), flat(fusion_of(expected.params)), atol=1e-3)
    assert np.abs(flat(fusion_of(found.params)) - flat(fusion_of(fitted_of().params))).max() > 0.01


def test_lanes_have_the_weights_that_each_has_alone_in_their_parameters_and_their_average():
    fit, params = fit_of()
    seeds = [jax.tree.map(lambda x, n=n: x * (1 + 0.2 * n), params) for n in range(3)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *seeds)
    rest = dict(opt_state=None, sums=None, entropy=None, step=None, key=None)
    state = TrainState(params=stacked, average=jax.tree.map(jnp.copy, stacked), **rest)
    lanes = StackedLanes(SimpleNamespace(mapper=ONE), None, None)
    # Not of lane 1, which has diverged.
    for number in (0, 2):
        state = lanes.with_fusion(state, fit(lanes.of(state.evaluated, number)).params, number)
    for number, own in enumerate(seeds):
        expected = jax.device_get(fit(own).params if number != 1 else own)
        for part in (state.params, state.average):
            chex.assert_trees_all_equal(jax.device_get(lanes.of(part, number)), expected)
        alone = OneLane(SimpleNamespace(mapper=ONE), None, None).with_fusion(
            TrainState(params=own, average=None, **rest), fit(own).params, 0
        )
        if number != 1:
            chex.assert_trees_all_equal(jax.device_get(alone.params), expected)
        assert alone.average is None


@pytest.mark.slow
def test_test_facts_have_no_say_and_known_answers_are_those_of_the_training(tmp_path):
    """Not as answers either. Whoever evaluates later finds the same weights, to the bit."""
    config = config_from_dict(
        {
            "data": {"name": "tiny", "dir": str(write_tiny_graph(tmp_path)), "modalities": ["text", "numeric"]},
            "model": {"width": 8, "expert_hidden": 4, "self_answers": "seen"},
            "parallel": {"devices": 1},
        }
    )
    dataset = builders.load_dataset(config)
    graph, mapper = dataset.graph, builders.build_mapper(config)
    model = builders.build_model(config, graph)
    training = builders.build_training(config, model, graph, mapper)
    params = training.plan.create().params
    rng, sizes = np.random.default_rng(0), [len(graph.entities), len(graph.relations), len(graph.entities)]
    other = rng.integers(0, sizes, (200, 3)).astype(np.int32)
    changed = dataclasses.replace(dataset, graph=graph.replace(test=other), known=(*dataset.known[:2], other))
    found = [
        builders.build_scorer(config, model, one, mapper, training.inputs, (), known).fit(params)
        for one, known in ((dataset, training.data.known), (changed, training.data.known), (dataset, None))
    ]
    assert np.any(flat(fusion_of(found[0].params)))
    for one in found[1:]:
        chex.assert_trees_all_equal(jax.device_get(one), jax.device_get(found[0]))


def test_a_finished_run_serves_with_fitted_weights(model, tiny_run):
    """Its best checkpoint has the weights that a fit on all of dev finds, and served scores are of them."""
    fusion = fusion_of(model.served.params)
    assert all(np.any(x) for x in fusion.values())
    restored = restore_best(tiny_run)
    config, dataset, mapper = restored.config, restored.dataset, restored.mapper
    inputs = builders.build_inputs(config, dataset.graph, mapper)
    scorer = builders.build_scorer(config, restored.model, dataset, mapper, inputs, ())
    fitted = scorer.fit(restored.params)
    chex.assert_trees_all_equal(fusion_of(fitted.params), fusion)
    results = model.results
    for split, ranks in (("dev", scorer.dev_ranks(fitted)), ("test", scorer.test_ranks(fitted))):
        assert ranking_metrics(ranks)["mrr"] == results[split]["overall"]["mrr"]
