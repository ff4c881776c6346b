"""KVC16K (Kuai16K in other code; Chinese names).

Command     python -m mocme_jax.train --config=kvc16k --config.data.dir=FOLDER
Modalities  structure (learned), text (names); image and more where their files are in the folder
Data        FOLDER holds the released files; without a text feature file the names are encoded (extra: text)
Machine     one core of an AMD EPYC virtual machine, no accelerator
Minutes     4, other jobs on the other core
Scores      test MRR .140, Hits@10 .243, one seed of 3 epochs; structure alone .140
            (of before epochs were ordered as now and experts were of features alone)
"""

from mocme_jax.config import default_config, structure_alone


def get_config(arg=None):
    """The configuration; with the argument ``structure``, its structural baseline."""
    config = default_config()
    config.data.name = "KVC16K"
    config.train.batch_size = 1024
    config.train.epochs = 3
    config.train.eval_every = 1
    return structure_alone(config) if arg == "structure" else config
