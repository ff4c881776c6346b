"""MKG-W (Wikidata).

Command     python -m mocme_jax.train --config=mkg_w --config.data.dir=FOLDER
Modalities  structure (learned), text (entity labels)
Data        FOLDER holds the released files; without a text feature file the names are encoded (extra: text)
Machine     one core of an AMD EPYC virtual machine, no accelerator
Minutes     4, other jobs on the other core
Scores      test MRR .337, Hits@10 .459, one seed; structure alone .325
"""

from mocme_jax.config import default_config


def get_config(arg=None):
    """The configuration; `arg` is not used."""
    del arg
    config = default_config()
    config.data.name = "MKG-W"
    config.model.width = 512
    config.model.modality_scale = 0.8
    config.loss.regularisation = 0.1
    config.train.learning_rate = 0.005
    config.train.batch_size = 1024
    config.train.epochs = 12
    config.train.eval_every = 1
    config.train.patience = 3
    return config
