"""A modality whose rows are noise, more and more of them: its weight must fall, and the score must not.

Command  python -m mocme_jax.ablate --config=CONFIG --study=noise
"""


def get_cells(config, modalities, alone):
    """The first modality with 0 to 100% of its rows replaced by noise, and the model trained without it."""
    if not modalities:
        return {}
    name = modalities[0]
    cells = {"clean": {}}
    for percent in (25, 50, 75, 100):
        cells[f"{percent}% noise in {name}"] = {"data.noise_in": name, "data.noise": percent / 100}
    rest = tuple(other for other in modalities if other != name)
    cells[f"without {name}"] = {"data.modalities": rest} if rest else alone
    return cells
