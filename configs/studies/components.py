"""What each part of MoCME brings: the full model, and the model without one of its parts.

Command  python -m mocme_jax.ablate --config=CONFIG --study=components
"""


def get_cells(config, modalities, alone):
    """The full model, then views, modalities or both without complementarity, plain negatives, and so on."""
    cells = {
        "full": {},
        "no intra": {"fusion.intra": "mean"},
        "no inter": {"fusion.inter": "mean"},
        "neither": {"fusion.intra": "mean", "fusion.inter": "mean"},
        "no experts": {"model.experts": 0},
        "no EGNS": {"negatives.weighting": "uniform"},
    }
    if config.negatives.sampling == "entropy":
        cells["no EGNS"]["negatives.sampling"] = "uniform"
    if len(modalities) > 1:
        for out in modalities:
            cells[f"without {out}"] = {"data.modalities": tuple(name for name in modalities if name != out)}
    return cells | {"structure alone": alone}
