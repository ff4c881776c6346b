"""What a graph's splits and features are worth: counts, overlaps, leaks, and the numbers not to believe."""

import dataclasses

import numpy as np

from mocme_jax.data.audit.column_order import column_order_doubt
from mocme_jax.data.audit.inverse_relations import InverseRelation, inverse_relations, leaked_rows
from mocme_jax.data.features.filled_rows import projections
from mocme_jax.data.graph.entity_names import readable_name
from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph, Modality
from mocme_jax.data.graph.splits import clean_rows, joined_rows
from mocme_jax.data.graph.triple_keys import distinct_triples
from mocme_jax.errors import one_line

CLEAN_ENOUGH = 0.95
"""Least share of the valid rows that must be distinct and in no other split, for valid to choose a model."""
LEAK_WORTH_A_WARNING = 0.01
JOINED_WORTH_A_WARNING = 0.05
SAME_ROW_WORTH_A_WARNING = 0.01


@dataclasses.dataclass(frozen=True)
class SplitAudit:
    """Counts for one split.

    Attributes:
      rows, distinct: rows in the file, and distinct ones among them.
      rows_in, distinct_in: by the name of each other split, how many of either it holds too.
      clean, distinct_clean: rows, and distinct ones, that are not where they should not be: of train and
        valid those in no other split, of test those not in train.
      unseen_entity, unseen_relation: rows with an entity, or a relation, that train never shows.
      reversed_in_train: rows whose reverse is in train by an inverse or symmetric relation.
      joined_in_train: rows that are not in train, but whose two entities a training triple joins in either direction.
    """

    rows: int
    distinct: int
    rows_in: dict[str, int]
    distinct_in: dict[str, int]
    clean: int
    distinct_clean: int
    unseen_entity: int
    unseen_relation: int
    reversed_in_train: int
    joined_in_train: int

    @property
    def duplicates(self) -> int:
        """Rows that repeat an earlier row of the split."""
        return self.rows - self.distinct


@dataclasses.dataclass(frozen=True)
class ModalityAudit:
    """Counts for one modality: its width, the entities that have it, and the most that share one row."""

    name: str
    width: int
    present: int
    same_row: int


@dataclasses.dataclass(frozen=True)
class Audit:
    """All counts of one graph; see warnings() for what they mean."""

    name: str
    entities: int
    relations: int
    unused_entities: int
    splits: dict[str, SplitAudit]
    modalities: tuple[ModalityAudit, ...]
    inverses: tuple[InverseRelation, ...]
    relation_names: tuple[str, ...]
    columns: str | None

    @property
    def valid_is_clean(self) -> bool:
        """Whether valid may choose a model: nearly all its rows are distinct and in no other split."""
        valid = self.splits["valid"]
        return valid.rows > 0 and valid.distinct_clean >= CLEAN_ENOUGH * valid.rows

    def warnings(self) -> list[str]:
        """One line for each thing that is wrong, with the numbers not to believe for it."""
        lines = [*([] if self.columns is None else [self.columns]), *self._valid_warnings(), *self._test_warnings()]
        train = self.splits["train"]
        if train.duplicates:
            lines.append(
                f"train: {train.duplicates:,} of {train.rows:,} rows are duplicates, which count twice in a "
                "loss: do not compare epochs with runs on distinct triples."
            )
        for modality in self.modalities:
            # Equal rows are the rule among numeric attributes: many entities have one, and round values.
            fills = modality.same_row > 1 + SAME_ROW_WORTH_A_WARNING * modality.present
            if fills and modality.name != "numeric":
                lines.append(
                    f"{modality.name}: {modality.same_row:,} of {modality.present:,} entities share one "
                    "row, as if missing rows were filled in: do not trust the coverage; mark missing "
                    "entities with NaN rows."
                )
        return [f"{self.name}: {line}" for line in lines]

    def _valid_warnings(self) -> list[str]:
        valid = self.splits["valid"]
        if not valid.rows:
            return ["valid is empty: a dev split must be carved out of train."]
        in_train, in_test = valid.distinct_in["train"], valid.distinct_in["test"]
        if not self.valid_is_clean:
            return [
                f"valid: {valid.distinct:,} of {valid.rows:,} rows are distinct; {in_train:,} of those are in train, "
                f"{in_test:,} in test and {valid.distinct_clean:,} in neither: do not choose a model on valid or "
                "trust a score on it, because it repeats train and test."
            ]
        if in_train or in_test:
            return [
                f"valid: {in_train:,} of {valid.distinct:,} distinct rows are in train, {in_test:,} in "
                "test: these are few, but leave them out of a score on valid."
            ]
        return []

    def _test_warnings(self) -> list[str]:
        test = self.splits["test"]
        if not test.rows:
            return ["test is empty: there will be no test score."]
        lines = []
        if test.rows_in["train"]:
            lines.append(
                f"test: {test.rows_in['train']:,} of {test.rows:,} rows are training triples: do not "
                f"trust a score on all of test; use the score on its {test.clean:,} clean rows."
            )
        if test.reversed_in_train > LEAK_WORTH_A_WARNING * test.rows:
            lines.append(
                f"test: {_share(test.reversed_in_train, test.rows)} have their reverse in train through an "
                "inverse or symmetric relation: a one-line rule answers them, so their score does not show reasoning."
            )
        if test.joined_in_train > JOINED_WORTH_A_WARNING * test.rows:
            lines.append(
                f"test: {_share(test.joined_in_train, test.rows)} have two entities that a training triple joins "
                "by another relation or backwards: these can be much easier; mocme resplit writes a split without them."
            )
        if test.unseen_entity:
            lines.append(
                f"test: {_share(test.unseen_entity, test.rows)} have an entity that does not occur in train: "
                "structure alone cannot rank it; compare scores with and without these rows."
            )
        if test.unseen_relation:
            lines.append(
                f"test: {_share(test.unseen_relation, test.rows)} have a relation that does not occur in train: "
                "no model can rank these; leave them out of a comparison."
            )
        return lines

    def report(self) -> str:
        """A table of all counts, then the warnings."""
        lines = [
            f"{self.name}: {self.entities:,} entities ({self.unused_entities:,} in no triple), "
            f"{self.relations:,} relations",
            "",
        ]
        header = ["split", "rows", "distinct", "duplicates", *(f"in {other}" for other in self.splits)]
        header += ["clean", "unseen entity", "unseen relation", "reversed", "joined"]
        rows = [
            [name, split.rows, split.distinct, split.duplicates]
            + [split.rows_in.get(other, "-") for other in self.splits]
            + [split.clean, split.unseen_entity, split.unseen_relation, split.reversed_in_train, split.joined_in_train]
            for name, split in self.splits.items()
        ]
        lines += _table(header, rows)
        lines += [
            "",
            "All columns except distinct count rows. clean: in no other split (test: not in train). unseen: with",
            "an entity or a relation that does not occur in train. reversed: with the reverse in train, through",
            "an inverse or symmetric relation. joined: not in train, but with two entities that a training triple",
            "joins in either direction.",
            "",
        ]
        if self.modalities:
            rows = [
                [part.name, part.width, part.present, f"{part.present / self.entities:.1%}", part.same_row]
                for part in self.modalities
            ]
            lines += [*_table(["modality", "width", "entities", "coverage", "largest same row"], rows), ""]
        else:
            lines += ["no modalities", ""]
        if self.inverses:
            rows = [
                [self._relation(pair.known), self._relation(pair.implied), pair.count, f"{pair.share:.0%}"]
                for pair in self.inverses[:10]
            ]
            lines += _table(["(t, r, h) in relation", "has (h, r', t) in", "triples", "share"], rows)
            if len(self.inverses) > 10:
                lines.append(f"... and {len(self.inverses) - 10} more pairs")
            lines.append("")
        lines += [f"! {line}" for line in self.warnings()] or ["no warnings"]
        return "\n".join(map(one_line, lines))

    def _relation(self, index: int) -> str:
        return readable_name(self.relation_names[index])[:40]


def audit(graph: KnowledgeGraph) -> Audit:
    """Counts what a user should know before believing a score on the graph.

    Inverse relations are sought in all splits together; that a reverse is *in train* is what makes it a leak.
    """
    every = np.concatenate([graph.train, graph.valid, graph.test])
    inverses = inverse_relations(every)
    shown = _occurring(graph.train, (0, 2), len(graph.entities)), _occurring(graph.train, (1,), len(graph.relations))
    return Audit(
        name=graph.name,
        entities=len(graph.entities),
        relations=len(graph.relations),
        unused_entities=int((~_occurring(every, (0, 2), len(graph.entities))).sum()),
        splits={name: _audit_split(graph, name, inverses, *shown) for name in graph.splits},
        modalities=tuple(_audit_modality(modality) for modality in graph.modalities),
        inverses=tuple(inverses),
        relation_names=tuple(graph.relations),
        columns=column_order_doubt(graph),
    )


def _audit_split(
    graph: KnowledgeGraph, name: str, inverses: list[InverseRelation], entities: np.ndarray, relations: np.ndarray
) -> SplitAudit:
    """Counts for one split, with the entities and the relations that occur in train, bool ``[N]`` and ``[R]``."""
    splits = graph.splits
    split = splits[name]
    distinct = distinct_triples(split)
    others = {other: triples for other, triples in splits.items() if other != name}
    clean_of = {other: clean_rows(split, triples) for other, triples in others.items()}
    distinct_clean_of = {other: clean_rows(distinct, triples) for other, triples in others.items()}
    # Test may overlap valid without harm to the test score: models are not trained on valid.
    unwanted = ["train"] if name == "test" else list(others)
    return SplitAudit(
        rows=len(split),
        distinct=len(distinct),
        rows_in={other: int((~clean).sum()) for other, clean in clean_of.items()},
        distinct_in={other: int((~clean).sum()) for other, clean in distinct_clean_of.items()},
        clean=int(np.logical_and.reduce([clean_of[other] for other in unwanted]).sum()),
        distinct_clean=int(np.logical_and.reduce([distinct_clean_of[other] for other in unwanted]).sum()),
        unseen_entity=int((~(entities[split[:, 0]] & entities[split[:, 2]])).sum()),
        unseen_relation=int((~relations[split[:, 1]]).sum()),
        reversed_in_train=int(leaked_rows(split, graph.train, inverses).sum()),
        joined_in_train=0 if name == "train" else int((clean_of["train"] & joined_rows(split, graph.train)).sum()),
    )


def _occurring(triples: np.ndarray, columns: tuple[int, ...], number: int) -> np.ndarray:
    """Bool ``[number]``: which ids these columns of the triples hold."""
    occurs = np.zeros(number, bool)
    for column in columns:
        occurs[triples[:, column]] = True
    return occurs


def _audit_modality(modality: Modality) -> ModalityAudit:
    numbers = projections(modality.features)[modality.present]
    same = int(np.unique(numbers, return_counts=True)[1].max()) if len(numbers) else 0
    return ModalityAudit(modality.name, modality.features.shape[1], len(numbers), same)


def _share(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} rows ({part / max(1, whole):.1%})"


def _table(header: list[str], rows: list[list]) -> list[str]:
    cells = [header, *([f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    numeric = [not isinstance(rows[0][column], str) or rows[0][column][:1].isdigit() for column in range(len(header))]
    numeric[0] = False
    aligned = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in cells
    ]
    return [aligned[0], "-" * max(map(len, aligned)), *aligned[1:]]
