"""What moves the full model most, around the config. The structural baseline gets as many trials: `structure`.

Command  python -m mocme_jax.search --config=CONFIG --space=full --trials=20
"""

from mocme_jax.studies.search_space import Uniform, around


def get_space(config):
    """Penalty, rates, dropouts, batch, average and the features' scale."""
    batch = config.train.batch_size
    return {
        "loss.regularisation": around(config.loss.regularisation or 0.05, 2),
        "loss.query_dropout": Uniform(0.0, 0.5),
        "train.learning_rate": around(config.train.learning_rate, 3),
        "train.table_learning_rate": around(config.train.table_learning_rate, 2),
        "train.batch_size": [max(1, batch // 2), batch, 2 * batch],
        "train.average": around(config.train.average or 100.0, 3),
        "model.modality_scale": around(config.model.modality_scale, 3),
    }
