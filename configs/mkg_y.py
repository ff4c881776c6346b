"""MKG-Y (YAGO).

Command     python -m mocme_jax.train --config=mkg_y --config.data.dir=FOLDER
Modalities  structure (learned), text (names); image and more where their files are in the folder
Data        FOLDER holds the released files; without a text feature file the names are encoded (extra: text)
Machine     one core of an AMD EPYC virtual machine, no accelerator
Minutes     5, other programs ran beside it
Scores      test MRR .403, dev .377 (seed 0)
"""

from mocme_jax.config import default_config, structure_alone


def get_config(arg=None):
    """The configuration; with the argument ``structure``, its structural baseline."""
    config = default_config()
    config.data.name = "MKG-Y"
    # Birth dates and the like do not help here (docs/studies/pilots.md).
    config.data.make = ("text",)
    config.model.width = 256
    config.model.experts = 3
    config.model.lend = 0.3
    config.model.self_answers = "seen"
    config.model.cardinality = 0.4
    config.model.modality_scale = 0.3
    config.train.learning_rate = 0.001
    config.train.epochs = 18
    config.train.average = 200.0
    config.loss.regularisation = 0.07
    config.train.eval_every = 2
    return structure_alone(config) if arg == "structure" else config
