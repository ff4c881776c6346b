"""What the full model has to be above: other fusions, no experts, plain negatives, and structure alone.

Command  python -m mocme_jax.ablate --config=CONFIG --study=parts
"""


def get_cells(config, modalities, alone):
    """The cells of `components` and `fusion` that a claim for MoCME rests on, in one study."""
    cells = {"full": {}}
    for kind in ("gate", "mean", "attention"):
        cells[kind] = {"fusion.inter": kind, "fusion.intra": kind}
    if config.model.experts:
        cells["no experts"] = {"model.experts": 0}
    cells["no EGNS"] = {"negatives.weighting": "uniform"}
    if config.negatives.sampling == "entropy":
        cells["no EGNS"]["negatives.sampling"] = "uniform"
    # Views of a plain sum would be scaled by their number.
    return cells | {"structure alone": alone, "sum": {"fusion.inter": "sum", "fusion.intra": "mean"}}
