"""Feature files of a folder as modalities: one file per modality, named for it.

Besides ``<modality>`` with one of the suffixes these layouts of published feature sets are read:
``embeddings/{DB15K,MKG-W,MKG-Y,TIVA,Kuai16K}-{visual,textual,numeric,audio,video}.pth`` (or without
the subfolder) and ``{img,text,numeric}_features.pth``.
"""

import dataclasses
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np

from mocme_jax.data.features import attribute_values
from mocme_jax.data.features.filled_rows import find_filled
from mocme_jax.data.features.modality_names import TAKEN, USUAL, modality_name
from mocme_jax.data.features.text_features import DESCRIPTIONS_FILE
from mocme_jax.data.graph.entity_names import entity_finder, tell_left_out
from mocme_jax.data.graph.knowledge_graph import Modality, make_modality
from mocme_jax.data.graph.mapped_triples import SUFFIX as TRIPLES_SUFFIX
from mocme_jax.data.readers.csv_table import TABLE, read_csv_vectors
from mocme_jax.data.readers.hdf5_file import read_hdf5
from mocme_jax.data.readers.numpy_file import read_npy, read_npz
from mocme_jax.data.readers.parquet_file import read_parquet
from mocme_jax.data.readers.safetensors_file import read_safetensors
from mocme_jax.data.readers.text_lines import read_whole_number
from mocme_jax.data.readers.torch_features import read_torch
from mocme_jax.errors import UserError

Arrays = dict[str, list[str] | np.ndarray]
"""Arrays by name; ``ids`` may be a list of names."""

_ARRAYS = ("rows", "ids", "present")
_OF_PREPARE = ("made_by", *attribute_values.ARRAYS)
_READERS: dict[str, Callable[[Path], Arrays]] = {
    ".npy": lambda path: {"rows": read_npy(path)},
    ".npz": lambda path: dict(read_npz(path, _ARRAYS + _OF_PREPARE)),
    ".safetensors": lambda path: dict(read_safetensors(path)),
    ".pth": read_torch,
    ".pt": read_torch,
    TABLE: read_csv_vectors,
    ".parquet": read_parquet,
    ".h5": read_hdf5,
    ".hdf5": read_hdf5,
}
# Files that hold anything, not features alone: read if they are called like a usual modality, or are asked for.
_OFTEN_OTHERS = (TABLE, ".parquet", ".h5", ".hdf5")
_PICKLES = (".pkl", ".pickle")
_UNREAD = (*_PICKLES, ".tsv", ".mat")
_OF_DATASET = re.compile(r"^(.+)-(visual|textual|numeric|audio|video)$", re.IGNORECASE)
_DATASET_ALIASES = {"kuai16k": "kvc16k"}


def unread_features(folder: Path, read: Collection[Path]) -> list[str]:
    """A line for each file of features, by its name, that is not among those that are read, sorted."""
    lines = []
    for path in sorted(Path(folder).iterdir()):
        kind, name = path.suffix.lower(), modality_name(path.stem)
        if path in read or not path.is_file() or path.name == DESCRIPTIONS_FILE:
            continue
        if kind in _PICKLES and name in USUAL:
            lines.append(
                f"{path}: is not read, because loading a pickle can run code; if you trust it, open it yourself and "
                f"save an array with numpy.save({str(path.with_name(name + '.npy'))!r}, array), or a dict of vectors "
                f"with numpy.savez({str(path.with_name(name + '.npz'))!r}, ids=list(vectors), "
                "rows=list(vectors.values()))"
            )
        elif kind in _UNREAD and name in USUAL:
            lines.append(
                f"{path}: is not read; features are read from {', '.join(_READERS)}: save it in one of these "
                "formats, or make features from images, numbers and descriptions with python -m mocme_jax.prepare"
            )
        elif kind in _OFTEN_OTHERS and name not in USUAL:
            lines.append(f"{path}: is read only if you ask for its modality: --config.data.modalities={name},...")
    return lines


def feature_paths(folder: Path, graph_name: str, wanted: Collection[str] | None = None) -> dict[str, Path]:
    """The feature files of a folder by modality, sorted; see the module for the names.

    Tables and HDF5 files, which may hold anything, count if they are called like a usual modality or a wanted one. A
    ``.csv`` of numeric attributes is none of them: it is what the modality is made of, see numeric_source.

    Args:
      folder: of the files.
      graph_name: of the dataset, for files that are named for one.
      wanted: modalities; what files of others are called does not matter. None: all.

    Raises:
      UserError: two files give one modality, files are named for several datasets and none for this one, or a name is
        the model's own.
    """
    folder = Path(folder)
    files = [
        path
        for place in (folder, folder / "embeddings")
        if place.is_dir()
        for path in sorted(place.iterdir())
        if _is_features(path, wanted)
        and not path.name.startswith(".")
        and not path.name.endswith(TRIPLES_SUFFIX)
        and path.is_file()
    ]
    datasets: dict[str, str] = {}
    for path in files:
        match = _OF_DATASET.match(path.stem)
        if match:
            datasets.setdefault(_dataset_key(match.group(1)), match.group(1))
    graph_key = _dataset_key(graph_name)
    chosen = {key for key in datasets if key == graph_key} or {key for key in datasets if graph_key.startswith(key)}
    if not chosen and len(datasets) > 1:
        raise UserError(
            f"{folder}: contains features of {', '.join(datasets.values())} but none named after {graph_name}; "
            "name the data folder after its dataset, or keep only its feature files in the folder"
        )
    found: dict[str, Path] = {}
    for path in files:
        match = _OF_DATASET.match(path.stem)
        if match and chosen and _dataset_key(match.group(1)) not in chosen:
            continue
        name = _modality_of(path)
        if name in TAKEN:
            raise UserError(f"{path}: {name!r} is reserved for one of the model's own experts; rename the file")
        if name in found:
            raise UserError(f"{path}: gives the modality {name}, and so does {found[name]}; remove one of the two")
        found[name] = path
    return dict(sorted(found.items()))


def _modality_of(path: Path) -> str:
    match = _OF_DATASET.match(path.stem)
    return modality_name(match.group(2) if match else path.stem)


def _dataset_key(name: str) -> str:
    key = re.sub(r"[^a-z0-9]", "", name.lower())
    return _DATASET_ALIASES.get(key, key)


def _is_features(path: Path, wanted: Collection[str] | None) -> bool:
    kind, name = path.suffix.lower(), _modality_of(path)
    if (kind, name) == (TABLE, "numeric"):
        return False
    if wanted is None:
        return kind in _READERS and (kind not in _OFTEN_OTHERS or name in USUAL)
    return kind in _READERS and name in wanted


def read_feature_file(
    path: Path, name: str, entities: Sequence[str], notify: Callable[[str], None] = print
) -> Modality:
    """One file as the modality ``name``; the suffix says how it is read.

    * ``.npy``: a matrix ``[N, d]``; a row of NaN marks an entity that lacks the modality.
    * ``.npz``, ``.safetensors``, ``.h5``, ``.hdf5``: ``rows`` with ``ids`` (see entity_finder; words not in a
      ``.safetensors``), or ``rows [N, d]`` with ``present`` (bool ``[N]``) or without; or a single array of any name;
      or, not in an ``.npz``, vectors of one length by the names of entities. An ``.npz`` may hold a line ``made_by``,
      see Modality.
    * ``.pth``, ``.pt``: see read_torch.
    * ``.csv``, ``.parquet``: one row per entity, see read_csv_vectors and read_parquet.

    In a matrix that marks no entity as missing, rows that were filled in for missing entities are found and treated as
    missing, see find_filled. Numeric attributes are left as they are, because their rows often repeat.

    Args:
      path: the file.
      name: of the modality.
      entities: names by id; row i of a full matrix belongs to entity i.
      notify: told in one line of rows of entities that the graph lacks (these are left out), of filled-in rows, or of
        an order to check.

    Raises:
      UserError: the file is unreadable, has another height than the graph has entities, an entity twice or none of the
        graph, or NaN or infinite values in a row that is not masked.
    """
    arrays = _READERS[path.suffix.lower()](path)
    made_by = _word(path, np.asarray(arrays.pop("made_by"))) if "made_by" in arrays else ""
    kept = {key: np.asarray(arrays.pop(key)) for key in attribute_values.ARRAYS if key in arrays}
    if 0 < len(kept) < len(attribute_values.ARRAYS):
        raise UserError(f"{path}: contains {', '.join(kept)} without the rest of the attributes; make the file again")
    arrays = _named(arrays)
    if arrays.keys() - set(_ARRAYS) or "rows" not in arrays:
        names = ", ".join(sorted(arrays))[:200] or "nothing"
        raise UserError(f"{path}: contains {names}; expected the array rows, with ids or present")
    # A bool is a byte, and in a stranger's file not always 0 or 1.
    arrays = {
        key: array.view(np.uint8) != 0 if isinstance(array, np.ndarray) and array.dtype == bool else array
        for key, array in arrays.items()
    }
    rows, present = np.asarray(arrays["rows"]), arrays.get("present")
    if rows.dtype.kind not in "fiub":
        raise UserError(f"{path}: contains values of type {rows.dtype}; save the features as a float32 array")
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise UserError(f"{path}: has shape {list(rows.shape)}; expected a matrix [entities, width]")
    if "ids" in arrays:
        if present is not None:
            raise UserError(f"{path}: contains both ids and present; keep only one of them")
        rows, present = _spread(path, rows, arrays["ids"], entities, notify)
    elif len(rows) != len(entities):
        raise UserError(
            f"{path}: has {len(rows)} rows but the graph has {len(entities)} entities; "
            "give one row per entity in the order of the ids (python -m mocme_jax.prepare --list-entities), "
            "or an .npz of ids and rows"
        )
    elif present is not None:
        present = np.asarray(present)
        if present.shape != (len(rows),) or present.dtype.kind not in "bu":
            raise UserError(f"{path}: present has shape {list(present.shape)}, type {present.dtype}; expected bool [N]")
        present = present.astype(bool)
    if "ids" not in arrays and _order_may_surprise(entities):
        first = ", ".join(entity[:40] for entity in entities[:3])
        notify(
            f"{path}: the names of the entities are whole numbers, but not in ascending order: the first rows are read "
            f"as those of {first}; python -m mocme_jax.prepare --list-entities writes the full order"
        )
    if name != "numeric" and present is None and not (rows.dtype.kind == "f" and np.isnan(rows[:, 0]).any()):
        present = _without_filled(path, rows, notify)
    try:
        # A float64 too large for float32 turns infinite, and is then reported as such.
        with np.errstate(over="ignore", invalid="ignore"):
            modality = make_modality(name, rows, present, made_by)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    if kept:
        _refuse_no_text(path, "attributes", kept["attributes"])
        attributes = attribute_values.from_arrays(path, kept, rows.shape[1])
        modality = dataclasses.replace(modality, attributes=attributes)
    if not modality.present.any():
        raise UserError(f"{path}: every entity lacks the modality {name}; remove the file or fill it")
    return modality


def _without_filled(path: Path, rows: np.ndarray, notify: Callable[[str], None]) -> np.ndarray:
    """The mask ``[N]`` of the rows that were not filled in, of a matrix that marks none as missing."""
    filled = find_filled(rows)
    if filled.any.any():
        kinds = {
            "are the mean of the others": filled.mean,
            "repeat one row": filled.repeated,
            "are constant": filled.constant,
        }
        told = ", ".join(f"{mask.sum():,} {what}" for what, mask in kinds.items() if mask.any())
        notify(
            f"{path}: {filled.any.sum():,} of {len(rows):,} rows look filled in and are treated as missing ({told}); "
            "to keep them, save the arrays rows and present as an .npz"
        )
    return ~filled.any


def _order_may_surprise(entities: Sequence[str]) -> bool:
    """Whether entities are called by whole numbers, and a matrix by ascending number would be another one."""
    numbers = [read_whole_number(name) for name in entities]
    return None not in numbers and numbers != sorted(number for number in numbers if number is not None)


def _named(arrays: Arrays) -> Arrays:
    """A single array as ``rows``, and vectors of one length by name as ``ids`` and ``rows``."""
    values = list(arrays.values())
    if "rows" in arrays or not values:
        return arrays
    if len(values) == 1:
        return {"rows": values[0]}
    shapes = {array.shape if isinstance(array, np.ndarray) and array.dtype.kind in "fiu" else () for array in values}
    if len(shapes) == 1 and len(shapes.pop()) == 1 and not arrays.keys() & set(_ARRAYS):
        return {"ids": list(arrays), "rows": np.stack(values)}
    return arrays


def _spread(
    path: Path,
    rows: np.ndarray,
    ids: list[str] | np.ndarray,
    entities: Sequence[str],
    notify: Callable[[str], None],
) -> tuple[np.ndarray, np.ndarray]:
    """Rows by entity and their mask, from rows by position and the entity of each."""
    keys = ids if isinstance(ids, list) else _names_of(path, ids)
    if len(keys) != len(rows):
        raise UserError(f"{path}: ids has shape [{len(keys)}] and rows {list(rows.shape)}; give one id per row")
    find = entity_finder(entities)
    # Once per name: a compressed file may repeat a long one.
    found = {key: find(key) for key in dict.fromkeys(keys)}
    places = [found[key] for key in keys]
    missing = [(position, key) for position, key in enumerate(keys) if places[position] is None]
    tell_left_out(path, "ids", missing, len(keys), notify)
    known = np.array([place is not None for place in places], bool)
    owners, rows = np.array([place for place in places if place is not None], np.int64), rows[known]
    counts = np.bincount(owners, minlength=len(entities))
    if len(owners) and counts.max() > 1:
        raise UserError(f"{path}: entity id {counts.argmax()} is given {counts.max()} times; give one row per entity")
    # A row of NaN under an id is as missing as no row.
    given = ~np.isnan(rows).all(1) if rows.dtype.kind == "f" else np.ones(len(rows), bool)
    spread = np.zeros((len(entities), rows.shape[1]), rows.dtype)
    spread[owners] = rows
    present = np.zeros(len(entities), bool)
    present[owners] = given
    return spread, present


def _names_of(path: Path, ids: np.ndarray) -> list[str]:
    if ids.ndim != 1:
        raise UserError(f"{path}: ids has shape {list(ids.shape)}; give one id per row")
    if ids.dtype.kind == "U":
        _refuse_no_text(path, "ids", ids)
    elif ids.dtype.kind not in "iu":
        raise UserError(f"{path}: ids are of type {ids.dtype}; give entity ids as whole numbers")
    return list(map(str, ids.tolist()))


def _word(path: Path, array: np.ndarray) -> str:
    if array.dtype.kind == "U":
        _refuse_no_text(path, "made_by", array.reshape(-1))
    if array.shape or array.dtype.kind != "U" or not str(array).isprintable():
        raise UserError(
            f"{path}: made_by is of type {array.dtype}, shape {list(array.shape)}; expected one line of text"
        )
    return str(array)


def _refuse_no_text(path: Path, name: str, words: np.ndarray) -> None:
    codes = np.ascontiguousarray(words).view(words.dtype.byteorder + "u4")
    if (codes > 0x10FFFF).any():
        raise UserError(f"{path}: {name} contain a value that is not text; write them again")
