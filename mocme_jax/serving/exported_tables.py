"""The export of a trained model: tables of numbers and names, a scoring function, or a PyKEEN model.

The score of a triple is a sum over the experts. Each term is the product of four numbers: the weights of the head, the
relation and the tail, and the expert's own score. For each expert, an entity has one vector and two weights, one as the
known entity of a query and one as an answer.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from mocme_jax import __version__
from mocme_jax.additions.cardinality import Cardinality
from mocme_jax.additions.self_answers import SelfAnswers
from mocme_jax.data.whole_folders import Content, unfinished, write_together
from mocme_jax.errors import UserError
from mocme_jax.parallel.entity_tables import look_up
from mocme_jax.printed_commands import to_install
from mocme_jax.serving.compiled_queries import experts_of, relation_weights
from mocme_jax.serving.completion import in_batches
from mocme_jax.serving.name_lookup import Lookup
from mocme_jax.serving.trained_model import TrainedModel
from mocme_jax.training.logs.run_results import expert_names

FORMATS = {
    "npz": ("tables.npz",),
    "safetensors": ("tables.safetensors",),
    "parquet": ("entities.parquet", "relations.parquet"),
    "jax": ("scorer.jax",),
    "pykeen": ("pykeen.safetensors",),
}
"""The files of each format."""

_MODEL = "model.json"
_PACKAGES = {"parquet": ("pyarrow", "parquet"), "jax": ("flatbuffers", "export")}
_PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def export(model: TrainedModel, out: Path, formats: tuple[str, ...]) -> list[Path]:
    """Write a model into a folder.

    Every export holds ``model.json`` (the meaning of the tables, and ``never_itself``: relations whose queries are
    never answered by their own entity), ``entities.tsv`` and ``relations.tsv`` (id, name, label) and ``triples.npz``
    (the released splits). The formats add:

    - npz and safetensors: ``tables``. ``entities`` ``[N, H, d]`` and ``relations`` ``[2R, H, d_r]`` of the H experts
      (row r + R asks for the head of r), and TuckER's ``core`` ``[H, d_r, d, d]``. Their weights, ``question_weights``
      and ``answer_weights`` ``[N, H]`` and ``relation_weights`` ``[2R, H]``. The bonus of relations' cardinality,
      ``cardinality`` ``[2R]`` (zeros if it is not used), which is added to the scores of ``answered``, uint8
      ``[N, 2R]``.
    - parquet: ``entities.parquet`` and ``relations.parquet``, the same with names.
    - jax: ``scorer.jax``, a serialised ``jax.export`` of ``(tables..., entities [b], relations [b]) -> scores [b, N]``.
    - pykeen: ``pykeen.safetensors``, the state of a PyKEEN ComplEx with inverse relations; see ``pykeen_state``.

    Files of other formats that an export of another model left in the folder are removed.

    Args:
      out: the folder.
      formats: keys of ``FORMATS``.

    Returns:
      The files written.

    Raises:
      UserError: the model cannot have a format, the package of a format is missing, the folder cannot be written, or
        another process is writing it.
    """
    check_packages(formats)
    out, tables = Path(out), tables_of(model)
    meta = {
        "score": model.served.model.score.name,
        "entities": len(model.entities),
        "relations": len(model.relations),
        "experts": expert_names(model.modalities[1:], model.served.model.encoder.experts),
        "tables": {name: list(table.shape) for name, table in tables.items()},
        "never_itself": [
            relation
            for bar in model.served.facts.additions.bars
            if isinstance(bar, SelfAnswers)
            for relation in np.flatnonzero(bar.never[: len(model.relations)]).tolist()
        ],
        "run": model.identity,
        "version": __version__,
    }
    described = (json.dumps(meta, indent=1) + "\n").encode()
    splits = model.served.facts.splits
    files: dict[str, Content] = {
        "entities.tsv": _names(model.entities),
        "relations.tsv": _names(model.relations),
        "triples.npz": lambda file: np.savez(file, **splits),
    }
    makers: dict[str, Callable[[], Content | list[Content]]] = {
        "npz": lambda: lambda file: np.savez(file, **tables),
        "safetensors": lambda: _safetensors(tables, {"model": json.dumps(meta)}),
        "parquet": lambda: _parquet(model, tables),
        "jax": lambda: serialised_scorer(model, tables),
        "pykeen": lambda: _safetensors(pykeen_state(model, tables), {}),
    }
    for kind in formats:
        made = makers[kind]()
        files |= zip(FORMATS[kind], made if isinstance(made, list) else [made], strict=True)
    gone = _of_another_model(out, described) - files.keys()
    # Removed first and written last, so that a folder with a description also has the tables.
    files[_MODEL] = described
    return write_together(out, files, [_MODEL, *sorted(gone)])


def _of_another_model(out: Path, described: bytes) -> set[str]:
    """Return the names of table files that an export of another model, or an interrupted one, left in the folder."""
    tables = {name for names in FORMATS.values() for name in names}
    try:
        other = (out / _MODEL).read_bytes() != described
    except OSError:
        other = False
    return tables if other else tables & set(unfinished(out))


def check_packages(formats: tuple[str, ...]) -> None:
    """Check that the packages of the formats are installed, before anything is read or written.

    Raises:
      UserError: a package is missing.
    """
    for kind in formats:
        package, extra = _PACKAGES.get(kind, (None, None))
        if package and importlib.util.find_spec(package) is None:
            raise UserError(f"format {kind}: needs a package; run: {to_install(extra=extra)}")


def tables_of(model: TrainedModel) -> dict[str, np.ndarray]:
    """Return the arrays of an export, float32; see ``export``."""
    served, experts = model.served, model.served.model.encoder.experts
    if not served.model.fusion.separable:
        raise UserError(
            "export: tables cannot hold the weights of model.fusion=relation_gate, because they are no product of one "
            "number of the entity and one of the relation; ask the model itself with mocme predict"
        )
    parameters, directions = served.params.model["params"], 2 * len(model.relations)

    def encode(rows: np.ndarray) -> tuple[jax.Array, ...]:
        carried = look_up(served.params.structure, served.inputs, rows, split=False)
        return experts_of(served.model, served.params.model, carried)

    vectors, asked, answering = in_batches(encode, np.arange(len(model.entities), dtype=np.int32))
    times, bonus = cardinality_of(model)
    tables = {
        "entities": vectors,
        "relations": np.asarray(parameters["relation"]).reshape(directions, experts, -1),
        "question_weights": asked,
        "answer_weights": answering,
        "relation_weights": np.asarray(relation_weights(served.model, served.params.model)),
        "answered": (times > 0).astype(np.uint8),
        "cardinality": bonus,
    }
    return tables | ({"core": np.asarray(parameters["core"])} if "core" in parameters else {})


def cardinality_of(model: TrainedModel) -> Cardinality:
    """Return the cardinality of all N entities, with a bonus of zeros if the model does not use it."""
    for addition in model.served.facts.additions.scores:
        if isinstance(addition, Cardinality):
            return addition
    directions = 2 * len(model.relations)
    return Cardinality(np.zeros((len(model.entities), directions), np.uint8), np.zeros(directions, np.float32))


def serialised_scorer(model: TrainedModel, tables: dict[str, np.ndarray]) -> bytes:
    """Return a scoring function that ``jax.export.deserialize`` reads without this package.

    Its arguments are a dict of the tables, and int32 ``[b]`` entities and relations for any b, with relations in
    [0, 2R). Its result is the scores ``[b, N]`` of all answers in full float32, as if none of them were known.
    """
    score = model.served.model.score

    def scorer(tables, entities, relations):
        with jax.default_matmul_precision("highest"):
            heads, rows = tables["entities"][entities], tables["relations"][relations]
            weights = tables["question_weights"][entities] * tables["relation_weights"][relations]
            total = 0.0
            for j in range(heads.shape[1]):
                q = score.query(heads[:, j], rows[:, j], tables["core"][j] if score.has_core else None)
                own = score.match(q, tables["entities"][:, j])
                total += weights[:, j, None] * tables["answer_weights"][:, j] * own
            return Cardinality(tables["answered"], tables["cardinality"]).adjust(total, relations)

    (rows,) = jax.export.symbolic_shape("b")
    shapes = {name: jax.ShapeDtypeStruct(table.shape, table.dtype) for name, table in tables.items()}
    ids = jax.ShapeDtypeStruct((rows,), jnp.int32)
    return bytes(jax.export.export(jax.jit(scorer), platforms=_PLATFORMS)(shapes, ids, ids).serialize())


def pykeen_state(model: TrainedModel, tables: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the state of PyKEEN's ComplEx with an ``embedding_dim`` of d / 2, on triples with inverse relations.

    PyKEEN (1.11) stores complex numbers as adjacent pairs of reals, ``[n, d]``, relation r in row 2r, and its inverse
    in row 2r + 1.

    What cardinality adds to scores takes 2R additional coordinates, an ``embedding_dim`` of d / 2 + 2R. There an entity
    has ``1 + bi``, where b is what is added to its score as an answer of the relation, and a relation has i at its own
    coordinate. The real part of their product is the difference of both ends' b. The b of the query's entity is the
    same for all candidates, so it changes no rank.

    Raises:
      UserError: the score function is not ComplEx, or there are several experts, for which PyKEEN has no model.
    """
    if model.served.model.score.name != "complex":
        raise UserError(
            f"format pykeen: supports only the score complex; this model has {model.served.model.score.name}"
        )
    if model.served.model.encoder.experts > 1:
        raise UserError(
            "format pykeen: supports only models of structure alone, because it has no expert weights; leave it out "
            "with --formats"
        )

    def pairs(table: np.ndarray) -> np.ndarray:
        real, imaginary = np.split(table, 2, axis=1)
        return np.stack([real, imaginary], axis=2).reshape(len(table), -1)

    count = len(model.relations)
    entities, relations = tables["entities"][:, 0], tables["relations"][:, 0]
    if tables["cardinality"].any():
        bonus, own = tables["cardinality"] * tables["answered"], np.eye(2 * count, dtype=np.float32)
        entities = _widened(entities, np.ones_like(bonus), bonus)
        relations = _widened(relations, np.zeros_like(own), own)
    order = np.stack([np.arange(count), count + np.arange(count)], axis=1).ravel()
    return {
        "entity_representations.0._embeddings.weight": pairs(entities),
        "relation_representations.0._embeddings.weight": pairs(relations[order]),
    }


def _widened(table: np.ndarray, real: np.ndarray, imaginary: np.ndarray) -> np.ndarray:
    """Add columns to a table of complex numbers, which has real parts first."""
    halves = np.split(table, 2, axis=1)
    return np.concatenate([halves[0], real, halves[1], imaginary], axis=1)


def _names(lookup: Lookup) -> bytes:
    pairs = zip(lookup.names, lookup.readable, strict=True)
    rows = [f"{index}\t{name}\t{label}\n" for index, (name, label) in enumerate(pairs)]
    return ("id\tname\tlabel\n" + "".join(rows)).encode("utf-8", "surrogatepass")


def _safetensors(tables: dict[str, np.ndarray], meta: dict[str, str]) -> bytes:
    from safetensors.numpy import save

    return save(tables, meta or None)


def _parquet(model: TrainedModel, tables: dict[str, np.ndarray]) -> list[Content]:
    """Return the files of the entities and of the relations."""
    import pyarrow
    import pyarrow.parquet

    def vectors(table: np.ndarray):
        return pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(table.ravel()), table.shape[1])

    def columns(lookup: Lookup) -> dict:
        return {"id": np.arange(len(lookup), dtype=np.int32), "name": lookup.names, "label": lookup.readable}

    flat = {name: tables[name].reshape(len(tables[name]), -1) for name in ("entities", "relations")}
    forward, inverse = np.split(flat["relations"], 2)
    weights = np.split(tables["relation_weights"], 2)
    bonuses = np.split(tables["cardinality"], 2)
    parts = (
        columns(model.entities)
        | {"vectors": vectors(flat["entities"])}
        | {name: vectors(tables[name]) for name in ("question_weights", "answer_weights", "answered")},
        columns(model.relations)
        | {"forward": vectors(forward), "inverse": vectors(inverse)}
        | {"weights": vectors(weights[0]), "inverse_weights": vectors(weights[1])}
        | {"cardinality": bonuses[0], "inverse_cardinality": bonuses[1]},
    )
    return [lambda file, part=part: pyarrow.parquet.write_table(pyarrow.table(part), file) for part in parts]
