"""A graph from what a caller holds: triples in tables, arrays or tuples, and what entities carry, by entity."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mocme_jax.data.features.entity_files import files_modality
from mocme_jax.data.features.modality_names import TAKEN, modality_name
from mocme_jax.data.features.numeric_features import attribute_modality
from mocme_jax.data.features.text_features import DEFAULT_ENCODER, text_modality
from mocme_jax.data.graph.entity_names import entity_finder, readable_name, tell_left_out
from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph, Modality, make_modality
from mocme_jax.data.graph.plain_layout import graph_of_names
from mocme_jax.data.graph.plain_rows import order_of
from mocme_jax.data.graph.splits import check_shares, split_off
from mocme_jax.data.media.file_encoders import MEDIA, encoders_of
from mocme_jax.errors import UserError


def graph_of_rows(
    triples: Any,
    valid: Any,
    test: Any,
    features: Mapping[str, Any] | None,
    encoders: Mapping[str, str] | None,
    name: str,
    time: Any,
    by_pair: bool,
    seed: int,
    notify: Callable[[str], None],
) -> KnowledgeGraph:
    """What ``KnowledgeGraph.from_triples`` returns; see there."""
    shares = {split: part for split, part in (("test", test), ("valid", valid)) if isinstance(part, float | int)}
    check_shares(shares)
    given = {"train": triples, "valid": valid, "test": test}
    rows = {split: _names(part, split) for split, part in given.items() if part is not None and split not in shares}
    if not rows["train"]:
        raise UserError("triples: none were given; a graph needs training triples")
    graph = graph_of_names(name, rows)
    if time is not None and not shares:
        raise UserError("time is used only to split off a share; give valid=0.1 or test=0.1")
    if time is None:
        graph = graph.replace(**split_off(graph.train, shares, seed, by_pair=by_pair))
    else:
        graph = graph.replace(**_latest(graph.train, shares, _times(triples, time, len(graph.train))))
    return graph.replace(modalities=_modalities(features or {}, graph.entities, encoders or {}, notify))


def _names(triples: Any, what: str) -> list[list[str]]:
    """Rows (head, relation, tail) of names, from a table with named columns, an array ``[T, 3]`` or tuples.

    A table (a DataFrame of pandas or polars) needs columns called head, relation and tail, or subject, predicate and
    object, or the like; others are ignored. Of a table of three columns with other names, they are taken in this order.

    Raises:
      UserError: not three columns, or a missing value.
    """
    if hasattr(triples, "columns"):
        columns = [str(column) for column in triples.columns]
        order = order_of(columns)
        if order is None and len(columns) != 3:
            raise UserError(f"{what}: the columns are {', '.join(columns)}; name three of them head, relation and tail")
        table = triples.to_numpy()[:, order or [0, 1, 2]]
        rows = table.tolist()
    else:
        rows = triples.tolist() if isinstance(triples, np.ndarray) else [tuple(row) for row in triples]
    found = []
    for number, row in enumerate(rows):
        if not isinstance(row, list | tuple) or len(row) != 3:
            raise UserError(f"{what}: row {number}: expected head, relation, tail, found {str(row)[:60]}")
        found.append([_name(value, f"{what}: row {number}") for value in row])
    return found


def _name(value: Any, where: str) -> str:
    if isinstance(value, float) and value.is_integer():
        raise UserError(f"{where} contains {value}; ids are whole numbers: convert the column to integers")
    text = "" if value is None or isinstance(value, float) else str(value).strip()
    if not text:
        raise UserError(f"{where} lacks a value ({value!r})")
    return text


def _latest(train: np.ndarray, shares: Mapping[str, float], times: np.ndarray) -> dict[str, np.ndarray]:
    """The splits by name: the latest triples ``[T, 3]``, the latest of the others, and what is left as ``train``."""
    total, splits = len(train), {}
    for split, share in shares.items():
        late = times > np.sort(times)[-1 - round(share * total)]
        if not late.any():
            raise UserError(
                f"{split}: no triples are later than all others; too many times are equal: give a larger share"
            )
        train, splits[split], times = train[~late], train[late], times[~late]
    return {"train": train, **splits}


def _times(triples: Any, time: Any, count: int) -> np.ndarray:
    """The times of the triples ``[T]``: a column of their table by name, or as they are given."""
    if isinstance(time, str):
        if time not in list(getattr(triples, "columns", ())):
            raise UserError(f"time is {time!r}, but triples have no column of this name")
        time = triples[time]
    times = np.asarray(time)
    if times.shape != (count,):
        raise UserError(f"time has shape {list(times.shape)} for {count} triples; give one time per triple")
    return times


def graph_of_pykeen(dataset: Any, name: str = "") -> KnowledgeGraph:
    """What ``KnowledgeGraph.from_pykeen`` returns; see there."""
    parts = {"train": dataset.training, "valid": dataset.validation, "test": dataset.testing}
    names = []
    for ids in (parts["train"].entity_to_id, parts["train"].relation_to_id):
        if sorted(ids.values()) != list(range(len(ids))):
            raise UserError("the dataset's ids are not 0 to N-1; renumber its entities and relations")
        names.append(sorted(ids, key=ids.__getitem__))
    splits = {}
    for split, factory in parts.items():
        rows = np.zeros((0, 3)) if factory is None else factory.mapped_triples
        splits[split] = np.asarray(rows, np.int32).reshape(-1, 3)
    modalities = ()
    if (literals := getattr(parts["train"], "numeric_literals", None)) is not None:
        modalities = (make_modality("numeric", np.asarray(literals, np.float32)),)
    return KnowledgeGraph(name or type(dataset).__name__, *names, **splits, modalities=modalities)


def _modalities(
    features: Mapping[str, Any], entities: Sequence[str], encoders: Mapping[str, str], notify: Callable[[str], None]
) -> tuple[Modality, ...]:
    """Modalities in the order of their names; see ``KnowledgeGraph.from_triples`` for what each may be given as.

    Raises:
      UserError: values of another kind, or none of an entity of the graph; or an encoder of what is not given.
    """
    found = {}
    named = {modality_name(given): encoder for given, encoder in encoders.items()}
    for given, values in features.items():
        name = modality_name(given)
        if name in TAKEN or name in found:
            why = "is reserved for one of the model's own experts" if name in TAKEN else "is given twice"
            raise UserError(f"features {given!r}: {name} {why}; give it another name")
        found[name] = _modality(name, values, entities, named.get(name, ""), notify)
        if name in named and found[name].made_by != named[name]:
            raise UserError(f"encoders {name!r}: these values are not encoded; an encoder takes texts or files")
    if named.keys() - found.keys():
        raise UserError(f"encoders: {', '.join(sorted(named.keys() - found.keys()))} is not among the features")
    return tuple(found[name] for name in sorted(found))


def _pairs(values: Any) -> list[tuple[str, Any]] | None:
    """Pairs of an entity and a value; of a Series or a DataFrame by its index. None where values have no names."""
    if hasattr(values, "columns") and hasattr(values, "index"):
        rows = [dict(zip(values.columns, row, strict=True)) for row in values.to_numpy().tolist()]
        return list(zip(map(str, values.index), rows, strict=True))
    if isinstance(values, Mapping) or (hasattr(values, "index") and hasattr(values, "items")):
        return [(str(key), value) for key, value in values.items()]
    return None


def _modality(name: str, values: Any, entities: Sequence[str], encoder: str, notify: Callable[[str], None]) -> Modality:
    where = f"features {name}"
    if isinstance(values, str):
        if name != "text" or values != "names":
            raise UserError(f"{where}: is {values!r}; the only accepted word is text='names'")
        return text_modality([readable_name(entity) for entity in entities], encoder or DEFAULT_ENCODER)
    pairs = _pairs(values)
    if pairs is None:
        rows = np.asarray(values)
        # Only ids have an order that the caller knows as well.
        if list(entities) != list(map(str, range(len(entities)))):
            raise UserError(f"{where}: give {{entity: row}}, because only ids 0 to N-1 have an order")
        if rows.shape[:1] != (len(entities),):
            raise UserError(f"{where}: has shape {list(rows.shape)}, but the graph has {len(entities)} entities")
        return make_modality(name, rows)
    find = entity_finder(entities)
    places = [find(key) for key, _ in pairs]
    missing = [(number, key) for number, (key, _) in enumerate(pairs) if places[number] is None]
    tell_left_out(Path(where), "rows", missing, len(pairs), notify)
    known = {}
    for place, (key, value) in zip(places, pairs, strict=True):
        if place in known:
            raise UserError(f"{where}: {key!r} is given twice, or by its name and by its id; give one value per entity")
        if place is not None:
            known[place] = value
    if not known:
        raise UserError(f"{where}: is empty")
    if encoders_of(name):
        known = {place: _paths(value) for place, value in known.items()}
    kinds = {_kind(value) for value in known.values()}
    if len(kinds) > 1:
        raise UserError(f"{where}: contains {' and '.join(sorted(kinds))}; give all entities values of one kind")
    (kind,) = kinds
    if kind == "numbers by attribute":
        if name != "numeric":
            known = {place: list(row.values()) for place, row in known.items()}
        else:
            rows = {place: given for place, row in known.items() if (given := _given(where, row))}
            if not rows:
                raise UserError(f"{where}: contains no number")
            return attribute_modality(list(rows.values()), list(rows), len(entities), where)
    if kind == "texts":
        if name != "text":
            raise UserError(f"{where}: contains texts; give texts under the name text, or vectors")
        texts = [str(known.get(place, "")) for place in range(len(entities))]
        return text_modality(texts, encoder or DEFAULT_ENCODER)
    if kind == "files":
        if not encoders_of(name):
            raise UserError(f"{where}: files are read only for {', '.join(MEDIA)}; give vectors, or add an encoder")
        return files_modality(name, known, len(entities), encoder)
    return _vectors(name, known, len(entities))


def _paths(value: Any) -> Any:
    """A path or a list of paths, as texts or not, as a list of paths; any other value as it is."""
    paths = value if isinstance(value, list | tuple) else [value]
    return [Path(path) for path in paths] if paths and all(isinstance(path, str | Path) for path in paths) else value


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "texts"
    first = value[0] if isinstance(value, list | tuple) and len(value) else value
    if isinstance(first, Path):
        return "files"
    return "numbers by attribute" if isinstance(value, Mapping) else "vectors"


def _given(where: str, row: Mapping[Any, Any]) -> list[tuple[str, float]]:
    """Pairs of an attribute and a number, without those that are missing."""
    given = [(str(name), value) for name, value in row.items() if value is not None and value == value]
    for name, value in given:
        if isinstance(value, str):
            raise UserError(
                f"{where}: {name[:40]!r} is {value[:40]!r}, not a number; give one attribute per word, 1 or 0, as "
                "pandas.get_dummies does"
            )
    return [(name, float(value)) for name, value in given]


def _vectors(name: str, known: Mapping[int, Any], height: int) -> Modality:
    try:
        rows = np.stack([np.asarray(value, np.float32).reshape(-1) for value in known.values()])
    except (ValueError, TypeError) as error:
        raise UserError(f"features {name}: rows differ in length, or are not numbers ({error})") from error
    features = np.full((height, rows.shape[1]), np.nan, np.float32)
    features[list(known)] = rows
    return make_modality(name, features)
