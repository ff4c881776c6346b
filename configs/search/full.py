"""What moves the full model most. The structural baseline gets as many trials, over what it has of these: `structure`.

Command  python -m mocme_jax.search --config=CONFIG --space=full --trials=20
"""

from mocme_jax.studies.space import Log, Uniform


def get_space(config):
    """Penalty, rates, dropouts, the features' scale, the fusion's temperature."""
    return {
        "loss.regularisation": Log(0.02, 0.3),
        "loss.query_dropout": Uniform(0.0, 0.5),
        "train.learning_rate": Log(0.001, 0.03),
        "train.table_learning_rate": Log(0.05, 0.2),
        "train.batch_size": [256, 512],
        "train.average": [100.0, 300.0],
        "model.modality_scale": Log(0.01, 1.0),
        "model.feature_dropout": Uniform(0.0, 0.6),
        "fusion.temperature": Log(0.3, 10.0),
    }
