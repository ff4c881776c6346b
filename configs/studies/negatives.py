"""How negatives are drawn and weighed: by entropy, in its three readings and two references, or otherwise; how many.

Command  python -m mocme_jax.ablate --config=CONFIG --study=negatives
"""


def get_cells(config, modalities, alone):
    """The config's own, then every other reading and reference, the other weightings, and pools of other sizes."""
    own = config.negatives
    cells = {"full": {}}
    for reference in ("relative", "absolute"):
        for confident in ("entropy", "hard", "false_negative"):
            if (reference, confident) != (own.reference, own.confident):
                words = {"negatives.reference": reference, "negatives.confident": confident}
                cells[f"{reference} {confident}"] = words
    ways = {
        "uniform": ("uniform", "uniform"),
        "drawn by entropy": ("uniform", "entropy"),
        "weighed by entropy": ("entropy", "uniform"),
        "both by entropy": ("entropy", "entropy"),
    }
    for cell, (weighting, sampling) in ways.items():
        if (weighting, sampling) != (own.weighting, own.sampling):
            cells[cell] = {"negatives.weighting": weighting, "negatives.sampling": sampling}
    other = "sum" if own.weights_in == "gradient" else "gradient"
    cells[f"weights in the {other}"] = {"negatives.weights_in": other}
    if own.many:
        cells["questions of many answers alike"] = {"negatives.many": 0}
    cells["self-adversarial"] = {"negatives.weighting": "self_adversarial"}
    for pool in (own.pool // 4, own.pool * 4):
        cells[f"pool {pool}"] = {"negatives.pool": pool}
    return cells
