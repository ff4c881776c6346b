"""What complementarity is made of: the estimator of MI, whose MI it is, the relevance, the temperature, gradients.

Command  python -m mocme_jax.ablate --config=CONFIG --study=estimators
"""


def get_cells(config, modalities, alone):
    """The config's own, then every other word or number in its place."""
    cells = {"full": {}}
    for kind in ("infonce", "infonce_bilinear", "club", "gaussian"):
        if kind != config.fusion.estimator:
            cells[kind] = {"fusion.estimator": kind}
    for kind in ("none", "links", "gate", "structure"):
        if kind != config.fusion.relevance:
            cells[f"relevance {kind}"] = {"fusion.relevance": kind}
    other = {"graph": "entity", "entity": "graph"}[config.fusion.granularity]
    cells[f"of the {other}"] = {"fusion.granularity": other}
    for factor in (0.3, 3.0):
        temperature = factor * config.fusion.temperature
        cells[f"temperature {temperature:g}"] = {"fusion.temperature": temperature}
    cells["gradients through weights"] = {"fusion.weight_gradients": True}
    cells["redundancy in the loss"] = {"fusion.redundancy_loss": 0.01}
    return cells
