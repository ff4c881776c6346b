"""Feature rows that are missing, more and more of them, beside the structure alone.

Command  python -m mocme_jax.ablate --config=CONFIG --study=missing
"""

from mocme_jax.studies.degraded_graph import without_rows

change_graph = without_rows


def get_cells(config, modalities, alone):
    """None, a quarter, half and three quarters of every modality's rows removed; structure alone."""
    cells = {"all rows": {"graph.missing": 0.0}}
    for percent in (25, 50, 75):
        cells[f"{percent}% missing"] = {"graph.missing": percent / 100}
    return cells | {"structure alone": alone}
