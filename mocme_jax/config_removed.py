"""What to say of config fields, of words of a field and of studies that the program no longer has.

What is renamed or removed gets an entry here: a field's path, ``path=word`` for one of its words, or ``--study=NAME``;
and the rest of a sentence that begins with it. Entries count once `config_fields.FIELDS` has no such field or word.
"""

_CONSTANT = "is gone: it is always {}; leave it out"
_OF_A_STUDY = "is gone: {} is part of a study; run python -m mocme_jax.ablate --study={}"
_NO_GRADIENT = "is gone: no gradient flows through fusion weights, since it was never better; leave it out"

REMOVED: dict[str, str] = {
    "data.noise_in": _OF_A_STUDY.format("noise in place of features", "noise"),
    "data.noise": _OF_A_STUDY.format("noise in place of features", "noise"),
    "data.missing": _OF_A_STUDY.format("the removal of feature rows", "missing"),
    "data.triples": _OF_A_STUDY.format("the removal of training triples", "sparse"),
    "model.structure_experts": "is gone: the structure is one view and has no experts; leave it out",
    "model.expert_scale": _CONSTANT.format("0.1"),
    "model.structure_init": _CONSTANT.format("0.001"),
    "model.relation_init": _CONSTANT.format("0.001"),
    "fusion.relevance": "is gone: the links of the training triples are always the relevance; leave it out",
    "fusion.granularity": "is gone: weights follow the mutual information of the whole graph; leave it out",
    "fusion.mi_width": _CONSTANT.format("32"),
    "fusion.weight_gradients": _NO_GRADIENT,
    "fusion.redundancy_loss": _NO_GRADIENT,
    "fusion.intra=best": "is gone: the best part alone was never better than weights",
    "fusion.inter=best": "is gone: the best part alone was never better than weights",
    "negatives.even": _CONSTANT.format("0.3"),
    "negatives.many_weights": _CONSTANT.format("1,1,0.5"),
    "negatives.adversarial_temperature": _CONSTANT.format("1"),
    "train.weight_decay": "is gone: no weight decays; loss.regularisation is the weight of the penalty",
    "train.dense_entities": _CONSTANT.format("200,000"),
    "--study=fusion": "is gone: --study=components has its cells",
    "--study=parts": "is gone: --study=components has its cells",
    "eval.chunk": "is gone: eval.score_megabytes says how many triples are ranked at once",
}
