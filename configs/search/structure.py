"""The structural baseline's own search, for a config's `structure`: as many trials as the full model gets.

Command  python -m mocme_jax.search --config=CONFIG:structure --space=structure --trials=20
"""

from mocme_jax.studies.space import Log, Uniform


def get_space(config):
    """Penalty, rate, dropout, batch and average."""
    return {
        "loss.regularisation": Log(0.02, 0.3),
        "loss.query_dropout": Uniform(0.0, 0.5),
        "train.table_learning_rate": Log(0.05, 0.2),
        "train.batch_size": [256, 512],
        "train.average": [100.0, 300.0],
    }
