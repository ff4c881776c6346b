"""Fewer training triples: what features are worth where the structure is poor.

Command  python -m mocme_jax.ablate --config=CONFIG --study=sparse
"""

from mocme_jax.studies.degraded_graph import with_fewer_triples

change_graph = with_fewer_triples


def get_cells(config, modalities, alone):
    """Full model and structure alone on 100% to 10% of the training triples."""
    cells = {"full": {"graph.triples": 1.0}, "structure alone": alone}
    for percent in (50, 25, 10):
        share = {"graph.triples": percent / 100}
        cells[f"full on {percent}% of train"] = share
        cells[f"structure alone on {percent}% of train"] = alone | share
    return cells
