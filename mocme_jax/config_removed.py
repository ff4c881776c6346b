"""What to say of config fields, of words of a field and of studies that the program no longer has.

What is renamed or removed gets an entry here: a field's path, or a group's, ``path=word`` for one of a field's words,
or ``--study=NAME``; and the rest of a sentence that begins with it. Entries count once `config_fields.FIELDS` has no
such field or word.
"""

_CONSTANT = "was removed: the value is always {}; delete the field"
_OF_A_STUDY = "was removed: {} is part of a study; run python -m mocme_jax.ablate --study={}"
_FUSION = "was removed: model.fusion sets how experts are weighted; delete the field"
_EVALUATION = "was removed: the program chooses how many queries are ranked at once; delete the field"
_OF_FUSION = ("intra", "inter", "features_in", "estimator", "temperature", "panel", "relevance", "granularity")
_OF_FUSION += ("mi_width", "weight_gradients", "redundancy_loss")
_HELD_OUT = "was removed: fusion weights are fitted on dev, so no training triples are held out; delete the field"
_ALONE = "was removed: the structure is an expert of its own; delete the field"

REMOVED: dict[str, str] = {
    "data.noise_in": _OF_A_STUDY.format("noise in place of features", "noise"),
    "data.noise": _OF_A_STUDY.format("noise in place of features", "noise"),
    "data.missing": _OF_A_STUDY.format("the removal of feature rows", "missing"),
    "data.triples": _OF_A_STUDY.format("the removal of training triples", "sparse"),
    "model.structure_experts": _ALONE,
    "model.structure_bias": _ALONE,
    "model.structure_dropout": _ALONE,
    "model.relative_scales": "was removed: a scale is learned like the other parameters; delete the field",
    "model.feature_dropout": "was removed: features are not added to the structure; delete the field",
    "model.experts=0": "is not the structural baseline; use --config.data.modalities=structure for that",
    "model.expert_scale": _CONSTANT.format("0.1"),
    "model.structure_init": _CONSTANT.format("0.001"),
    "model.relation_init": _CONSTANT.format("0.001"),
    "fusion": _FUSION,
    **{f"fusion.{name}": _FUSION for name in _OF_FUSION},
    "negatives.even": _CONSTANT.format("0.3"),
    "negatives.many_weights": _CONSTANT.format("1,1,0.5"),
    "negatives.adversarial_temperature": _CONSTANT.format("1"),
    "train.hold_out": _HELD_OUT,
    "train.hold_out_epochs": _HELD_OUT,
    "train.weight_decay": "was removed: there is no weight decay; loss.regularisation is the weight of the penalty",
    "train.dense_entities": _CONSTANT.format("200,000"),
    "--study=estimators": "was removed: there is one estimator of the information; --study=components compares fusions",
    "--study=fusion": "was removed: its cells are in --study=components",
    "--study=parts": "was removed: its cells are in --study=components",
    "eval": _EVALUATION,
    "eval.chunk": _EVALUATION,
    "eval.score_megabytes": _EVALUATION,
}
