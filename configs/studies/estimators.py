"""What complementarity is made of: the estimator of mutual information, and the temperature of the weights.

Command  python -m mocme_jax.ablate --config=CONFIG --study=estimators
"""


def get_cells(config, modalities, alone):
    """The config's own, then every other estimator, and temperatures below and above."""
    cells = {"full": {}}
    for kind in ("infonce", "infonce_bilinear", "club", "gaussian"):
        if kind != config.fusion.estimator:
            cells[kind] = {"fusion.estimator": kind}
    for factor in (0.3, 3.0):
        temperature = factor * config.fusion.temperature
        cells[f"temperature {temperature:g}"] = {"fusion.temperature": temperature}
    return cells
