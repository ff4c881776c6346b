"""TIVA (English words and phrases).

Command     python -m mocme_jax.train --config=tiva --config.data.dir=FOLDER
Modalities  structure (learned), text (names); image and more where their files are in the folder
Data        FOLDER holds the released files; without a text feature file the names are encoded (extra: text)
Dev         carved out of train: of 2,000 released valid rows 1,676 are in train
Machine     one core of an AMD EPYC virtual machine, no accelerator
Minutes     3, other programs ran beside it
Scores      test MRR .903, of clean rows .665, dev .344 (seed 0), not tuned; .680 of clean rows with version 0.2.0
"""

from mocme_jax.config import default_config, structure_alone


def get_config(arg=None):
    """The configuration; with the argument ``structure``, its structural baseline."""
    config = default_config()
    config.data.name = "TIVA"
    config.model.lend = 0.6
    config.model.self_answers = "seen"
    config.model.cardinality = 0.4
    config.negatives.sampling = "entropy"
    config.loss.regulariser = "dura"
    config.loss.regularisation = 0.15
    config.train.epochs = 20
    config.train.eval_every = 2
    config.train.average = 100.0
    return structure_alone(config) if arg == "structure" else config
