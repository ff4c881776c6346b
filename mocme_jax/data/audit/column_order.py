"""Whether the columns of a graph's triples are in the order that they were read in."""

from collections.abc import Sequence

import numpy as np

from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph
from mocme_jax.data.readers.text_lines import read_whole_number

_FEW_RELATIONS = 10
"""So many may outnumber heads or tails: a small graph has few of either."""
_FEW_SHARED, _SHARE_SHARED = 2, 0.2
"""So many names, or such a share of the relations, may be names of entities too."""


def relation_column(names: Sequence[set[str]]) -> int | None:
    """Which of three columns holds the relations, as far as their names tell; None where they don't.

    It is the one that shares no name with the other two, if these share most of theirs.
    """
    for column in (1, 0, 2):
        first, second = (names[other] for other in range(3) if other != column)
        # Ids of entities and of relations both begin at 0.
        shared = sum(read_whole_number(name) is None for name in first & second)
        if 2 * shared > max(2 * _FEW_SHARED, min(len(first), len(second))) and names[column].isdisjoint(first | second):
            return column
    return None


def column_order_doubt(graph: KnowledgeGraph) -> str | None:
    """A warning, with what to do, where relations look like entities; None where nothing speaks against the order.

    Relations do if many of their names are names of entities too, or if there are more of them than heads or tails and
    names do not tell that they are the relations.
    """
    found = [np.flatnonzero(np.bincount(graph.train[:, column])) for column in range(3)]
    heads, relations, tails = map(len, found)
    # Ids of entities and of relations both begin at 0.
    shared = sorted(name for name in {*graph.relations}.intersection(graph.entities) if read_whole_number(name) is None)
    if len(shared) > max(_FEW_SHARED, _SHARE_SHARED * len(graph.relations)):
        reason = (
            f"{len(shared):,} of {len(graph.relations):,} relations are also names of entities, such as "
            f"{shared[0][:40]!r}"
        )
    elif relations > max(_FEW_RELATIONS, min(heads, tails)):
        names = [
            {kind[index] for index in ids}
            for kind, ids in zip((graph.entities, graph.relations, graph.entities), found, strict=True)
        ]
        if relation_column(names) == 1:
            return None
        reason = f"train has {relations:,} relations, but {heads:,} heads and {tails:,} tails"
    else:
        return None
    likely = "relation, head, tail" if heads <= tails else "head, tail, relation"
    return (
        f"columns: {reason}: they were read as head, relation, tail, but may be {likely}; if so, reorder them "
        f"or start each plain file with a header such as {likely.replace(', ', '<TAB>')}."
    )
