"""What to say of config fields, of words of a field and of studies that the program no longer has.

What is renamed or removed gets an entry here: a field's path, or a group's, ``path=word`` for one of a field's words,
or ``--study=NAME``; and the rest of a sentence that begins with it. Entries count once `config_fields.FIELDS` has no
such field or word.
"""

_CONSTANT = "is gone: it is always {}; leave it out"
_OF_A_STUDY = "is gone: {} is part of a study; run python -m mocme_jax.ablate --study={}"
_FUSION = "is gone: experts are weighed as model.fusion says; leave it out"
_ALONE = "is gone: each expert answers for itself, and the structure is one of them; leave it out"

REMOVED: dict[str, str] = {
    "data.noise_in": _OF_A_STUDY.format("noise in place of features", "noise"),
    "data.noise": _OF_A_STUDY.format("noise in place of features", "noise"),
    "data.missing": _OF_A_STUDY.format("the removal of feature rows", "missing"),
    "data.triples": _OF_A_STUDY.format("the removal of training triples", "sparse"),
    "model.structure_experts": _ALONE,
    "model.structure_bias": _ALONE,
    "model.structure_dropout": _ALONE,
    "model.relative_scales": "is gone: a scale is learned as the other parameters are; leave it out",
    "model.feature_dropout": "is gone: features are no longer added to the structure; leave it out",
    "model.experts=0": "is not the structural baseline, which is --config.data.modalities=structure",
    "model.expert_scale": _CONSTANT.format("0.1"),
    "model.structure_init": _CONSTANT.format("0.001"),
    "model.relation_init": _CONSTANT.format("0.001"),
    "fusion": _FUSION,
    "fusion.intra": _FUSION,
    "fusion.inter": _FUSION,
    "fusion.features_in": _FUSION,
    "fusion.estimator": _FUSION,
    "fusion.temperature": _FUSION,
    "fusion.panel": _FUSION,
    "fusion.relevance": _FUSION,
    "fusion.granularity": _FUSION,
    "fusion.mi_width": _FUSION,
    "fusion.weight_gradients": _FUSION,
    "fusion.redundancy_loss": _FUSION,
    "negatives.even": _CONSTANT.format("0.3"),
    "negatives.many_weights": _CONSTANT.format("1,1,0.5"),
    "negatives.adversarial_temperature": _CONSTANT.format("1"),
    "train.weight_decay": "is gone: no weight decays; loss.regularisation is the weight of the penalty",
    "train.dense_entities": _CONSTANT.format("200,000"),
    "--study=estimators": "is gone: the information is estimated in one way; --study=components has other fusions",
    "--study=fusion": "is gone: --study=components has its cells",
    "--study=parts": "is gone: --study=components has its cells",
    "eval.chunk": "is gone: eval.score_megabytes says how many triples are ranked at once",
}
