"""What a configuration says of a run beside its graph and model, as plain values.

A configuration is a ``ConfigDict``, or the nested dict that a checkpoint or ``results.json`` holds of one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import jax

from mocme_jax.config import config_from_dict, get_field, set_field
from mocme_jax.training.schedule import Schedule

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from mocme_jax.config_fields import Value

    Config: TypeAlias = ConfigDict | Mapping[str, Any]


def schedule_of(config: Config, triples: int) -> Schedule:
    """When a run over so many training triples is evaluated, saved and over."""
    train = config["train"]
    return Schedule(
        steps_per_epoch=-(-triples // train["batch_size"]),
        epochs=train["epochs"],
        eval_every=train["eval_every"],
        patience=train["patience"],
        save_minutes=train["save_minutes"],
    )


def seed_of(config: Config) -> int:
    """The seed of the dev split, and of a run on its own."""
    return config["seed"]


def splits_tables(config: Config) -> bool:
    """Whether tables of entities are split over the devices."""
    return config["parallel"]["shard_entities"]


def describe_model(config: Config) -> dict[str, Any]:
    """Of a model, for people: ``score``, ``width``, ``experts``, ``batch_size``, ``pool``, ``precision``."""
    paths = ("model.score", "model.width", "model.experts", "train.batch_size", "negatives.pool", "train.precision")
    return {path.rpartition(".")[2]: get_field(config, path) for path in paths}


def structure_dropout_of(config: Config) -> float:
    """The share of entities whose structure a training step hides."""
    return config["model"]["structure_dropout"]


def fitting_of(config: Config) -> tuple[float, str, float]:
    """What the structure of an entity is trained with: learning rate, regulariser and its strength."""
    return config["train"]["table_learning_rate"], config["loss"]["regulariser"], config["loss"]["regularisation"]


def data_folders(config: Config) -> list[Path]:
    """The folders that the features and the graph were read from; none for the embedded graph."""
    data = config["data"]
    return [Path(folder) for folder in (data["features_dir"], data["dir"]) if folder]


def candidates_per_query(config: Config, entities: int) -> int:
    """How many of N entities a training query is scored against."""
    negatives = config["negatives"]
    columns = min(negatives["pool"], entities)
    own = negatives["batch_candidates"] and columns < entities
    return columns + 2 * config["train"]["batch_size"] if own else columns


def devices_of(config: Config) -> tuple[int, str, str]:
    """The configured number of devices, mapper and precision."""
    return config["parallel"]["devices"], config["parallel"]["mapper"], config["train"]["precision"]


def with_fields(config: Config, changes: Mapping[str, Value]) -> ConfigDict:
    """A copy with other values at some paths, such as ``model.width``.

    Raises:
      UserError: an unknown field, or a value that its field may not hold; fields are not checked against each other.
    """
    result = config_from_dict(config.to_dict() if hasattr(config, "to_dict") else config)
    for path, value in changes.items():
        set_field(result, path, value)
    return result


def here(config: Config, data_dir: str | None, features_dir: str | None, *, alone: bool) -> ConfigDict:
    """A run's configuration for this machine; see ``restore_best``. No more devices than there are."""
    changes: dict[str, Value] = {"parallel.devices": min(devices_of(config)[0], jax.device_count())}
    if alone:
        changes = {"parallel.devices": 1, "parallel.mapper": "none", "parallel.shard_entities": False}
    places = {"data.dir": data_dir, "data.features_dir": features_dir}
    return with_fields(config, changes | {path: place for path, place in places.items() if place is not None})
