"""What each part of MoCME brings: the full model, without one of its parts, and with another fusion in its place.

Command  python -m mocme_jax.ablate --config=CONFIG --study=components
"""


def get_cells(config, modalities, alone):
    """The full model; less complementarity in one place; other fusions; less experts, EGNS, or a modality."""
    cells = {"full": {}}
    if config.model.experts:
        cells |= {"no intra": {"fusion.intra": "mean"}, "no inter": {"fusion.inter": "mean"}}
    for kind in ("gate", "mean", "attention"):
        cells[kind] = {"fusion.inter": kind, "fusion.intra": kind}
    # Views of a plain sum would be scaled by their number.
    cells["sum"] = {"fusion.inter": "sum", "fusion.intra": "mean"}
    if config.model.experts:
        cells["no experts"] = {"model.experts": 0}
    cells["no EGNS"] = {"negatives.weighting": "uniform"}
    if config.negatives.sampling == "entropy":
        cells["no EGNS"]["negatives.sampling"] = "uniform"
    if len(modalities) > 1:
        for out in modalities:
            cells[f"without {out}"] = {"data.modalities": tuple(name for name in modalities if name != out)}
    return cells | {"structure alone": alone}
