"""Feature files of a folder as modalities: one file per modality, named for it.

Besides ``<modality>.{npy,npz,safetensors,pth,pt}`` these layouts of published feature sets are read:
``embeddings/{DB15K,MKG-W,MKG-Y,TIVA,Kuai16K}-{visual,textual,numeric,audio,video}.pth`` (or without
the subfolder) and ``{img,text,numeric}_features.pth``.
"""

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np

from mocme_jax.data.graph.entity_names import entity_finder, tell_left_out
from mocme_jax.data.graph.knowledge_graph import Modality, make_modality
from mocme_jax.data.graph.mapped_triples import SUFFIX as TRIPLES_SUFFIX
from mocme_jax.data.readers.numpy_file import read_npy, read_npz
from mocme_jax.data.readers.safetensors_file import read_safetensors
from mocme_jax.data.readers.text_lines import read_whole_number
from mocme_jax.data.readers.torch_file import read_torch
from mocme_jax.errors import UserError

SUFFIXES = (".npy", ".npz", ".safetensors", ".pth", ".pt")
_ARRAYS = ("rows", "ids", "present", "made_by")
_ALIASES = {
    **dict.fromkeys(("img", "imgs", "images", "visual", "vision"), "image"),
    **dict.fromkeys(("textual", "txt"), "text"),
    **dict.fromkeys(("num", "numerical", "numbers"), "numeric"),
    **dict.fromkeys(("sound",), "audio"),
}
_OF_DATASET = re.compile(r"^(.+)-(visual|textual|numeric|audio|video)$", re.IGNORECASE)
_DATASET_ALIASES = {"kuai16k": "kvc16k"}


# Words of the model's own, in every table beside the modalities.
_TAKEN = ("structure", "joint expert")
_UNREAD = (".pkl", ".pickle", ".h5", ".hdf5", ".csv", ".tsv", ".parquet", ".mat")


def unread_features(folder: Path) -> list[Path]:
    """Files that are called like a modality (``image.pkl``) but are in no format that is read, sorted."""
    return [
        path
        for path in sorted(Path(folder).iterdir())
        if path.suffix.lower() in _UNREAD
        and modality_name(path.stem) in {*_ALIASES.values(), "video"}
        and path.is_file()
    ]


def feature_paths(folder: Path, graph_name: str, wanted: Collection[str] | None = None) -> dict[str, Path]:
    """The feature files of a folder by modality, sorted; see the module for the names.

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
        if path.suffix.lower() in SUFFIXES
        and not path.name.startswith(".")
        and not path.name.endswith(TRIPLES_SUFFIX)
        and path.is_file()
        and (wanted is None or _modality_of(path) in wanted)
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
            f"{folder}: holds features of {', '.join(datasets.values())} but none named for {graph_name}; "
            "name the data folder for its dataset or keep its feature files alone in a folder"
        )
    found: dict[str, Path] = {}
    for path in files:
        match = _OF_DATASET.match(path.stem)
        if match and chosen and _dataset_key(match.group(1)) not in chosen:
            continue
        name = _modality_of(path)
        if own_word(name):
            raise UserError(
                f"{path}: {name!r} is the model's own word for one of its experts; give the file another name"
            )
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


def modality_name(stem: str) -> str:
    """The modality that a file stem means: ``img_features`` and ``Visual`` mean ``image``."""
    name = re.sub(r"[_-](features?|embeddings?)$", "", stem.strip().lower())
    return _ALIASES.get(name, name)


def own_word(name: str) -> bool:
    """Whether a modality can't be called so, because the model calls one of its experts so."""
    return name in _TAKEN


def read_feature_file(
    path: Path, name: str, entities: Sequence[str], notify: Callable[[str], None] = print
) -> Modality:
    """One file as the modality ``name``; the suffix says how it is read.

    * ``.npy``, ``.pth``, ``.pt``: a matrix ``[N, d]``; a row of NaN marks an entity that lacks the modality.
    * ``.npz``, ``.safetensors``: ``rows`` with ``ids`` (see entity_finder; words only in an ``.npz``), or ``rows [N,
      d]`` with ``present`` (bool ``[N]``) or without; or a single array of any name. An ``.npz`` may hold a line
      ``made_by``, see Modality.

    Args:
      path: the file.
      name: of the modality.
      entities: names by id; row i of a full matrix belongs to entity i.
      notify: told in one line of rows of entities that the graph lacks (these are left out), or of an order to check.

    Raises:
      UserError: the file is unreadable, has another height than the graph has entities, an entity twice or none of the
        graph, or NaN or infinite values in a row that is not masked.
    """
    # A bool is a byte, and in a stranger's file not always 0 or 1.
    arrays = {
        key: array.view(np.uint8) != 0 if array.dtype == bool else array for key, array in _read_arrays(path).items()
    }
    made_by = _word(path, arrays.pop("made_by")) if "made_by" in arrays else ""
    if "rows" not in arrays and len(arrays) == 1:
        arrays = {"rows": next(iter(arrays.values()))}
    if arrays.keys() - set(_ARRAYS) or "rows" not in arrays:
        names = ", ".join(sorted(arrays)) or "nothing"
        raise UserError(f"{path}: holds {names}; expected the array rows, with ids or present")
    rows = arrays["rows"]
    if rows.dtype.kind not in "fiub":
        raise UserError(f"{path}: holds values of type {rows.dtype}; save the features as a float32 array")
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise UserError(f"{path}: has shape {list(rows.shape)}; expected a matrix [entities, width]")
    present = None
    if "ids" in arrays:
        if "present" in arrays:
            raise UserError(f"{path}: holds both ids and present; give one of them")
        rows, present = _spread(path, rows, arrays["ids"], entities, notify)
    elif len(rows) != len(entities):
        raise UserError(
            f"{path}: has {len(rows)} rows but the graph has {len(entities)} entities; "
            "give one row an entity in the order of its ids (python -m mocme_jax.prepare --list-entities), "
            "or an .npz of ids and rows"
        )
    elif "present" in arrays:
        present = arrays["present"]
        if present.shape != (len(rows),) or present.dtype.kind not in "bu":
            raise UserError(f"{path}: present has shape {list(present.shape)}, type {present.dtype}; expected bool [N]")
        present = present.astype(bool)
    if "ids" not in arrays and _order_may_surprise(entities):
        first = ", ".join(entity[:40] for entity in entities[:3])
        notify(
            f"{path}: entities are called by whole numbers, but not in ascending order: row 0 and what follows are "
            f"taken to be of {first}; python -m mocme_jax.prepare --list-entities writes the whole order"
        )
    try:
        # A float64 too large for float32 turns infinite, and is then reported as such.
        with np.errstate(over="ignore", invalid="ignore"):
            modality = make_modality(name, rows, present, made_by)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    if not modality.present.any():
        raise UserError(f"{path}: every entity lacks the modality {name}; remove the file or fill it")
    return modality


def _order_may_surprise(entities: Sequence[str]) -> bool:
    """Whether entities are called by whole numbers, and a matrix by ascending number would be another one."""
    numbers = [read_whole_number(name) for name in entities]
    return None not in numbers and numbers != sorted(number for number in numbers if number is not None)


def _spread(
    path: Path, rows: np.ndarray, ids: np.ndarray, entities: Sequence[str], notify: Callable[[str], None]
) -> tuple[np.ndarray, np.ndarray]:
    """Rows by entity and their mask, from rows by position and the entity of each."""
    if ids.shape != (len(rows),):
        raise UserError(f"{path}: ids has shape {list(ids.shape)} and rows {list(rows.shape)}; give one id a row")
    if ids.dtype.kind == "U":
        _refuse_no_text(path, "ids", ids)
    elif ids.dtype.kind not in "iu":
        raise UserError(f"{path}: ids are of type {ids.dtype}; give entity ids as whole numbers")
    keys, find = list(map(str, ids.tolist())), entity_finder(entities)
    places = [find(key) for key in keys]
    missing = [(position, key) for position, key in enumerate(keys) if places[position] is None]
    tell_left_out(path, "ids", missing, len(ids), notify)
    known = np.array([place is not None for place in places], bool)
    ids, rows = np.array([place for place in places if place is not None], np.int64), rows[known]
    counts = np.bincount(ids, minlength=len(entities))
    if len(ids) and counts.max() > 1:
        raise UserError(f"{path}: entity id {counts.argmax()} is given {counts.max()} times; give one row an entity")
    # A row of NaN under an id is as missing as no row.
    given = ~np.isnan(rows).all(1) if rows.dtype.kind == "f" else np.ones(len(rows), bool)
    spread = np.zeros((len(entities), rows.shape[1]), rows.dtype)
    spread[ids] = rows
    present = np.zeros(len(entities), bool)
    present[ids] = given
    return spread, present


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
        raise UserError(f"{path}: {name} hold what is no text; write them again")


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    suffix = path.suffix.lower()
    if suffix in (".pth", ".pt"):
        return {"rows": read_torch(path)}
    if suffix == ".safetensors":
        return read_safetensors(path)
    return {"rows": read_npy(path)} if suffix == ".npy" else read_npz(path, _ARRAYS)
