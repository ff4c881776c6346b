"""Ideas of other models in this program, on the same features, with the same protocol and number of epochs.

Command  python -m mocme_jax.ablate --config=CONFIG --study=baselines
"""


def get_cells(config, modalities, alone):
    """MoCME; three fusions of other models; the structure alone, as tuned here and as ComplEx-N3.

    The fusions keep the config's score function, loss, negatives and additions, so a cell differs by its fusion alone.
    ComplEx-N3 (Lacroix et al., ICML 2018) has none of them: all entities are candidates (1-vs-all), the penalty is N3,
    and the tables are trained by Adagrad with step size 0.1. Known answers are masked, unlike in its own program.
    """
    if not modalities:
        return {}
    own = config.loss.regularisation if config.loss.regulariser == "n3" else 0.1
    complex_n3 = {
        "model.score": "complex",
        "model.lend": 0.0,
        "model.self_answers": "all",
        "model.cardinality": 0.0,
        "negatives.pool": 10**9,
        "negatives.sampling": "uniform",
        "negatives.weighting": "uniform",
        "loss.kind": "softmax",
        "loss.regulariser": "n3",
        "loss.regularisation": alone.get("loss.regularisation", own) if alone.get("loss.regulariser") == "n3" else own,
        "loss.query_dropout": 0.0,
        "train.table_learning_rate": 0.1,
        "train.average": 0.0,
    }
    return {
        "MoCME": {},
        "mean of vectors (IKRL)": {"model.fusion": "vector_mean"},
        "attention over vectors (NativE)": {"model.fusion": "vector_attention"},
        "relation gate (MoMoK)": {"model.fusion": "relation_gate"},
        "structure alone": alone,
        "ComplEx-N3 1-vs-all": alone | complex_n3,
    }
