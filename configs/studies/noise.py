"""A modality whose rows are noise, half of them or all: its weight must fall, and the score must not.

Command  python -m mocme_jax.ablate --config=CONFIG --study=noise
"""


def get_cells(config, modalities, alone):
    """Each modality half noise, all noise, and left out."""
    if not modalities:
        return {}
    cells = {"clean": {}}
    for name in modalities:
        for percent in (50, 100):
            cells[f"{percent}% noise in {name}"] = {"data.noise_in": name, "data.noise": percent / 100}
        rest = tuple(other for other in modalities if other != name)
        cells[f"without {name}"] = {"data.modalities": rest} if rest else alone
    return cells
