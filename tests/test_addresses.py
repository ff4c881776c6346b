"""Files and folders are of this machine: an address is refused in one line, wherever a place can be given."""

import importlib
import re

import pytest
from command_runner import assert_one_error, run_here

import mocme_jax
from mocme_jax.config_fields import FIELDS, Field
from mocme_jax.errors import UserError, check_place

COMMANDS = ("ablate", "audit", "benchmark", "coldstart", "evaluate", "explore", "export", "plan", "predict", "prepare")
COMMANDS += ("report.__main__", "search", "train")
# The commands that read a config, which have --workdir and the config's fields.
OF_A_CONFIG = ("ablate", "benchmark", "coldstart", "plan", "search", "train")
ADDRESSES = ("gs://bucket/run", "s3://bucket/run", "https://here/run", "hdfs://name:8020/run", "file:///run")


def options(command: str) -> dict[str, Field]:
    return getattr(importlib.import_module(f"mocme_jax.{command}"), "OPTIONS", {})


def places(command: str) -> list[str]:
    own = [f"--{name}" for name, field in options(command).items() if field.place]
    if command in OF_A_CONFIG:
        own += ["--workdir", *(f"--config.{path}" for path, field in FIELDS.items() if field.place)]
    return own


@pytest.mark.parametrize("command", COMMANDS)
def test_an_address_is_refused(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert places(command)
    for flag in places(command):
        for address in ADDRESSES if flag == "--workdir" else ADDRESSES[:1]:
            status = run_here(command, f"{flag}={address}", monkeypatch=monkeypatch)
            words = f"{flag.removeprefix('--config.')}: {address} is an address, but only files and folders"
            assert_one_error(status, capsys.readouterr().err, words)
    assert list(tmp_path.iterdir()) == []


def test_every_flag_that_names_a_file_or_folder_is_one_of_a_place():
    """By the words of its help, which begins with what is given."""
    names = re.compile(r"^(a )?(folder|file)\b|\bto this (JSON file|folder)|^names .* or a file")
    for command in COMMANDS:
        for name, field in {**options(command), **{f"config.{path}": field for path, field in FIELDS.items()}}.items():
            if field.kind in (str, tuple):
                assert field.place == bool(names.search(field.meaning) or name == "compare"), (command, name)


def test_an_address_in_python(tmp_path):
    graph = mocme_jax.KnowledgeGraph.from_triples([("a", "r", "b"), ("b", "r", "c")])
    for use in (
        lambda place: mocme_jax.fit(graph, workdir=place),
        lambda place: mocme_jax.search(graph, workdir=place),
        lambda place: mocme_jax.ablate(graph, workdir=place),
        mocme_jax.load,
        lambda place: mocme_jax.load(data_dir=place),
        lambda place: mocme_jax.load(features_dir=place),
        lambda place: mocme_jax.KnowledgeGraph.from_folder(tmp_path, place),
        mocme_jax.KnowledgeGraph.from_folder,
        graph.save,
    ):
        for place in (ADDRESSES[0], tmp_path.__class__(ADDRESSES[0])):
            with pytest.raises(UserError, match="is an address, but only files and folders of this machine"):
                use(place)


def test_what_is_no_address(tmp_path):
    for place in (tmp_path, "runs/a", "./gs:/x", "C:/x", "a b://c", "gs:", ""):
        check_place("--workdir", place)
