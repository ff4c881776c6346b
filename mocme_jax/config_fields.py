"""Every field of a run's configuration: its default, its meaning and what it may hold.

Each field is defined once, here. `mocme_jax.config` derives defaults, checks and the text of ``--help`` from it.
"""

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
      place: whether the value is a file or folder; for a tuple, whether its elements are.
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
    place: bool = False

    def __post_init__(self):
        if self.kind is None:
            if self.default is None:
                raise TypeError(f"a field without a default needs a kind: {self.meaning}")
            object.__setattr__(self, "kind", type(self.default))
        if self.kind is tuple and self.element is None:
            object.__setattr__(self, "element", type(self.default[0]) if self.default else str)


def a_place(meaning: str) -> Field:
    """Return the field of a file or folder that may be left out."""
    return Field(None, meaning, kind=str, place=True)


class Rule(NamedTuple):
    """What fields must hold together: `holds` takes the values at the paths; `meaning` completes the message."""

    fields: tuple[str, ...]
    holds: Callable[..., bool]
    meaning: str


SECTIONS: dict[str, str] = {
    "": "Run",
    "data": "Graph and features",
    "model": "Experts, fusion and score function",
    "negatives": "Negatives and their weights (EGNS)",
    "loss": "Loss and regularisation",
    "train": "Optimisation, length and early stopping",
    "parallel": "Devices",
}

PRECISIONS = ("float32", "tf32", "bfloat16")
FUSIONS = ("complementarity", "mean", "gate", "attention", "relation_gate", "vector_mean", "vector_attention")

FIELDS: dict[str, Field] = {
    "seed": Field(
        0,
        "seed of every random draw: initial values, batches, candidates, dev split",
        low=0,
        high=2**31 - 1,
    ),
    "data.name": Field(
        "atlas",
        "name of the graph in messages, tables and results; if data.dir is set, atlas means the name of that folder",
    ),
    "data.dir": a_place("folder with the graph's triples; none: the embedded graph, atlas"),
    "data.features_dir": a_place("folder with the feature files; none: same as data.dir"),
    "data.modalities": Field(
        ("all",),
        "feature modalities to use, such as text,image; all: every feature file plus what data.make can make; "
        "structure: no features",
    ),
    "data.make": Field(
        ("text", "numeric"),
        "modalities to make when data.modalities is all and their file is missing; text: sentence vectors of the "
        "entity names; numeric: from numeric_triples.tsv or numeric.csv",
        choices=("text", "numeric"),
    ),
    "data.dev": Field(
        "valid",
        "dev split, on which the best epoch is chosen and the fusion weights are fitted; valid: the released valid "
        "split; train: triples taken out of train",
        choices=("valid", "train"),
    ),
    "data.dev_fraction": Field(
        0.05, "share of train that becomes the dev split if data.dev is train", above=0, below=1
    ),
    "model.width": Field(256, "width d of the entity and relation vectors of each expert", low=2),
    "model.score": Field("complex", "score function", choices=("rotate", "transe", "distmult", "complex", "tucker")),
    "model.core_width": Field(32, "width of the relations in TuckER's core tensor; only for tucker", low=1),
    "model.experts": Field(
        1,
        "number of joint experts K, which read the structure and all modalities; the structure always has an expert of "
        "its own, and so does each modality if there are several",
        low=1,
        high=256,
    ),
    "model.fusion": Field(
        "complementarity",
        "how the scores of the experts are weighted; complementarity: by what each adds to the others on dev "
        "triples; mean: equally; gate, attention: by a function of the expert's vector, learned on the "
        "training triples; relation_gate: the same with a temperature per relation; vector_mean: a "
        "single expert whose vector is the mean of the structure and the features; vector_attention: the same, with "
        "weights by attention",
        choices=FUSIONS,
    ),
    "model.expert_hidden": Field(64, "width of the hidden layer of each expert that reads features", low=1),
    "model.modality_scale": Field(0.1, "initial value of the learned scale of each feature modality", low=0),
    "model.lend": Field(
        0.0,
        "strength of lending at evaluation; to the structure of an entity with n training triples, the ten entities "
        "with the most similar features lend their mean with weight lend / n; an entity without triples takes only "
        "this mean; 0: off; try .3 if many entities have few triples",
        low=0,
    ),
    "model.self_answers": Field(
        "all",
        "whether an entity can be the answer to a query about itself; all: always; seen: only for relations that have "
        "such a triple in train",
        choices=("all", "seen"),
    ),
    "model.cardinality": Field(
        0.0,
        "weight of a correction to the scores at evaluation; it lowers or raises candidates that already answer "
        "another query of this relation, by log odds counted in train; 0: off; try .1 to .4",
        low=0,
    ),
    "negatives.pool": Field(
        1024,
        "number of entities drawn as candidates in each step and shared by the batch; at most the number of entities",
        low=1,
    ),
    "negatives.sampling": Field(
        "uniform",
        "how the pool is drawn; uniform: all entities equally often; entropy: more often the entities whose negatives "
        "had a high entropy so far, which costs one number per entity and one pass over them per step",
        choices=("uniform", "entropy"),
    ),
    "negatives.batch_candidates": Field(True, "also use the entities of the batch as candidates"),
    "negatives.weighting": Field(
        "entropy",
        "weights of the negatives; entropy: by entropy class (EGNS); uniform: all the same; self_adversarial: by their "
        "scores; unsorted: a control with gradients as long as for entropy, but equal weights",
        choices=("entropy", "uniform", "self_adversarial", "unsorted"),
    ),
    "negatives.weights_in": Field(
        "gradient",
        "where a weight enters the softmax loss; gradient: it multiplies the gradient of its negative; sum: it "
        "multiplies the exponential in the sum, which acts as a margin",
        choices=("gradient", "sum"),
    ),
    "negatives.entropy_low": Field(0.3, "negatives with an entropy below this, in bits, are easy", low=0, high=1),
    "negatives.entropy_high": Field(
        0.8, "negatives with an entropy below this, in bits, are ambiguous; the others are hard", low=0, high=1
    ),
    "negatives.class_weights": Field((0.5, 1.0, 2.0), "weights of easy, ambiguous and hard negatives", low=0, length=3),
    "negatives.reference": Field(
        "relative",
        "probability whose entropy is taken; relative: sigmoid of the score minus the score of the gold answer; "
        "absolute: sigmoid of the score",
        choices=("absolute", "relative"),
    ),
    "negatives.confident": Field(
        "hard",
        "class of a negative that clearly outranks the gold answer (probability above 1/2, low entropy); hard: hard; "
        "entropy: by its entropy; false_negative: weight 0",
        choices=("entropy", "hard", "false_negative"),
    ),
    "negatives.many": Field(
        0,
        "in queries with at least this many known answers in train, hard negatives weigh .5 and all others 1, because "
        "hard negatives may be true triples that the graph lacks; 0: off",
        low=0,
    ),
    "loss.kind": Field("softmax", "loss of a gold answer and its negatives", choices=("softmax", "logistic")),
    "loss.margin": Field(0.0, "margin added to the scores in the logistic loss", low=0),
    "loss.regulariser": Field(
        "n3",
        "penalty on the vectors used by a batch; n3: cubes, l2: squares of answers and relations; dura: squares of "
        "answers and queries",
        choices=("n3", "l2", "dura"),
    ),
    "loss.regularisation": Field(0.08, "weight of the penalty; 0: off", low=0),
    "loss.query_dropout": Field(0.0, "probability of setting a component of a query vector to 0", low=0, below=1),
    "train.batch_size": Field(
        512, "triples per step over all devices; each gives a tail query and a head query", low=1
    ),
    "train.epochs": Field(30, "maximum number of passes over train", low=1),
    "train.eval_every": Field(2, "epochs between two evaluations on dev", low=1),
    "train.patience": Field(
        4, "number of evaluations without a better dev MRR after which training stops; 0: never stop early", low=0
    ),
    "train.save_minutes": Field(
        10.0, "minutes between two saves within an epoch; every evaluation saves as well", above=0
    ),
    "train.learning_rate": Field(0.02, "step size of Adam, for all parameters except the tables", above=0),
    "train.table_learning_rate": Field(0.1, "step size of Adagrad, for the entity and relation tables", above=0),
    "train.adagrad": Field(
        "elementwise",
        "what Adagrad keeps for the entity table; elementwise: a sum of squared gradients per number; rowwise: one sum "
        "per entity, of the mean over its row, so all numbers of a row have the same step size; rowwise takes 4 bytes "
        "per entity, elementwise 4 bytes per number; try rowwise if the entity table fills the memory",
        choices=("elementwise", "rowwise"),
    ),
    "train.average": Field(
        0.0,
        "length, in steps, of a running average of the parameters; the average is evaluated and saved as the best "
        "model; 0: off",
        low=0,
    ),
    "train.precision": Field(
        "float32",
        "precision of a training step; float32: full; tf32: matrix products in TF32 where the device has it; bfloat16: "
        "everything except the parameters; evaluation always uses full float32",
        choices=PRECISIONS,
    ),
    "parallel.mapper": Field(
        "pmap",
        "how the step is mapped over devices; pmap, shard_map: JAX's two ways, same numbers; none: one device, no map",
        choices=("pmap", "shard_map", "none"),
    ),
    "parallel.devices": Field(0, "number of devices to use, over all processes; 0: all", low=0),
    "parallel.coordinator": Field(
        None,
        "how the processes of a run find each other; HOST:PORT: address of process 0; auto: ask SLURM, the TPU pod, "
        "Kubernetes or MPI; none: a single process",
        kind=str,
    ),
    "parallel.processes": Field(1, "number of processes, if the coordinator is a HOST:PORT", low=1),
    "parallel.process": Field(0, "number of this process, from 0, if the coordinator is a HOST:PORT", low=0),
    "parallel.join_seconds": Field(
        30.0,
        "longest time for the processes of a run to find each other; raise it if some start much later than others, "
        "such as when nodes still fetch an image",
        above=0,
    ),
    "parallel.shard_entities": Field(
        False,
        "split the entity table, its optimizer state and the features by rows over the devices; for graphs that do not "
        "fit on one device",
    ),
    "parallel.stopped_status": Field(
        75,
        "exit status of a training that a signal stopped before it was finished, so that a script can tell it from a "
        "finished one and start it again; the state is saved",
        low=0,
        high=255,
    ),
    "parallel.lock": Field(
        True,
        "whether a lock keeps a second training out of the folder; false: on a file system without locks, as some NFS "
        "and Lustre are",
    ),
}


RULES: tuple[Rule, ...] = (
    Rule(
        ("negatives.entropy_low", "negatives.entropy_high"),
        lambda low, high: low <= high,
        "the lower bound must not be above the higher bound",
    ),
    Rule(
        ("negatives.class_weights",),
        lambda weights: list(weights) == sorted(weights) and weights[-1] > 0,
        "weights must not decrease from easy to hard, and the last must be above 0",
    ),
    Rule(
        ("model.score", "model.width"),
        lambda score, width: score not in ("complex", "rotate") or width % 2 == 0,
        "complex and rotate use complex numbers, so the width must be even",
    ),
    Rule(
        ("model.score", "loss.query_dropout"),
        lambda score, dropout: not dropout or score not in ("transe", "rotate"),
        "transe and rotate are distances over all components, so it must be 0",
    ),
    Rule(
        ("data.modalities",),
        lambda names: len(set(names)) == len(names) and (len(names) == 1 or not {"all", "structure"} & set(names)),
        "name each modality once; all and structure cannot be combined with others (the structure is always used)",
    ),
    Rule(
        ("model.lend", "parallel.shard_entities"),
        lambda share, split: not share or not split,
        "lending reads the whole entity table, so model.lend must be 0 if the table is split",
    ),
    Rule(
        ("train.batch_size", "parallel.devices"),
        lambda size, devices: not devices or size % devices == 0,
        "the batch size must be a multiple of the number of devices",
    ),
    Rule(
        ("parallel.mapper", "parallel.devices"),
        lambda mapper, devices: mapper != "none" or devices < 2,
        "without a mapper only one device can be used",
    ),
)
