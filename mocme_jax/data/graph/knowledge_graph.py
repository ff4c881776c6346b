"""A multi-modal knowledge graph as one immutable value."""

import dataclasses
import hashlib
from collections.abc import Iterator

import numpy as np

from mocme_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Modality:
    """Frozen features of one kind (text, image, numeric, ...), with a presence mask.

    Attributes:
      name: a word, such as ``text``.
      features: float32 ``[N, d_m]``; rows of entities that lack the modality are zero.
      present: bool ``[N]``.
      made_by: the encoder that made the features, as ``prepare`` calls it; empty where that is not known.
    """

    name: str
    features: np.ndarray
    present: np.ndarray
    made_by: str = ""

    @property
    def coverage(self) -> float:
        """Share of the entities that have the modality, in [0, 1]."""
        return float(self.present.mean())


@dataclasses.dataclass(frozen=True)
class KnowledgeGraph:
    """Names, triples by split, and what the entities carry.

    Attributes:
      name: what the graph is called in messages.
      entities, relations: N and R names; the position is the id.
      train, valid, test: int32 ``[T, 3]``, columns head, relation, tail.
      modalities: feature modalities; the learned structure table is not among them.
      mapped: whether the triples are views of files, which may be larger than what can be held (see ``mapped``).
    """

    name: str
    entities: list[str]
    relations: list[str]
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    modalities: tuple[Modality, ...] = ()
    mapped: bool = False

    @property
    def splits(self) -> dict[str, np.ndarray]:
        """The three splits by name, in the order train, valid, test."""
        return {"train": self.train, "valid": self.valid, "test": self.test}

    def replace(self, **changes) -> "KnowledgeGraph":
        """A copy with the named attributes changed."""
        return dataclasses.replace(self, **changes)

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
            yield f"modality {modality.name}", (modality.name.encode(), features.data, present.data)


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
