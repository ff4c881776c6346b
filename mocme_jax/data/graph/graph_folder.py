"""A graph with its features from one or two folders, whatever their layout."""

import hashlib
import os
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np

from mocme_jax.data.features.feature_files import feature_paths, read_feature_file, unread_features
from mocme_jax.data.features.modality_names import modality_name
from mocme_jax.data.features.numeric_features import numeric_modality
from mocme_jax.data.features.numeric_tables import NUMERIC_FILE, numeric_source
from mocme_jax.data.features.text_features import (
    DEFAULT_ENCODER,
    DESCRIPTIONS_FILE,
    LABELS_FILE,
    encode_texts,
    entity_texts,
)
from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph, Modality, make_modality
from mocme_jax.data.graph.mapped_triples import SUFFIX, read_mapped
from mocme_jax.data.graph.openke_layout import read_openke
from mocme_jax.data.graph.plain_layout import read_plain, split_file
from mocme_jax.data.readers.numpy_file import read_npy
from mocme_jax.data.whole_files import write_atomically
from mocme_jax.data.whole_folders import refuse_unfinished
from mocme_jax.errors import UserError

MADE_FOLDER = "made_features"
# Identifiers of Wikidata, Freebase and the like, and bare numbers: nothing a text encoder could read.
_OPAQUE = re.compile(r"^(?:[A-Z]?\d+|/?[mg][/.][0-9a-z_]+)$")


def atlas_directory() -> Path:
    """The folder of the embedded graph."""
    return Path(__file__).parent.parent / "atlas"


def load_graph(
    directory: Path,
    features_dir: Path | None = None,
    *,
    name: str = "",
    modalities: Sequence[str] = (),
    make: Sequence[str] = ("text", "numeric"),
    notify: Callable[[str], None] | None = None,
) -> KnowledgeGraph:
    """Reads a graph, reads its feature files, and makes the features that can be made; see ``from_folder``.

    Without a file, ``text`` is encoded from what can be read about each entity (see entity_texts), and ``numeric`` is
    made from ``numeric_triples.tsv`` or ``numeric.csv``; both folders are searched for their sources. Encoded text is
    kept for later runs: in ``<features_dir>/made_features`` or, where that can't be written, in
    ``~/.cache/mocme_jax/features``.

    Args:
      directory: the graph, see read_triples.
      features_dir, name, modalities, make: see ``KnowledgeGraph.from_folder``.
      notify: told in one line of work that takes a while, and of each part of a file that is left out.

    Raises:
      UserError: the folder holds no graph, a file is malformed, or a wanted modality is not to be had.
    """
    directory = Path(directory)
    notify = notify or (lambda line: None)
    graph = read_triples(directory, notify)
    graph = graph.replace(name=name or graph.name)
    features_dir = directory if features_dir is None else Path(features_dir)
    if not features_dir.is_dir():
        raise UserError(f"{features_dir}: no such folder; give the folder that contains the feature files")
    folders = list(dict.fromkeys([features_dir, directory]))
    wanted = {modality_name(word) for word in modalities} - {"structure"}
    take_all = not modalities
    files = feature_paths(features_dir, graph.name, None if take_all else wanted)
    refuse_unfinished(features_dir, lambda name: _of_modality(name, wanted if modalities else None))
    for line in unread_features(features_dir, files.values()):
        notify(line)
    found = {kind: read_feature_file(path, kind, graph.entities, notify) for kind, path in files.items()}

    wanted_or_made = set(make) if take_all else wanted
    if "numeric" in wanted_or_made - found.keys():
        source = numeric_source(folders)
        if source is not None:
            found["numeric"] = numeric_modality(source, graph.entities, notify=notify)
    if "text" in wanted_or_made - found.keys():
        texts = entity_texts(graph, *folders, notify=notify)
        if is_readable(texts):
            found["text"] = _encoded(texts, features_dir, notify)
    for kind in sorted(wanted - found.keys()):
        raise UserError(_not_to_be_had(kind, graph, features_dir, folders))
    return graph.replace(modalities=tuple(found[kind] for kind in sorted(found)))


def read_triples(directory: Path, notify: Callable[[str], None] = print) -> KnowledgeGraph:
    """The graph of a folder without modalities, its layout found by its files; a line to ``notify`` tells of a header.

    Raises:
      UserError: there is no such folder, it holds no graph, or a file is malformed.
    """
    if not directory.is_dir():
        raise UserError(f"{directory}: no such folder; give the folder that contains the graph's files")
    refuse_unfinished(directory, _of_graph)
    if any((directory / f"{split}2id.txt").exists() for split in ("train", "valid", "test")):
        return read_openke(directory)
    if (directory / f"train{SUFFIX}").exists():
        return read_mapped(directory)
    if split_file(directory, "train") is not None:
        return read_plain(directory, notify)
    raise UserError(
        f"{directory}: contains no graph; expected entity2id.txt, relation2id.txt and "
        f"{{train,valid,test}}2id.txt (or {SUFFIX}), or train.txt (.tsv, .nt, .del, .gz) with rows head, relation, tail"
    )


def _of_graph(name: str) -> bool:
    return name.endswith(("2id.txt", SUFFIX))


def _of_modality(name: str, wanted: Collection[str] | None) -> bool:
    """Whether a file is one of features; with ``wanted``, of one of these."""
    return not _of_graph(name) and (wanted is None or modality_name(Path(name).stem) in wanted)


def is_readable(texts: Sequence[str]) -> bool:
    """Whether most of the texts say something: not numbers, and not ids such as Q42 or /m/02mjmr."""
    opaque = sum(not text or _OPAQUE.match(text) is not None for text in texts)
    return 2 * opaque < len(texts)


def _not_to_be_had(kind: str, graph: KnowledgeGraph, features_dir: Path, folders: Sequence[Path]) -> str:
    if kind == "text":
        return (
            f"{graph.name}: the entities' names are numbers or ids, not text; "
            f"put {LABELS_FILE} or {DESCRIPTIONS_FILE} into {features_dir}"
        )
    if kind == "numeric":
        return f"{features_dir}: no features for numeric; add {NUMERIC_FILE} or a file such as numeric.npz"
    there = set(feature_paths(features_dir, graph.name))
    if numeric_source(folders) is not None:
        there.add("numeric")
    if is_readable(entity_texts(graph, *folders, notify=lambda line: None)):
        there.add("text")
    offered = ", ".join(sorted(there)) or "none"
    return f"{features_dir}: no features for {kind}; available: {offered}. Add a file such as {kind}.npy"


def _encoded(texts: list[str], features_dir: Path, notify: Callable[[str], None]) -> Modality:
    key = hashlib.sha256("\0".join([DEFAULT_ENCODER, *texts]).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    file_name = f"text-{DEFAULT_ENCODER}-{key}.npy"
    # Where the data folder can't be written: the XDG cache directory.
    root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    beside, fallback = features_dir / MADE_FOLDER, root / "mocme_jax" / "features"
    present = np.array([bool(text.strip()) for text in texts])
    for folder in (beside, fallback):
        rows = _read_made(folder / file_name, len(texts))
        if rows is not None:
            return make_modality("text", rows, present, DEFAULT_ENCODER)
    notify(f"encoding {present.sum():,} texts with {DEFAULT_ENCODER} (once; later runs reuse them)")
    rows = encode_texts(texts)
    place = beside if _may_write(features_dir) else fallback
    try:
        write_atomically(place / file_name, lambda file: np.save(file, rows))
    except OSError as error:
        notify(
            f"{place}: text features could not be saved there ({error.strerror}); the next run will encode them again"
        )
    return make_modality("text", rows, present, DEFAULT_ENCODER)


def _may_write(folder: Path) -> bool:
    # The mode is asked as well: to a superuser nothing is read-only, yet a folder may be meant to be.
    return os.access(folder, os.W_OK) and bool(folder.stat().st_mode & 0o222)


def _read_made(path: Path, height: int) -> np.ndarray | None:
    """The rows of a made file, or None where it is missing or of no use."""
    try:
        rows = read_npy(path)
    except UserError:
        return None
    fits = rows.ndim == 2 and len(rows) == height and rows.dtype == np.float32 and bool(np.isfinite(rows).all())
    return rows if fits else None
