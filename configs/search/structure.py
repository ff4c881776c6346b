"""The structural baseline's own search, for a config's `structure`: as many trials as the full model gets.

Command  python -m mocme_jax.search --config=CONFIG:structure --space=structure --trials=20
"""

from mocme_jax.studies.search_space import Uniform, around


def get_space(config):
    """What the baseline has of the full model's space, as wide."""
    batch = config.train.batch_size
    return {
        "loss.regularisation": around(config.loss.regularisation or 0.05, 2),
        "loss.query_dropout": Uniform(0.0, 0.5),
        "train.table_learning_rate": around(config.train.table_learning_rate, 2),
        "train.batch_size": [max(1, batch // 2), batch, 2 * batch],
        "train.average": around(config.train.average or 100.0, 3),
    }
