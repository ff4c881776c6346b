"""KVC16K (Kuai16K in other code; Chinese names).

Command     python -m mocme_jax.train --config=kvc16k --config.data.dir=FOLDER
Modalities  structure (learned), text (names); image and more where their files are in the folder
Data        FOLDER holds the released files; without a text feature file the names are encoded (extra: text)
Machine     one core of an AMD EPYC virtual machine, no accelerator
Minutes     31, other programs ran beside it
Scores      test MRR .179, dev .180 (seed 0)
"""

from mocme_jax.config import default_config, structure_alone


def get_config(arg=None):
    """The configuration; with the argument ``structure``, its structural baseline."""
    config = default_config()
    config.data.name = "KVC16K"
    config.model.width = 256
    config.model.modality_scale = 0.3
    config.model.lend = 0.3
    config.model.self_answers = "seen"
    config.model.cardinality = 0.4
    config.negatives.pool = 2048
    config.negatives.sampling = "entropy"
    config.loss.regulariser = "dura"
    config.loss.regularisation = 0.05
    config.loss.query_dropout = 0.3
    config.train.learning_rate = 0.001
    config.train.batch_size = 1024
    config.train.epochs = 14
    config.train.average = 300.0
    config.train.eval_every = 2
    config.train.patience = 2
    return structure_alone(config) if arg == "structure" else config
