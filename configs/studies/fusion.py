"""How parts are fused: by complementarity, or in one of the other ways, views and modalities alike.

Command  python -m mocme_jax.ablate --config=CONFIG --study=fusion
"""


def get_cells(config, modalities, alone):
    """The config's own fusion, then one word for both levels; views of a plain sum would be scaled by their number."""
    cells = {"full": {}}
    for kind in ("mean", "sum", "attention", "gate", "best"):
        cells[kind] = {"fusion.inter": kind, "fusion.intra": "mean" if kind == "sum" else kind}
    return cells
