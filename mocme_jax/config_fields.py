"""Every field of a run's configuration: its default, its meaning and what it may hold.

A field is written once, here; `mocme_jax.config` makes defaults, checks and the text of ``--help`` from it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

Value = str | int | float | bool | tuple | None


@dataclasses.dataclass(frozen=True)
class Field:
    """One field of the configuration.

    Attributes:
      default: a str, int, float, bool or a tuple of one of these; None for "not set".
      meaning: a phrase for ``--help``.
      choices: the values allowed, for a tuple the elements allowed.
      low, high: inclusive bounds of a number, for a tuple of its elements.
      above, below: the same, exclusive.
      length: how many elements a tuple must have.
      kind: the type of a value; needed where the default is None, elsewhere taken from the default.
      element: the type of a tuple's elements; taken from the default, str if that is empty.
    """

    default: Value
    meaning: str
    choices: tuple | None = None
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    length: int | None = None
    kind: type | None = None
    element: type | None = None

    def __post_init__(self):
        if self.kind is None:
            if self.default is None:
                raise TypeError(f"a field without a default needs a kind: {self.meaning}")
            object.__setattr__(self, "kind", type(self.default))
        if self.kind is tuple and self.element is None:
            object.__setattr__(self, "element", type(self.default[0]) if self.default else str)


class Rule(NamedTuple):
    """What fields must hold together: `holds` takes the values at the paths; `meaning` completes the message."""

    fields: tuple[str, ...]
    holds: Callable[..., bool]
    meaning: str


SECTIONS: dict[str, str] = {
    "": "The run",
    "data": "The graph and its features",
    "model": "Encoder and score function",
    "negatives": "Candidates and entropy-guided weights (EGNS)",
    "loss": "Loss and regularisation",
    "train": "Optimisation, length, stopping",
    "eval": "Ranking",
    "parallel": "Devices",
}

PRECISIONS = ("float32", "tf32", "bfloat16")
FUSIONS = ("complementarity", "mean", "gate", "attention")

FIELDS: dict[str, Field] = {
    "seed": Field(
        0,
        "seed of everything random: initial values, batches, candidates, held-out triples, dev split",
        low=0,
        high=2**31 - 1,
    ),
    "data.name": Field("atlas", "what the graph is called in messages, tables and results"),
    "data.dir": Field(None, "folder of the graph; none: the embedded graph, atlas", kind=str),
    "data.features_dir": Field(None, "folder of the feature files; none: data.dir", kind=str),
    "data.modalities": Field(
        ("all",),
        "modalities beside the learned structure, by name; all: every feature file, and what data.make makes; "
        "structure: none",
    ),
    "data.make": Field(
        ("text", "numeric"),
        "what is made where all are wanted and there is no file: text of names, numeric of "
        "numeric_triples.tsv or numeric.csv",
        choices=("text", "numeric"),
    ),
    "data.dev": Field(
        "valid",
        "where early stopping looks: the released valid split, or triples carved out of train",
        choices=("valid", "train"),
    ),
    "data.dev_fraction": Field(0.05, "share of train that is carved out where data.dev is train", above=0, below=1),
    "model.width": Field(256, "width of each expert's encodings and relations, d", low=2),
    "model.score": Field("complex", "score function", choices=("rotate", "transe", "distmult", "complex", "tucker")),
    "model.core_width": Field(32, "width of relations in TuckER's core tensor", low=1),
    "model.experts": Field(
        1,
        "joint experts, K, which read the structure and all feature modalities; beside them there is one for the "
        "structure and, of several feature modalities, one for each",
        low=1,
    ),
    "model.fusion": Field(
        "complementarity",
        "how experts are weighed: by what each adds to the others on held-out training triples; all the same; or by a "
        "gate or an attention that is learned on the triples that experts are trained on",
        choices=FUSIONS,
    ),
    "model.expert_hidden": Field(64, "inner width of an expert", low=1),
    "model.modality_scale": Field(0.1, "learned scale of a feature modality, at the start", low=0),
    "model.lend": Field(
        0.0,
        "at evaluation, an entity of n training triples borrows lend / n of the structure of ten that carry much the "
        "same, and one of none has theirs alone; 0: nothing is lent",
        low=0,
    ),
    "model.self_answers": Field(
        "all",
        "whether an entity may be the answer to a question about itself: of all relations, or of those alone that have "
        "been seen to lead from an entity to itself in train",
        choices=("all", "seen"),
    ),
    "model.cardinality": Field(
        0.0,
        "weight in a score of the log odds, counted in train, that an answer has answered the relation before, for "
        "those that have; at evaluation alone; 0: not counted",
        low=0,
    ),
    "negatives.pool": Field(1024, "entities drawn a step and shared by its batch; all, if there are no more", low=1),
    "negatives.sampling": Field(
        "uniform",
        "how the pool is drawn: every entity as likely as any other, or by the running mean of the entropy of the "
        "model's belief in it as a negative, which takes a number an entity and a pass over them a step",
        choices=("uniform", "entropy"),
    ),
    "negatives.batch_candidates": Field(True, "the batch's own entities are candidates too"),
    "negatives.weighting": Field(
        "entropy",
        "weights of negatives: by entropy; all the same; by their own scores; or unsorted, a control: all of a query "
        "the same, with gradients as long as by entropy",
        choices=("entropy", "uniform", "self_adversarial", "unsorted"),
    ),
    "negatives.weights_in": Field(
        "gradient",
        "what a weight multiplies in the softmax loss: its negative's part of the gradient, or its power in the sum, "
        "which is a margin",
        choices=("gradient", "sum"),
    ),
    "negatives.entropy_low": Field(0.3, "bits; below it a negative is easy", low=0, high=1),
    "negatives.entropy_high": Field(0.8, "bits; below it a negative is ambiguous, from it on hard", low=0, high=1),
    "negatives.class_weights": Field((0.5, 1.0, 2.0), "weights of easy, ambiguous, hard negatives", low=0, length=3),
    "negatives.reference": Field(
        "relative",
        "probability of a negative: of its score, or of its score minus the positive's",
        choices=("absolute", "relative"),
    ),
    "negatives.confident": Field(
        "hard",
        "class of a negative with low entropy and p > 1/2: by entropy, hard, or false (weight 0)",
        choices=("entropy", "hard", "false_negative"),
    ),
    "negatives.many": Field(
        0,
        "queries with at least this many known answers in train weigh hard negatives .5 and others 1, because hard "
        "ones may be true answers that the graph lacks; 0: no query does",
        low=0,
    ),
    "loss.kind": Field("softmax", "loss over a positive and its candidates", choices=("softmax", "logistic")),
    "loss.margin": Field(0.0, "margin added to scores in the logistic loss", low=0),
    "loss.regulariser": Field(
        "n3",
        "penalty on a batch's entities as answers and its relations, cubed or squared; dura: on answers and queries, "
        "squared",
        choices=("n3", "l2", "dura"),
    ),
    "loss.regularisation": Field(0.08, "weight of the penalty; 0: none", low=0),
    "loss.query_dropout": Field(0.0, "chance that a training step hides a component of a query vector", low=0, below=1),
    "train.batch_size": Field(512, "triples a step, over all devices (each is asked in both directions)", low=1),
    "train.epochs": Field(30, "longest run, in passes over train", low=1),
    "train.hold_out_epochs": Field(
        0,
        "epochs in which some training triples are held out for the fit of the fusion; after them its weights "
        "stay, and these triples are trained on, too; 0: all epochs",
        low=0,
    ),
    "train.eval_every": Field(2, "epochs between evaluations on dev", low=1),
    "train.patience": Field(4, "evaluations without a better dev MRR before the run stops; 0: never stop early", low=0),
    "train.save_minutes": Field(
        10.0, "between two saves within an epoch, so that a kill costs no more; evaluations save in any case", above=0
    ),
    "train.learning_rate": Field(0.02, "Adam's step size, for all but the tables", above=0),
    "train.table_learning_rate": Field(0.1, "Adagrad's step size, for the entity and relation tables", above=0),
    "train.average": Field(
        0.0,
        "steps, about, of a running average of the parameters, which is evaluated and kept in their place; 0: none",
        low=0,
    ),
    "train.precision": Field(
        "float32",
        "of a training step: full float32; products in TF32, where the device has it; or all in bfloat16, with float32 "
        "parameters. Evaluation is in full float32 always",
        choices=PRECISIONS,
    ),
    "eval.score_megabytes": Field(32, "memory for the scores of a chunk on one device", low=1),
    "parallel.mapper": Field(
        "pmap",
        "how the step is mapped over devices; none: one device, without a map",
        choices=("pmap", "shard_map", "none"),
    ),
    "parallel.devices": Field(0, "devices to use, of all processes; 0: all", low=0),
    "parallel.coordinator": Field(
        None,
        "HOST:PORT of process 0; auto: as SLURM, a TPU pod, Kubernetes or MPI tell; none: this process alone",
        kind=str,
    ),
    "parallel.processes": Field(1, "processes of the run, where the coordinator is named", low=1),
    "parallel.process": Field(0, "which of them this one is, from 0", low=0),
    "parallel.shard_entities": Field(
        False, "split entity table, its optimizer state and the features by rows over the devices"
    ),
}


RULES: tuple[Rule, ...] = (
    Rule(
        ("negatives.entropy_low", "negatives.entropy_high"),
        lambda low, high: low <= high,
        "the lower threshold must not pass the higher",
    ),
    Rule(
        ("negatives.class_weights",),
        lambda weights: list(weights) == sorted(weights) and weights[-1] > 0,
        "weights must not fall from easy to hard, and the last must be above 0",
    ),
    Rule(
        ("model.score", "model.width"),
        lambda score, width: score not in ("complex", "rotate") or width % 2 == 0,
        "complex and rotate split the width into halves, so it must be even",
    ),
    Rule(
        ("model.score", "loss.query_dropout"),
        lambda score, dropout: not dropout or score not in ("transe", "rotate"),
        "a distance (transe, rotate) means nothing where components are hidden, so it must be 0",
    ),
    Rule(
        ("data.modalities",),
        lambda names: len(set(names)) == len(names) and (len(names) == 1 or not {"all", "structure"} & set(names)),
        "each modality once; all and structure stand alone (structure is always there)",
    ),
    Rule(
        ("model.lend", "parallel.shard_entities"),
        lambda share, split: not share or not split,
        "structure is lent between rows of a whole table, so with a split one it must be 0",
    ),
    Rule(
        ("train.batch_size", "parallel.devices"),
        lambda size, devices: not devices or size % devices == 0,
        "the batch must divide by the number of devices",
    ),
    Rule(
        ("parallel.mapper", "parallel.devices"),
        lambda mapper, devices: mapper != "none" or devices < 2,
        "without a mapper there is one device",
    ),
)
