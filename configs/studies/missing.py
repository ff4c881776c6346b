"""Feature rows that are missing, more and more of them, beside the structure alone.

Command  python -m mocme_jax.ablate --config=CONFIG --study=missing
"""


def get_cells(config, modalities, alone):
    """None, a quarter, half and three quarters of every modality's rows removed; structure alone."""
    cells = {"all rows": {}}
    for percent in (25, 50, 75):
        cells[f"{percent}% missing"] = {"data.missing": percent / 100}
    return cells | {"structure alone": alone}
