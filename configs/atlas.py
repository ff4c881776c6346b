"""Atlas, the embedded graph of countries, cities, regions, languages and currencies.

Command     python -m mocme_jax.train
Modalities  structure (learned), text, numeric, image
Machine     not measured yet
Minutes     not measured yet
Scores      not measured yet
"""

from mocme_jax.config import default_config


def get_config(arg=None):
    """The configuration; `arg` is not used."""
    del arg
    config = default_config()
    config.data.name = "atlas"
    config.model.modality_scale = 0.05
    config.train.learning_rate = 0.03
    config.train.epochs = 26
    return config
