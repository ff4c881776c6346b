"""Synthetic graphs of any size, to measure how costs grow."""

import numpy as np

from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph, Modality

# As many for every size, so that what grows is the entities alone. A call shuffles its epoch's triples once.
_TRIPLES = 100_000


def synthetic_graph(entities: int, *, relations: int = 100, feature_width: int = 16, seed: int = 0) -> KnowledgeGraph:
    """A graph of random triples, in which half of the entities carry random features.

    Args:
      entities: N.
      relations: R.
      feature_width: of the one feature modality; 0 for none.
      seed: of everything.
    """
    rng = np.random.default_rng(seed)
    triples = rng.integers(0, [entities, relations, entities], (_TRIPLES, 3), dtype=np.int32)
    modalities = ()
    if feature_width:
        features = rng.standard_normal((entities, feature_width), dtype=np.float32)
        present = rng.random(entities) < 0.5
        modalities = (Modality("text", features, present),)
    held_out = triples[:1000]
    return KnowledgeGraph(
        name=f"synthetic, {entities:,} entities",
        entities=range(entities),
        relations=range(relations),
        train=triples,
        valid=held_out,
        test=held_out,
        modalities=modalities,
    )
