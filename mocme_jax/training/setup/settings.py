"""Functions that read plain values of a run from a config.

A config is a ``ConfigDict``, or the nested dict of one in a checkpoint or in ``results.json``.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

import jax
from ml_collections import ConfigDict

from mocme_jax.config import config_from_dict, flat, set_field
from mocme_jax.config_fields import Value
from mocme_jax.data.graph.knowledge_graph import MODALITY_PART
from mocme_jax.training.schedule import Schedule

Config: TypeAlias = ConfigDict | Mapping[str, Any]

# The config fields that are used outside the setup.
TOLD: tuple[str, ...] = ("seed", "model.score", "model.width", "model.experts", "model.fusion")
TOLD += ("train.batch_size", "train.precision", "train.table_learning_rate", "negatives.pool")
TOLD += ("loss.regulariser", "loss.regularisation", "parallel.devices", "parallel.mapper", "parallel.shard_entities")
TOLD += ("parallel.lock",)

# From this size on, in bytes per device, the scores of a training step are warned of. The temporaries of a whole step
# took 27 and 23 times as much, with the settings of atlas and batches of 2,048 and 4,096, compiled for a CPU.
_MUCH = 1e9


def schedule_of(config: Config, triples: int) -> Schedule:
    """Return when a run is evaluated, saved and ended; an epoch is a pass over ``triples`` triples."""
    train = config["train"]
    same = {name: train[name] for name in ("epochs", "eval_every", "patience", "save_minutes")}
    return Schedule(-(-triples // train["batch_size"]), **same)


def with_batch_that_fits(
    config: ConfigDict, triples: int, devices: int, notify: Callable[[str], None] = lambda line: None
) -> ConfigDict:
    """Return the config with a batch size that is at most T training triples and divides by the devices.

    Args:
      config: the config.
      triples: the number of training triples T.
      devices: the number of devices.
      notify: called with one line if the batch size changes.
    """
    wanted, most = config["train"]["batch_size"], max(triples // devices, 1) * devices
    if wanted <= max(triples, most):
        return config
    notify(f"train.batch_size is {most:,}, not {wanted:,}: the graph has {triples:,} training triples")
    return with_fields(config, {"train.batch_size": most})


def settings_of(config: Config) -> SimpleNamespace:
    """Return the fields ``TOLD`` by their last names: ``seed``, ``width`` and so on."""
    values = flat(config)
    return SimpleNamespace(**{path.rpartition(".")[2]: values.get(path) for path in TOLD})


def data_folders(config: Config) -> list[Path]:
    """Return the folders of the features and of the graph; empty for the bundled graph."""
    data = config["data"]
    return [Path(folder) for folder in (data["features_dir"], data["dir"]) if folder]


def candidates_per_query(config: Config, entities: int) -> int:
    """Return the number of candidates of a training query, for N entities."""
    negatives = config["negatives"]
    columns = min(negatives["pool"], entities)
    own = negatives["batch_candidates"] and columns < entities
    return columns + 2 * config["train"]["batch_size"] if own else columns


def cure_of_memory(config: Config, entities: int) -> str:
    """Return what to lower if a training step on N entities runs out of memory."""
    columns, pool = candidates_per_query(config, entities), config["negatives"]["pool"]
    off = ", or set negatives.batch_candidates=false" if columns > pool else ""
    return (
        f"lower train.batch_size (it is {config['train']['batch_size']:,}, and each query is scored against "
        f"{columns:,} candidates), negatives.pool or model.width{off}"
    )


def warning_of_memory(config: Config, entities: int, devices: int) -> str | None:
    """Return a warning if the scores of a training step alone fill a large part of a device; None if they do not."""
    columns, queries = candidates_per_query(config, entities), 2 * config["train"]["batch_size"]
    size = 4 * queries * columns / devices
    if size < _MUCH:
        return None
    return (
        f"a training step scores {queries:,} queries against {columns:,} candidates, which takes {size / 1e9:.1f} GB "
        "per device for each array of scores, of which a step holds many (mocme plan tells its memory); "
        f"{cure_of_memory(config, entities)}"
    )


def with_fields(config: Config, changes: Mapping[str, Value]) -> ConfigDict:
    """Return a copy of the config with other values at some paths, such as ``model.width``, each checked by itself."""
    result = config_from_dict(config.to_dict() if hasattr(config, "to_dict") else config)
    for path, value in changes.items():
        set_field(result, path, value)
    return result


_PLACES = ("data.dir", "data.features_dir")


def whole_places(config: Config) -> dict[str, str]:
    """Return the absolute paths of the folders that the config names."""
    return {path: os.path.abspath(place) for path, place in flat(config).items() if path in _PLACES and place}


def here(saved: Mapping[str, Any], data_dir: str | None, features_dir: str | None, *, alone: bool) -> ConfigDict:
    """Return the config of a run for this machine and for the run's modalities; see ``restore_best``.

    Args:
      saved: the metadata of a checkpoint. Earlier versions did not save ``places``.
      data_dir: the folder of the graph, if it has moved.
      features_dir: the folder of the feature files, if it has moved.
      alone: use one device with whole tables.

    Raises:
      UserError: the config has other fields than this version, or an invalid value.
    """
    # Earlier versions saved the group ``eval``, which changed no number.
    config = config_from_dict({name: part for name, part in saved["config"].items() if name != "eval"})
    devices = int(config["parallel"]["devices"])
    changes: dict[str, Value] = {"parallel.devices": min(devices, jax.device_count())}
    if alone:
        changes = {"parallel.devices": 1, "parallel.mapper": "none", "parallel.shard_entities": False}
    carried = [part.removeprefix(MODALITY_PART) for part in saved["parts"] if part.startswith(MODALITY_PART)]
    changes["data.modalities"] = tuple(carried) or ("structure",)
    places = {path: place for path, place in saved.get("places", {}).items() if os.path.isdir(place)}
    places |= {path: place for path, place in zip(_PLACES, (data_dir, features_dir), strict=True) if place is not None}
    return with_fields(config, changes | places)
