"""DB15K (DBpedia).

Command     python -m mocme_jax.train --config=db15k --config.data.dir=FOLDER
Modalities  structure (learned), text (names), numeric (numeric_triples.tsv)
Data        FOLDER holds the released files; without a text feature file the names are encoded (extra: text)
Dev         carved out of train: 9,831 of the 9,904 released valid rows are duplicates or in train or test
Machine     one core of an AMD EPYC virtual machine, no accelerator
Minutes     8, other jobs on the other core
Scores      test MRR .313, Hits@10 .467, one seed; structure alone .318
"""

from mocme_jax.config import default_config


def get_config(arg=None):
    """The configuration; `arg` is not used."""
    del arg
    config = default_config()
    config.data.name = "DB15K"
    # Most of the released valid split is in train, and some of it in test.
    config.data.dev = "train"
    config.train.batch_size = 1024
    config.train.epochs = 10
    return config
