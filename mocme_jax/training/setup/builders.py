"""Functions that build the model, the objective, the training and the evaluator from a config.

Config fields are read here, in ``datasets`` and in ``settings``, and nowhere else.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from mocme_jax.additions import cardinality, lending, self_answers
from mocme_jax.additions.addition import Additions, Bar, TableAddition
from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph
from mocme_jax.errors import UserError
from mocme_jax.evaluation.evaluator import Evaluator
from mocme_jax.method import egns
from mocme_jax.method.complementarity import FUSIONS
from mocme_jax.method.encoder import Encoder
from mocme_jax.method.losses import Loss, logistic_loss, margin_softmax_loss, softmax_loss
from mocme_jax.method.mocme import MoCME
from mocme_jax.method.regularisers import REGULARISERS
from mocme_jax.method.scoring import SCORES
from mocme_jax.method.vector_fusion import VECTOR_FUSIONS, VectorFusion
from mocme_jax.parallel.candidates import pool_covers
from mocme_jax.parallel.entity_tables import Inputs
from mocme_jax.parallel.known_answers import KnownAnswers
from mocme_jax.parallel.mesh import Mapper, Program
from mocme_jax.training.device_data import make_inputs, make_known, make_train_data
from mocme_jax.training.entity_encoding import (
    Encode,
    Unencoded,
    block_source,
    make_block_encoding,
    make_encode_program,
)
from mocme_jax.training.model_scorer import ModelScorer
from mocme_jax.training.objective import Objective, make_loss
from mocme_jax.training.optimizers import create_optimizers
from mocme_jax.training.setup.datasets import Dataset as Dataset
from mocme_jax.training.setup.datasets import load_dataset as load_dataset
from mocme_jax.training.start_vectors import Start
from mocme_jax.training.step import make_train_program
from mocme_jax.training.train_state import StatePlan, TrainData, plan_train_state
from mocme_jax.training.weight_fit import make_weight_fit, unfitted

# With more entities, a step updates only the rows of the structure table that it read, because a pass over all rows
# would take longer.
DENSE_ENTITIES = 200_000

# An evaluation encodes all entities at once if their vectors take at most this many bytes on all devices together.
# Otherwise, it encodes them block by block while it ranks. With fewer queries than entities, that costs no time.
ENCODED_BYTES = 1 << 28


def build_model(config: ConfigDict, graph: KnowledgeGraph) -> MoCME:
    """Build the model that ``config.model`` describes, for the sizes of a graph."""
    widths = tuple(modality.features.shape[1] for modality in graph.modalities)
    return build_model_of(config, len(graph.relations), widths)


def build_model_of(config: ConfigDict, relations: int, widths: tuple[int, ...]) -> MoCME:
    """Build the model that ``config.model`` describes, for given sizes.

    There is one expert for the structure, one per feature modality if there are several, and ``config.model.experts``
    joint experts that read all feature modalities. A fusion of vectors has a single expert.

    Args:
      config: the config.
      relations: the number of relations R.
      widths: the width of each feature modality.
    """
    model = config.model
    score = SCORES[model.score]
    if model.fusion in VECTOR_FUSIONS and widths:
        attends = VECTOR_FUSIONS[model.fusion]
        one = VectorFusion(widths, model.width, attends, model.expert_hidden, model.modality_scale)
        return MoCME(one, FUSIONS["mean"](1, model.width, relations), relations, score, model.core_width)
    everything = tuple(range(len(widths)))
    reads: tuple[tuple[int, ...], ...] = tuple((m,) for m in everything) if len(widths) > 1 else ()
    joint = model.experts if widths else 0
    reads += (everything,) * joint
    encoder = Encoder(widths, model.width, reads, joint, model.expert_hidden, model.modality_scale)
    # A single expert needs no weight.
    fusion = FUSIONS[model.fusion if reads else "mean"](encoder.experts, model.width, relations)
    return MoCME(encoder, fusion, relations, score, model.core_width)


def build_objective(config: ConfigDict) -> Objective:
    """Build the objective that ``config.negatives`` and ``config.loss`` describe."""
    negatives, loss = config.negatives, config.loss
    guided = egns.EntropyGuided(
        low=negatives.entropy_low,
        high=negatives.entropy_high,
        class_weights=tuple(negatives.class_weights),
        reference=egns.REFERENCES[negatives.reference],
        confident=egns.CONFIDENT[negatives.confident],
        many=negatives.many,
    )
    weightings: dict[str, egns.Weighting] = {
        "uniform": egns.uniform,
        "self_adversarial": egns.self_adversarial,
        "entropy": guided,
        "unsorted": egns.Unsorted(guided),
    }
    softmax = {"gradient": softmax_loss, "sum": margin_softmax_loss}[negatives.weights_in]
    losses: dict[str, Loss] = {"softmax": softmax, "logistic": functools.partial(logistic_loss, margin=loss.margin)}
    return Objective(
        pool=negatives.pool,
        batch_candidates=negatives.batch_candidates,
        guided=negatives.sampling == "entropy",
        reference=egns.REFERENCES[negatives.reference],
        weighting=weightings[negatives.weighting],
        loss=losses[loss.kind],
        regulariser=REGULARISERS[loss.regulariser],
        regularisation=loss.regularisation,
        query_dropout=loss.query_dropout,
        precision=config.train.precision,
    )


def build_mapper(config: ConfigDict) -> Mapper:
    """Build the mapper for the devices that ``config.parallel`` requests; 0 devices means all.

    Raises:
      UserError: there are fewer devices, or none.
    """
    parallel = config.parallel
    try:
        here = jax.device_count()
    # JAX asserts that it has a backend.
    except (RuntimeError, AssertionError) as error:
        wanted = jax.config.jax_platforms or "any platform"
        reason = (str(error).splitlines() or ["no plug-in for it is installed"])[0][:200]
        raise UserError(
            f"JAX finds no device of {wanted} ({reason}); install JAX for it, such as pip install 'jax[cuda13]', or "
            "set JAX_PLATFORMS=cpu"
        ) from error
    if parallel.mapper == "none":
        return Mapper("none", 1)
    if parallel.devices > here:
        raise UserError(
            f"parallel.devices is {parallel.devices}, but only {here} {jax.default_backend()} devices are available"
        )
    return Mapper(parallel.mapper, parallel.devices or here)


@dataclasses.dataclass(frozen=True)
class Training:
    """What training needs besides a state, placed on the devices.

    Attributes:
      mapper: the devices.
      batch_size: the batch size B over all devices.
      inputs: the encoder's inputs.
      data: the training data.
      plan: the plan of the state.
      program: the training program; see ``make_train_program``.
    """

    mapper: Mapper
    batch_size: int
    inputs: Inputs
    data: TrainData
    plan: StatePlan
    program: Program


def build_training(
    config: ConfigDict,
    model: MoCME,
    graph: KnowledgeGraph,
    mapper: Mapper,
    seeds: Sequence[int] = (),
    start: Start | None = None,
) -> Training:
    """Build the compiled training of the config's own seed, or of one or several given seeds together.

    Args:
      config: the config.
      model: the model.
      graph: the graph.
      mapper: the devices.
      seeds: the seeds; empty for the config's own.
      start: initial vectors; None for random ones.

    Raises:
      UserError: several seeds are requested with sharded tables; or see ``make_train_program``.
    """
    split, sizes = config.parallel.shard_entities, dict(entities=len(graph.entities), triples=len(graph.train))
    if split and len(seeds) > 1:
        raise UserError("several seeds at once need whole tables; set parallel.shard_entities to False")
    inputs = build_inputs(config, graph, mapper)
    plan, program = build_program(config, model, mapper, **sizes, seeds=seeds, start=start)
    bars = bars_of(config, graph.train, len(graph.relations))
    data = make_train_data(graph, inputs, mapper, split=split, bars=bars)
    return Training(mapper, config.train.batch_size, inputs, data, plan, program)


def build_inputs(config: ConfigDict, graph: KnowledgeGraph, mapper: Mapper) -> Inputs:
    """Build the encoder's inputs; see ``make_inputs``."""
    return make_inputs(graph, mapper, split=config.parallel.shard_entities)


def updates_rows_alone(config: ConfigDict, entities: int) -> bool:
    """Return whether a step updates only the rows that it read; False if every entity is a candidate."""
    return entities > DENSE_ENTITIES and not pool_covers(config.negatives.pool, entities)


def build_program(
    config: ConfigDict,
    model: MoCME,
    mapper: Mapper,
    *,
    entities: int,
    triples: int,
    seeds: Sequence[int] = (),
    start: Start | None = None,
) -> tuple[StatePlan, Program]:
    """Build the plan of the state and the training program (see ``make_train_program``), for these sizes."""
    settings, split = config.train, config.parallel.shard_entities
    optimizers = create_optimizers(settings.learning_rate, settings.table_learning_rate, settings.adagrad == "rowwise")
    loss = make_loss(model, build_objective(config), entities=entities, devices=mapper.count, split=split)
    program = make_train_program(
        loss,
        optimizers,
        batch_size=settings.batch_size,
        triples=triples,
        mapper=mapper,
        split=split,
        sparse=updates_rows_alone(config, entities),
        average_steps=settings.average,
        seeds=len(seeds) > 1,
    )
    plan = plan_train_state(
        model,
        optimizers,
        entities=entities,
        averages=settings.average > 0,
        guided=loss.guided,
        metrics=(*loss.metrics, "norm/gradient"),
        mapper=mapper,
        split=split,
        seeds=seeds or [config.seed],
        start=start,
    )
    return plan, program


def build_encode(
    config: ConfigDict,
    model: MoCME,
    graph: KnowledgeGraph,
    mapper: Mapper,
    additions: tuple[TableAddition, ...],
) -> Encode:
    """Build the encoding of all entities: at once, or block by block in the ranker if they are many.

    See ``make_encode_program`` and ``make_block_encoding``.
    """
    entities, split = len(graph.entities), config.parallel.shard_entities
    make = make_block_encoding if encodes_in_blocks(model, entities) else make_encode_program
    return make(model, entities=entities, mapper=mapper, split=split, additions=additions)


def encodes_in_blocks(model: MoCME, entities: int) -> bool:
    """Return whether an evaluation of N entities encodes them block by block."""
    return 2 * 4 * entities * model.vector_width > ENCODED_BYTES


def bars_of(config: ConfigDict, train: np.ndarray, relations: int) -> tuple[Bar, ...]:
    """Build the bars, which rule candidates out in training and after it.

    Args:
      config: the config.
      train: int ``[T, 3]``.
      relations: the number of relations R.
    """
    return () if config.model.self_answers == "all" else (self_answers.find_self_answers(train, relations),)


def additions_of(config: ConfigDict, graph: KnowledgeGraph) -> Additions:
    """Build the score additions and bars of a graph."""
    sizes, weight = (len(graph.entities), len(graph.relations)), config.model.cardinality
    scores = (cardinality.find_cardinality(graph.train, *sizes, weight),) if weight else ()
    return Additions(scores, bars_of(config, graph.train, sizes[1]), graph.train, sizes)


def table_additions_of(
    config: ConfigDict, graph: KnowledgeGraph, workdir: Path | None = None
) -> tuple[TableAddition, ...]:
    """Build the table additions: read them from a run's folder, or compute them from the graph."""
    entities, share = len(graph.entities), config.model.lend
    if not share:
        return ()
    kept = None if workdir is None else lending.read_lenders(workdir, entities, share)
    found = lending.find_lenders(graph.modalities, graph.train, entities, share) if kept is None else kept
    return () if found is None else (found,)


def addition_bytes(config: ConfigDict, entities: int, held: int, relations: int) -> dict[str, int]:
    """Return the bytes of each addition on a device, by name.

    Args:
      config: the config.
      entities: the number of entities N.
      held: the number of entities whose rows the device holds.
      relations: the number of relations R.
    """
    counts = {"cardinality of relations, in evaluation": cardinality.memory(held, relations)}
    lenders = {"lent structure, in evaluation": lending.memory(entities)}
    return (counts if config.model.cardinality else {}) | (lenders if config.model.lend else {})


def build_evaluator(config: ConfigDict, model: MoCME, dataset: Dataset, mapper: Mapper) -> Evaluator:
    """Build the evaluator, which filters by all known triples."""
    entities, split = len(dataset.graph.entities), config.parallel.shard_entities
    return Evaluator(
        model,
        dataset.graph,
        dataset.known,
        mapper=mapper,
        additions=additions_of(config, dataset.graph),
        sources={Unencoded: block_source(model, entities=entities, devices=mapper.count, split=split)},
    )


def build_scorer(
    config: ConfigDict,
    model: MoCME,
    dataset: Dataset,
    mapper: Mapper,
    inputs: Inputs,
    additions: tuple[TableAddition, ...],
    known: KnownAnswers | None = None,
) -> ModelScorer:
    """Build what fits the fusion weights on dev and ranks dev and test.

    Args:
      config: the config.
      model: the model.
      dataset: the graph.
      mapper: the devices.
      inputs: the encoder's inputs, placed.
      additions: table additions.
      known: the known answers in train, placed, if there are any already; see ``make_train_data``.
    """
    graph = dataset.graph
    encode = build_encode(config, model, graph, mapper, additions)
    evaluator = build_evaluator(config, model, dataset, mapper)
    if model.fusion.fitted_on != "dev" or not len(graph.valid):
        return ModelScorer(evaluator, inputs, encode, unfitted)
    split, sizes = config.parallel.shard_entities, (len(graph.entities), len(graph.relations))
    if known is None:
        known = make_known([graph.train], *sizes, mapper, split=split, bars=evaluator.additions.bars)
    known_dev = make_known([graph.valid], *sizes, mapper, split=split)
    placed, options = (inputs, known, known_dev), dict(mapper=mapper, split=split, additions=additions)
    options |= dict(score_additions=evaluator.additions.scores)
    fit = make_weight_fit(model, graph.valid, *placed, entities=sizes[0], **options)
    return ModelScorer(evaluator, inputs, encode, fit)
