"""MKG-W (Wikidata).

Command     python -m mocme_jax.train --config=mkg_w --config.data.dir=FOLDER
Modalities  structure (learned), text (entity labels)
Data        FOLDER holds the released files; without a text feature file the names are encoded (extra: text)
Machine     one core of an AMD EPYC virtual machine, no accelerator
Minutes     12, other programs ran beside it
Scores      test MRR .385, dev .377 (seed 0)
"""

from mocme_jax.config import default_config, structure_alone


def get_config(arg=None):
    """The configuration; with the argument ``structure``, its structural baseline."""
    config = default_config()
    config.data.name = "MKG-W"
    config.model.width = 256
    config.model.experts = 3
    config.model.lend = 0.3
    config.model.self_answers = "seen"
    config.model.cardinality = 0.6
    config.negatives.pool = 2048
    config.loss.regularisation = 0.1
    config.loss.query_dropout = 0.4
    config.model.modality_scale = 0.8
    config.train.learning_rate = 0.001
    config.train.batch_size = 256
    config.train.epochs = 24
    config.train.eval_every = 2
    config.train.patience = 2
    config.train.average = 500.0
    return structure_alone(config) if arg == "structure" else config
