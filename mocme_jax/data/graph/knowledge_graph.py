"""The classes ``KnowledgeGraph`` and ``Modality``: a multi-modal knowledge graph as one immutable value."""

import dataclasses
import functools
import hashlib
import importlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mocme_jax.errors import UserError, check_place

MODALITY_PART = "modality "
"""The prefix of the names of those parts of a graph that hold modalities; see ``fingerprints``."""

_BLOCK = 4096


@dataclasses.dataclass(frozen=True)
class Modality:
    """Frozen features of one kind, such as text, image or numeric, with a mask of the entities that have them.

    Attributes:
      name: a word, such as ``text``.
      features: float32 ``[N, d_m]``. Rows of entities that lack the modality mean nothing; they are zero, or what a
        memory-mapped file has in their place, such as NaN.
      present: bool ``[N]``, whether the entity has the modality.
      made_by: the encoder of the features, as ``prepare`` names it; empty if unknown.
      attributes: for numeric features that ``prepare`` made, the values that new numbers are ranked among; see
        ``data.features.attribute_values``.
    """

    name: str
    features: np.ndarray
    present: np.ndarray
    made_by: str = ""
    attributes: Mapping[str, np.ndarray] | None = dataclasses.field(default=None, compare=False, repr=False)

    @property
    def coverage(self) -> float:
        """The share of entities that have the modality, in [0, 1]."""
        return float(self.present.mean())

    @functools.cached_property
    def scale(self) -> Any:
        """The ``Scale`` of the features, found once: a memory-mapped file may be overwritten or truncated later."""
        return importlib.import_module("mocme_jax.data.features.standardise").fit_scale(self)

    def __repr__(self) -> str:
        return f"Modality({self.name}: width {self.features.shape[1]}, {self.coverage:.0%} of the entities)"


@dataclasses.dataclass(frozen=True)
class KnowledgeGraph:
    """A knowledge graph: entity and relation names, triples by split, and feature modalities.

    Attributes:
      name: the name of the graph in messages.
      entities: N names; the position is the id.
      relations: R names; the position is the id.
      train: int32 ``[T, 3]``, ids in the columns head, relation, tail.
      valid: int32 ``[T, 3]``, the same for the validation split.
      test: int32 ``[T, 3]``, the same for the test split.
      modalities: the feature modalities. The learned structure table is not one of them.
      mapped: whether the triples are memory-mapped files, which may be larger than memory.
      source: the config fields with which a run finds this graph again; None if the graph is in no folder.
    """

    name: str
    entities: list[str]
    relations: list[str]
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    modalities: tuple[Modality, ...] = ()
    mapped: bool = False
    source: Mapping[str, Any] | None = dataclasses.field(default=None, compare=False)

    @classmethod
    def from_triples(
        cls,
        triples: Any,
        *,
        valid: Any = None,
        test: Any = None,
        features: Mapping[str, Any] | None = None,
        encoders: Mapping[str, str] | None = None,
        name: str = "graph",
        time: Any = None,
        by_pair: bool = False,
        seed: int = 0,
        notify: Callable[[str], None] = print,
    ) -> "KnowledgeGraph":
        """Make a graph from a DataFrame, an array ``[T, 3]``, or tuples of head, relation and tail.

        If the names are exactly 0 to N-1, they are the ids. Otherwise ids follow the order of first appearance, head
        before tail.

        Args:
          triples: triples of names. A DataFrame needs columns called head, relation and tail (or subject, predicate and
            object, or similar), unless it has exactly three columns.
          valid: validation triples, or their share of ``triples`` in (0, 1). A share is drawn at random without
            leakage: every entity and relation stays in train, and a triple and its reverse by an inverse or symmetric
            relation stay in one split. None: training takes a dev split from train.
          test: test triples, or their share, as for ``valid``.
          features: a mapping from modality to ``{entity: value}``, or to a Series or DataFrame indexed by entity. A
            value is a vector; for ``text`` also a text; for ``numeric`` also ``{attribute: number}``; for ``image``,
            ``audio`` and ``video`` also the path of a file or a list of paths. ``{"text": "names"}`` encodes the entity
            names. If the names are the ids, an array ``[N, d_m]`` may be given, with a row of NaN for each entity that
            lacks the modality. Entities without a value lack the modality.
          encoders: a mapping from modality to the name of the encoder of its texts or files. Names are those of
            ``prepare``, such as ``efficientnet-lite0`` for ``image``, and those of ``plugins.add_encoder``.
          name: the name of the graph in messages.
          time: the time of each triple ``[T]``, or the name of a column. The latest triples become test, those before
            them valid. Triples with equal times go to the earlier split.
          by_pair: keep all triples between the same two entities in one split, whatever their relations.
          seed: the seed of the random split.
          notify: called with one line if features name entities that the graph lacks. These features are left out.

        Raises:
          UserError: a row is not a triple or lacks a value, a split would be empty, or features do not fit.
        """
        make = _late("rows_in_memory").graph_of_rows
        return make(triples, valid, test, features, encoders, name, time, by_pair, seed, notify)

    @classmethod
    def from_folder(
        cls,
        folder: str | os.PathLike,
        features_dir: str | os.PathLike | None = None,
        *,
        name: str = "",
        modalities: Sequence[str] = (),
        make: Sequence[str] = ("text", "numeric"),
        notify: Callable[[str], None] = print,
    ) -> "KnowledgeGraph":
        """Read a graph and its features from a folder, as ``mocme train`` does.

        Features without a file are made where possible: ``text`` from the names and texts of the entities, ``numeric``
        from ``numeric_triples.tsv`` or ``numeric.csv``.

        Args:
          folder: the graph folder: OpenKE layout (``train2id.txt``), memory-mapped triples (``train_triples.npy``), or
            plain triples (``train.txt``).
          features_dir: the folder of the feature files; None for the graph folder.
          name: the name of the graph, also in the names of feature files; empty for the name of the folder.
          modalities: the modalities to use. Empty: all that exist or can be made. ``("structure",)``: no features.
          make: the modalities that may be made if ``modalities`` is empty.
          notify: called with one line before slow work and for each part of a file that is left out.

        Raises:
          UserError: the folder holds no graph, a file is malformed, or a requested modality is not available.
        """
        check_place("folder", folder)
        check_place("features_dir", features_dir or "")
        graph = _late("graph_folder").load_graph(
            os.path.abspath(folder),
            None if features_dir is None else os.path.abspath(features_dir),
            name=name,
            modalities=modalities,
            make=make,
            notify=notify,
        )
        places = {"data.dir": os.path.abspath(folder)}
        places |= {} if features_dir is None else {"data.features_dir": os.path.abspath(features_dir)}
        chosen = {"data.modalities": tuple(modalities) or ("all",), "data.make": tuple(make)}
        return graph.replace(source=places | chosen | ({"data.name": name} if name else {}))

    @classmethod
    def from_pykeen(cls, dataset: Any, name: str = "") -> "KnowledgeGraph":
        """Make a graph from a PyKEEN dataset and keep its ids.

        Numeric literals become the modality ``numeric``.

        Args:
          dataset: an object with ``training``, ``validation`` and ``testing``, as in ``pykeen.datasets``.
          name: the name of the graph in messages; empty for the class name of the dataset.

        Raises:
          UserError: the ids of the dataset are not 0 to N-1.
        """
        return _late("rows_in_memory").graph_of_pykeen(dataset, name)

    @classmethod
    def atlas(cls) -> "KnowledgeGraph":
        """Load the bundled graph of countries, cities and languages, with names, coordinates and flags."""
        graph = _late("graph_folder")
        return graph.load_graph(graph.atlas_directory(), name="atlas").replace(source={"data.name": "atlas"})

    def save(self, folder: str | os.PathLike) -> None:
        """Write the graph in OpenKE layout with one feature file ``<modality>.npz`` per modality.

        ``from_folder`` and the commands read the folder. Ids stay the same.

        Args:
          folder: the folder to write.

        Raises:
          UserError: a name cannot be written as a line of text, the triples are memory-mapped, the folder cannot be
            written, or another process is writing it.
        """
        check_place("folder", folder)
        _late("graph_writer").write_graph(self, folder)

    def __repr__(self) -> str:
        sizes = f"{len(self.entities):,} entities, {len(self.relations):,} relations"
        triples = " / ".join(f"{len(part):,}" for part in self.splits.values())
        carried = ", ".join(f"{one.name} {one.coverage:.0%}" for one in self.modalities) or "none"
        return f"KnowledgeGraph({self.name}: {sizes}, {triples} triples in train / valid / test; features: {carried})"

    @property
    def splits(self) -> dict[str, np.ndarray]:
        """The splits by name, in the order train, valid, test."""
        return {"train": self.train, "valid": self.valid, "test": self.test}

    def replace(self, **changes) -> "KnowledgeGraph":
        """Return a copy with the given attributes changed; its ``source`` is None unless given."""
        return dataclasses.replace(self, **({"source": None} | changes))

    def fingerprints(self) -> tuple[str, dict[str, str]]:
        """Compute SHA-256 digests (hex) of the graph.

        Returns:
          The digest of all names, triples and features, and the digest of each part by name. The latter tell in which
          parts two graphs differ.
        """
        whole, parts = hashlib.sha256(), {}
        for name, contents in self._parts():
            part = hashlib.sha256()
            for content in contents:
                whole.update(content)
                part.update(content)
            parts[name] = part.hexdigest()
        return whole.hexdigest(), parts

    def _parts(self) -> Iterator[tuple[str, Iterable[bytes | memoryview]]]:
        """Yield the parts of the graph in the order of the fingerprint."""
        for name, names in (("names of entities", self.entities), ("names of relations", self.relations)):
            yield name, ("\n".join(names).encode("utf-8", "surrogatepass"), b"\0")
        for split, triples in self.splits.items():
            yield f"{split} triples", (np.ascontiguousarray(triples, np.int32).data, b"\0")
        for modality in self.modalities:
            blocks = (block.data for _, block in _shown(modality.features, modality.present))
            present = np.ascontiguousarray(modality.present)
            # Version 0.4.0 scaled such features in another way, so its runs must not be read with them.
            scaled = [b"sparse"] if modality.scale.sparse else []
            content = itertools.chain([modality.name.encode()], blocks, [present.data], scaled)
            yield f"{MODALITY_PART}{modality.name}", content


def _late(module: str) -> Any:
    """Import a module of this folder that makes graphs and therefore imports this one."""
    return importlib.import_module(f"mocme_jax.data.graph.{module}")


def make_modality(name: str, rows: np.ndarray, present: np.ndarray | None = None, made_by: str = "") -> Modality:
    """Make a modality from a feature matrix.

    A read-only float32 matrix, such as a memory-mapped file, is kept as it is. Any other, and a read-only view of a
    writeable one, is copied, and the copy has zeros in the missing rows.

    Args:
      name: the name of the modality.
      rows: ``[N, d_m]`` of any float or integer type.
      present: bool ``[N]``; None: every row that is not all NaN is present.
      made_by: see ``Modality``.

    Raises:
      UserError: a present row holds NaN or an infinite value, or the shapes do not fit.
    """
    rows = np.asarray(rows)
    if rows.ndim != 2:
        raise UserError(f"modality {name}: expected a matrix [entities, width], got shape {rows.shape}")
    if present is None:
        present = np.ones(len(rows), bool)
        for start in range(0, len(rows) if rows.dtype.kind == "f" else 0, _BLOCK):
            present[start : start + _BLOCK] = ~np.isnan(rows[start : start + _BLOCK]).all(axis=1)
    if present.shape != (len(rows),):
        raise UserError(f"modality {name}: mask has shape {present.shape}, the matrix {rows.shape}")
    # Processes of one machine share the memory of a file that they map. A copy would be each process's own.
    kept = rows.dtype == np.float32 and rows.flags.c_contiguous and rows.flags.aligned and not _is_writeable(rows)
    features, finite = rows if kept else np.zeros(rows.shape, np.float32), np.ones(len(rows), bool)
    for block, shown in _shown(rows, present):
        finite[block] = np.isfinite(shown).all(axis=1)
        if not kept:
            features[block] = shown
    bad = np.flatnonzero(~finite)
    if len(bad):
        raise UserError(
            f"modality {name}: row {bad[0]} ({len(bad)} rows in all) contains NaN or infinite values and is not "
            "masked; to mark the entity as missing, fill the row with NaN"
        )
    return Modality(name, features, np.asarray(present, bool), made_by)


def _is_writeable(rows: np.ndarray) -> bool:
    """Return whether an array, or the one that it is a view of, can be written."""
    return rows.flags.writeable or (isinstance(rows.base, np.ndarray) and _is_writeable(rows.base))


def _shown(rows: np.ndarray, present: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield blocks of rows as float32, with zeros in the missing rows; no copy of the whole is made."""
    for start in range(0, len(rows), _BLOCK):
        block = slice(start, start + _BLOCK)
        yield block, np.where(present[block, None], rows[block], 0).astype(np.float32, copy=False)
