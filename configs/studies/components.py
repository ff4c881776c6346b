"""What each part of MoCME brings: the full model, without one of its parts, and with another fusion in its place.

Command  python -m mocme_jax.ablate --config=CONFIG --study=components
"""


def get_cells(config, modalities, alone):
    """The full model; other fusions; another number of experts; less EGNS, or a modality; the structure alone.

    ``EGNS unsorted`` is the control of ``no EGNS``: gradients as long as by EGNS, but negatives of a query weigh alike.
    """
    names = {"mean": "no complementarity"}
    fusions = [kind for kind in ("mean", "gate", "attention") if kind != config.model.fusion]
    cells = {"full": {}} | {names.get(kind, kind): {"model.fusion": kind} for kind in fusions}
    if config.model.experts == 1:
        cells["3 experts"] = {"model.experts": 3}
    else:
        cells["1 expert"] = {"model.experts": 1}
    cells["no EGNS"] = {"negatives.weighting": "uniform"}
    if config.negatives.sampling == "entropy":
        cells["no EGNS"]["negatives.sampling"] = "uniform"
    cells["EGNS unsorted"] = {"negatives.weighting": "unsorted"}
    if len(modalities) > 1:
        for out in modalities:
            cells[f"without {out}"] = {"data.modalities": tuple(name for name in modalities if name != out)}
    return cells | {"structure alone": alone}
