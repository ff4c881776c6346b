"""A multi-modal knowledge graph as one immutable value."""

import dataclasses
import hashlib
import importlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mocme_jax.errors import UserError

MODALITY_PART = "modality "
"""What the parts of a graph that hold its modalities begin with, see ``fingerprints``."""


@dataclasses.dataclass(frozen=True)
class Modality:
    """Frozen features of one kind (text, image, numeric, ...), with a presence mask.

    Attributes:
      name: a word, such as ``text``.
      features: float32 ``[N, d_m]``; rows of entities that lack the modality are zero.
      present: bool ``[N]``.
      made_by: the encoder that made the features, as ``prepare`` calls it; empty where that is not known.
      attributes: for numeric features that ``prepare`` made, what new numbers are ranked among, see attribute_values.
    """

    name: str
    features: np.ndarray
    present: np.ndarray
    made_by: str = ""
    attributes: Mapping[str, np.ndarray] | None = dataclasses.field(default=None, compare=False, repr=False)

    @property
    def coverage(self) -> float:
        """Share of the entities that have the modality, in [0, 1]."""
        return float(self.present.mean())

    def __repr__(self) -> str:
        return f"Modality({self.name}: width {self.features.shape[1]}, {self.coverage:.0%} of the entities)"


@dataclasses.dataclass(frozen=True)
class KnowledgeGraph:
    """Names, triples by split, and what the entities carry.

    Attributes:
      name: what the graph is called in messages.
      entities: N names; the position is the id.
      relations: R names; the position is the id.
      train: int32 ``[T, 3]``, columns head, relation, tail.
      valid: the same.
      test: the same.
      modalities: feature modalities; the learned structure table is not among them.
      mapped: whether the triples are views of files, which may be larger than what can be held (see ``mapped``).
      source: config fields by which a run finds this very graph again; None where it is in no folder.
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
        """A graph from a DataFrame, an array ``[T, 3]`` or tuples of head, relation and tail.

        Names that are exactly 0 to N-1 are the ids; others are numbered in order of first appearance, head before tail.

        Args:
          triples: of names. A DataFrame needs columns called head, relation and tail (or subject, predicate and object,
            or the like), unless it has three.
          valid, test: triples; or a share in (0, 1) of ``triples``, chosen at random without leak: every entity and
            relation stays in train, and a triple and its reverse by an inverse or symmetric relation stay on one side.
            Without ``valid``, training carves a dev split out of train.
          features: by modality, ``{entity: value}`` or a Series or DataFrame by entity: vectors; for ``text`` texts, or
            the word ``names``, to encode the entities' names; for ``numeric`` ``{attribute: number}``; for ``image``,
            ``audio`` and ``video`` the path of a file, or a list of them. Where names are ids, also an array
            ``[N, d_m]``, with rows of NaN for those that lack it. Entities that are left out lack the modality.
          encoders: by modality, what encodes its texts or files: the names that ``prepare`` knows, such as
            ``efficientnet-lite0`` for ``image``, and those of ``plugins.add_encoder``.
          name: what the graph is called in messages.
          time: of each triple ``[T]``, or the name of a column: the latest triples become test, those before them
            valid. Ties go to the earlier side.
          by_pair: keep all triples between the same two entities on one side of a split, whatever their relations.
          seed: of the random choice.
          notify: told in one line of features of entities that the graph lacks; these are left out.

        Raises:
          UserError: a row is no triple or lacks a value, a split would be empty, or features do not fit.
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
        """A graph with its features from a folder, as ``train`` reads it: see ``load_graph`` for the arguments."""
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
        """A graph from a dataset of PyKEEN, with its ids; numeric literals become the modality ``numeric``."""
        return _late("rows_in_memory").graph_of_pykeen(dataset, name)

    @classmethod
    def atlas(cls) -> "KnowledgeGraph":
        """The embedded graph: countries, cities and languages, with names, coordinates and flags."""
        graph = _late("graph_folder")
        return graph.load_graph(graph.atlas_directory(), name="atlas").replace(source={"data.name": "atlas"})

    def save(self, folder: str | os.PathLike) -> None:
        """Writes a folder that ``from_folder`` and the commands read; see ``write_graph``, also for errors."""
        _late("graph_writer").write_graph(self, folder)

    def __repr__(self) -> str:
        sizes = f"{len(self.entities):,} entities, {len(self.relations):,} relations"
        triples = " / ".join(f"{len(part):,}" for part in self.splits.values())
        carried = ", ".join(f"{one.name} {one.coverage:.0%}" for one in self.modalities) or "none"
        return f"KnowledgeGraph({self.name}: {sizes}, {triples} triples in train / valid / test; features: {carried})"

    @property
    def splits(self) -> dict[str, np.ndarray]:
        """The three splits by name, in the order train, valid, test."""
        return {"train": self.train, "valid": self.valid, "test": self.test}

    def replace(self, **changes) -> "KnowledgeGraph":
        """A copy with the named attributes changed, which the folder of this one does not hold."""
        return dataclasses.replace(self, **({"source": None} | changes))

    def fingerprints(self) -> tuple[str, dict[str, str]]:
        """SHA-256 (hex) over names, triples and features, and of each part by name, to tell where two graphs differ."""
        whole, parts = hashlib.sha256(), {}
        for name, contents in self._parts():
            part = hashlib.sha256()
            for content in contents:
                whole.update(content)
                part.update(content)
            parts[name] = part.hexdigest()
        return whole.hexdigest(), parts

    def _parts(self) -> Iterator[tuple[str, tuple[bytes | memoryview, ...]]]:
        """What the graph consists of, in the order of its fingerprint."""
        for name, names in (("names of entities", self.entities), ("names of relations", self.relations)):
            yield name, ("\n".join(names).encode("utf-8", "surrogatepass"), b"\0")
        for split, triples in self.splits.items():
            yield f"{split} triples", (np.ascontiguousarray(triples, np.int32).data, b"\0")
        for modality in self.modalities:
            features, present = np.ascontiguousarray(modality.features), np.ascontiguousarray(modality.present)
            yield f"{MODALITY_PART}{modality.name}", (modality.name.encode(), features.data, present.data)


def _late(module: str) -> Any:
    """A module of this room that makes graphs, and so imports this one."""
    return importlib.import_module(f"mocme_jax.data.graph.{module}")


def make_modality(name: str, rows: np.ndarray, present: np.ndarray | None = None, made_by: str = "") -> Modality:
    """A modality from a feature matrix, its missing rows cleared.

    Args:
      name: as in messages.
      rows: ``[N, d_m]`` of any float or integer type.
      present: bool ``[N]``, or None to take every row that is not all NaN.
      made_by: see ``Modality``.

    Raises:
      UserError: a row that counts as present holds NaN or an infinity, or the shapes do not fit.
    """
    rows = np.asarray(rows)
    if rows.ndim != 2:
        raise UserError(f"modality {name}: expected a matrix [entities, width], got shape {rows.shape}")
    if present is None:
        present = ~np.isnan(rows).all(axis=1) if rows.dtype.kind == "f" else np.ones(len(rows), bool)
    if present.shape != (len(rows),):
        raise UserError(f"modality {name}: mask has shape {present.shape}, the matrix {rows.shape}")
    features = np.where(present[:, None], rows, 0).astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        raise UserError(
            f"modality {name}: row {bad[0]} ({len(bad)} rows in all) holds NaN or infinite values and is not masked; "
            "fill the row with NaN to mark the entity as missing it"
        )
    return Modality(name, features, np.asarray(present, bool), made_by)
