"""A run is loaded from any working directory, and with its own modalities alone, whatever else its folders hold."""

import shutil

import numpy as np
import pytest
from command_runner import run_here
from tiny_graph import tiny_flags, write_tiny_graph

import mocme_jax
from mocme_jax.data.features.feature_files import feature_paths
from mocme_jax.errors import UserError

ROWS = np.ones((48, 3), np.float32)
# A modality that no one asked for, one that two files give, a word of the model, and what is no array at all.
UNRELATED = ("audio.npy", "img.npy", "visual.npy", "structure.npy", "DB15K-video.npy", "TIVA-video.npy")


def add_unrelated(folder) -> None:
    for name in UNRELATED:
        np.save(folder / name, ROWS)
    (folder / "smell.npz").write_bytes(b"nothing")


def names(model) -> list[str]:
    return [modality.name for modality in model.graph.modalities]


def test_files_of_modalities_that_are_not_wanted_may_be_called_anything(tmp_path):
    folder = write_tiny_graph(tmp_path / "graph")
    add_unrelated(folder)
    assert list(feature_paths(folder, "tiny", {"text", "numeric"})) == ["numeric", "text"]
    assert feature_paths(folder, "tiny", ()) == {}
    with pytest.raises(UserError, match="contains features of DB15K, TIVA but none named after tiny"):
        feature_paths(folder, "tiny")


@pytest.mark.slow
def test_a_run_on_relative_folders_is_loaded_from_anywhere(tmp_path, monkeypatch):
    home, elsewhere, moved = (tmp_path / name for name in ("home", "elsewhere", "moved"))
    elsewhere.mkdir()
    write_tiny_graph(home / "graph")
    (home / "features").mkdir()
    for name in ("text.npy", "numeric.npz"):
        (home / "graph" / name).rename(home / "features" / name)
    monkeypatch.chdir(home)
    # All that is there, which is another thing once there is more.
    fields = {"data__modalities": "all", "data__make": "", "data__features_dir": "features", "train__epochs": 2}
    assert run_here("train", *tiny_flags("graph", "run", **fields), monkeypatch=monkeypatch) == 0
    before = mocme_jax.load("run").complete("place 3", "next", k=48)
    for folder in (home / "graph", home / "features"):
        add_unrelated(folder)
    monkeypatch.chdir(elsewhere)
    model = mocme_jax.load(home / "run")
    assert names(model) == ["numeric", "text"]
    assert model.complete("place 3", "next", k=48) == before
    # Where all has moved together, the folders are found from the working directory as before.
    shutil.move(home, moved)
    with pytest.raises(UserError, match="graph: no such folder"):
        mocme_jax.load(moved / "run")
    monkeypatch.chdir(moved)
    assert mocme_jax.load("run").complete("place 3", "next", k=48) == before
    with np.load(moved / "features" / "numeric.npz") as arrays:
        np.savez(moved / "features" / "numeric.npz", **{**arrays, "rows": 2 * arrays["rows"]})
    told = (
        r"than tiny has now \(modality numeric\); give the originals .*; if a line above says that rows look filled in"
    )
    with pytest.raises(UserError, match=told):
        mocme_jax.load("run")


@pytest.mark.slow
def test_a_run_of_structure_alone_stays_one(tiny_baseline, tmp_path):
    folder = write_tiny_graph(tmp_path / "graph")
    add_unrelated(folder)
    assert names(mocme_jax.load(tiny_baseline, data_dir=str(folder))) == []
