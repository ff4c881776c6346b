"""A modality whose rows are noise, half of them or all: its weight must fall, and the score must not.

Command  python -m mocme_jax.ablate --config=CONFIG --study=noise
"""

from mocme_jax.studies.degraded_graph import with_noise

change_graph = with_noise


def get_cells(config, modalities, alone):
    """Each modality half noise, all noise, and left out."""
    if not modalities:
        return {}
    cells = {"clean": {"graph.noise": 0.0}}
    for name in modalities:
        for percent in (50, 100):
            cells[f"{percent}% noise in {name}"] = {"graph.noise_in": name, "graph.noise": percent / 100}
        rest = tuple(other for other in modalities if other != name)
        cells[f"without {name}"] = {"data.modalities": rest} if rest else alone
    return cells
