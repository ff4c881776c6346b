"""What is beside MoCME: structure that is lent, relations' cardinality, and whether an entity may answer about itself.

Command  python -m mocme_jax.ablate --config=CONFIG --study=beside
"""


def get_cells(config, modalities, alone):
    """The config's own, then each of the three the other way round: left out, or as most configs have it."""
    model = config.model
    cells = {"full": {}}
    cells["no lending" if model.lend else "lending"] = {"model.lend": 0.0 if model.lend else 0.3}
    cells["no cardinality" if model.cardinality else "cardinality"] = {
        "model.cardinality": 0.0 if model.cardinality else 0.4
    }
    if model.self_answers == "seen":
        return cells | {"itself an answer": {"model.self_answers": "all"}}
    return cells | {"not itself": {"model.self_answers": "seen"}}
