"""TIVA (English words and phrases).

Command     python -m mocme_jax.train --config=tiva --config.data.dir=FOLDER
Modalities  structure (learned), text (names)
Data        FOLDER holds the released files; without a text feature file the names are encoded (extra: text)
Machine     not measured yet
Minutes     not measured yet
Scores      not measured yet
"""

from mocme_jax.config import default_config


def get_config(arg=None):
    """The configuration; `arg` is not used."""
    del arg
    config = default_config()
    config.data.name = "TIVA"
    config.train.epochs = 14
    return config
