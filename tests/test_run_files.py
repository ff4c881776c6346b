"""The other files of a run's folder as a stranger's: read as what they are, or refused in one line."""

import copy
import io
import json
import os

import numpy as np
import pytest
from command_runner import ROOT, contents

from mocme_jax.data.readers import json_file
from mocme_jax.errors import UserError
from mocme_jax.report.finished_run import read_finished
from mocme_jax.report.study_page import read_study
from mocme_jax.serving.answer_files import RowFile
from mocme_jax.studies.finished_cells import Rows
from mocme_jax.studies.study_folder import read_rows
from mocme_jax.training.checkpoints.run_position import identity_of
from mocme_jax.training.information import read_information
from mocme_jax.training.logs.metrics_log import read_metrics
from mocme_jax.training.logs.progress import make_console
from mocme_jax.training.logs.run_results import print_results, read_results

SCORES = {"count": 4, "mrr": 0.5, "mr": 2.0, "hits@1": 0.5, "hits@3": 0.5, "hits@10": 1.0}
REPORT = {"overall": SCORES, "clean": SCORES, "groups": {"direction": {"head": SCORES}}}
GRAPH = {"name": "g", "entities": 3, "relations": 1, "triples": {"train": 3}, "modalities": {"text": 0.5}, "dev": "d"}
RESULTS = {
    "graph": GRAPH,
    "warnings": ["w"],
    "run": {"step": 4, "epoch": 2, "best_epoch": 1, "best_step": 2, "best_mrr": 0.5, "minutes": 1.0},
    "dev": REPORT,
    "test": None,
    "weights": {"structure": 1.0},
    "jax": "0.12",
    "device": "cpu",
    "version": "1",
    "fingerprint": "f",
    "config": {"seed": 0, "model": {"width": 8}},
}
ROW = {"cell": "full", "changes": {}, "seed": 0, "best_epoch": 2, "epochs": 2, "curve": [[2, 0.5]]}
ROW |= {"dev": SCORES, "test": SCORES, "clean": SCORES, "weights": {"structure": 1.0}, "seconds": 3.0}
STUDY = identity_of({"seed": 0}, {"train triples": "a"}, "f")
STUDY |= {"study": "s", "reference": "full", "seeds": [0], "cells": {"full": {}}, "graph": GRAPH, "warnings": []}


def changed(value, path, new):
    """A copy with another value at a path of names."""
    value = json.loads(json.dumps(value))
    within = value
    for name in path[:-1]:
        within = within[name]
    within[path[-1]] = new
    return value


@pytest.mark.parametrize(
    ("path", "new", "told"),
    [
        (("dev",), None, "dev is None, expected a mapping"),
        (("dev", "overall", "mrr"), "high", "dev.overall.mrr is 'high', expected a number or nothing"),
        (("dev", "groups", "direction"), [], "dev.groups.direction is a list"),
        (("run", "best_epoch"), float("nan"), "run.best_epoch is nan"),
        (("run", "minutes"), 10**400, "run.minutes is a whole number out of range"),
        (("weights",), [1], "weights is a list"),
        (("weights",), {}, "weights is empty"),
        (("warnings",), "w", "warnings is 'w'"),
        (("graph", "entities"), "3", "graph.entities is '3'"),
        (("config", "model"), [[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]], "config.model is nested deeper"),
    ],
)
def test_results_of_another_shape_are_told_by_their_place(path, new, told, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(RESULTS))
    assert read_finished(tmp_path).experts == ["structure"]
    (tmp_path / "results.json").write_text(json.dumps(changed(RESULTS, path, new)))
    for read in (read_results, read_finished):
        with pytest.raises(UserError, match=r"results\.json: does not contain the results of a run: ") as raised:
            read(tmp_path)
        assert told in str(raised.value)


@pytest.mark.parametrize(("joined", "told"), [(5, False), (6, True), (94, True), (95, False), (0, False)])
def test_scores_of_triples_that_train_joins_are_printed_if_they_are_many(joined, told):
    results = copy.deepcopy(RESULTS)
    scores = {"count": 100, "mrr": 0.5, "mr": 3.0, "hits@1": 0.25, "hits@3": 0.5, "hits@10": 0.75}
    groups = {"joined": scores | {"count": joined, "mrr": 0.875}, "not joined": scores | {"count": 100 - joined}}
    results["test"] = {"overall": scores, "clean": scores, "groups": {"two_entities": groups}}
    printed = io.StringIO()
    print_results(results, make_console(printed))
    assert ("test, entities joined in train" in printed.getvalue()) == told
    assert ("0.8750" in printed.getvalue()) == told
    assert ("test, entities not joined" in printed.getvalue()) == told


def test_rows_of_metrics_that_are_no_numbers_are_not_drawn(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(RESULTS))
    rows = [{"epoch": 1, "dev": {"mrr": "a"}}, {"epoch": 2, "dev": {"mrr": 0.5, "x": [1]}}, {"epoch": [], "dev": {}}]
    deep = '{"epoch": 3, "dev": ' + "[" * 500 + "]" * 500 + "}"
    (tmp_path / "metrics.jsonl").write_text("\n".join([*map(json.dumps, rows), deep, '{"epoch": NaN}']))
    assert read_finished(tmp_path).curve("dev/mrr") == ([2], [0.5])


def test_a_file_of_rows_has_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(json_file, "LARGEST_ROWS", 10)
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl: is 13 bytes long"):
        read_metrics(tmp_path)


@pytest.mark.parametrize(
    "change", [{"modalities": {"text": 1.0}}, {"experts": {"a": {"nats": "b", "margin": None, "triples": 1}}}, {}]
)
def test_information_of_another_shape_is_as_if_there_were_none(change, tmp_path):
    added = {"nats": 0.5, "margin": None, "triples": 3}
    kept = {
        "best_step": 2,
        "modalities": {"text": added},
        "experts": {},
        "relations": {"r": {"text": added}},
        "weights": None,
    }
    (tmp_path / "information.json").write_text(json.dumps(kept | change))
    assert bool(read_information(tmp_path, {"best_step": 2})) == (not change)


def study(folder, told=STUDY, rows=(ROW,), table=None):
    folder.mkdir(exist_ok=True)
    (folder / "study.json").write_text(json.dumps(told))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if table is not None:
        (folder / "table.json").write_text(json.dumps(table))
    return folder


@pytest.mark.parametrize(
    "change",
    [{"curve": [[1]]}, {"curve": 7}, {"changes": []}, {"seed": "0"}, {"dev": {"mrr": None}}, {"weights": ["a"]}],
)
def test_rows_of_a_study_that_no_training_writes_are_left_out(change, tmp_path):
    read = read_study(study(tmp_path / "study", rows=[ROW, ROW | {"seed": 1} | change]))
    assert [row["seed"] for row in read.rows] == [0]
    assert read.table[0]["test"]["mean"] == 0.5


@pytest.mark.parametrize("table", [[], {"rows": [7]}, {"rows": [{"cell": 1}]}, {"rows": {"a": 1}}])
def test_a_table_that_no_study_writes_is_made_anew(table, tmp_path):
    assert read_study(study(tmp_path / "study", table=table)).table[0]["test"]["mean"] == 0.5


@pytest.mark.parametrize(
    ("change", "told"),
    [({"seeds": [[0]]}, "seeds[0] is a list"), ({"cells": {"full": []}}, "cells.full is a list"), ({"study": 7}, "7")],
)
def test_a_study_of_another_shape_is_told(change, told, tmp_path):
    with pytest.raises(UserError, match=r"study\.json: does not describe a study: ") as raised:
        read_study(study(tmp_path / "study", told=STUDY | change))
    assert told in str(raised.value)


@pytest.mark.parametrize("told", [[], 7, STUDY | {"config": []}, STUDY | {"parts": {"a": 1}}, STUDY | {"search": 3}])
def test_a_study_goes_on_from_none_of_another_shape(told, tmp_path):
    with pytest.raises(UserError, match=r"study\.json: does not describe a study: .*; name another folder"):
        Rows(study(tmp_path / "study", told=told), STUDY)


def test_a_study_whose_rows_can_not_be_read_is_left_as_it_was(tmp_path):
    folder = study(tmp_path / "study")
    (folder / "rows.jsonl").unlink()
    os.mkfifo(folder / "rows.jsonl")
    before = contents(folder)
    with pytest.raises(UserError, match=r"rows\.jsonl: expected a file, found a folder, a pipe or a device"):
        Rows(folder, STUDY | {"warnings": ["another"]})
    assert contents(folder) == before


@pytest.mark.parametrize(
    "ranks", [np.ones(3, np.float32), np.ones((2, 2), np.float32), np.ones(4), np.full(4, np.nan, np.float32)]
)
def test_ranks_of_a_study_are_ranks(ranks, tmp_path):
    rows = Rows(study(tmp_path / "study"), STUDY)
    np.save(rows.ranks_path("full", 0), np.ones(4, np.float32))
    assert rows.ranks("full", [0], 4).shape == (1, 4)
    np.save(rows.ranks_path("full", 0), ranks)
    with pytest.raises(UserError, match=r"full\.0\.npy: expected the ranks of 4 queries"):
        rows.ranks("full", [0], 4)


COLUMNS = ("query", "head", "relation", "tail", "rank")


def test_a_pipe_in_the_place_of_answers_is_not_waited_for(tmp_path):
    RowFile(tmp_path / "a.tsv", {}, COLUMNS).finish()
    (tmp_path / "a.tsv").unlink()
    os.mkfifo(tmp_path / "a.tsv")
    with pytest.raises(UserError, match=r"a\.tsv: expected a file, found a pipe or a device"):
        RowFile(tmp_path / "a.tsv", {}, COLUMNS)
    (tmp_path / "a.tsv.settings.json").unlink()
    os.mkfifo(tmp_path / "a.tsv.settings.json")
    with pytest.raises(UserError, match=r"a\.tsv: was not written by this command"):
        RowFile(tmp_path / "a.tsv", {}, COLUMNS)


@pytest.mark.parametrize("settings", ["[1]", "7", "[" * 5000, '{"a": NaN}'])
def test_settings_of_another_shape_are_no_settings(settings, tmp_path):
    (tmp_path / "a.tsv").write_text("query\n")
    (tmp_path / "a.tsv.settings.json").write_text(settings)
    with pytest.raises(UserError, match=r"was not written by this command|was written with other settings \(b\)"):
        RowFile(tmp_path / "a.tsv", {"b": 1}, COLUMNS)


def test_a_link_in_the_place_of_settings_is_replaced(tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    (tmp_path / "a.tsv.settings.json").symlink_to(tmp_path / "note.txt")
    RowFile(tmp_path / "a.tsv", {}, COLUMNS).finish()
    assert (tmp_path / "note.txt").read_text() == "mine"


def test_rows_nested_without_end_are_cut_off(tmp_path):
    with RowFile(tmp_path / "a.jsonl", {}, COLUMNS) as file:
        file.write([[(1, "h", "r", "t", 0)]])
    with open(tmp_path / "a.jsonl", "a") as file:
        file.write("[" * 100_000 + "\n")
    with RowFile(tmp_path / "a.jsonl", {}, COLUMNS) as file:
        assert file.done == 1


def test_studies_that_the_repository_keeps_are_read_whole():
    """Also those of earlier versions, whose rows nest the weights."""
    folders = [path.parent for path in (ROOT / "docs" / "studies").glob("*/study.json")]
    assert len(folders) > 5
    for folder in folders:
        lines = (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()
        assert len(read_rows(folder)) == len(lines)
        read_study(folder)


def test_a_version_of_many_characters_is_cut(tmp_path):
    folder = study(tmp_path / "study", STUDY | {"format": 99, "version": "9" * 5_000})
    with pytest.raises(UserError, match="in format 99") as raised:
        Rows(folder, {})
    assert len(str(raised.value)) < 500 + len(str(tmp_path))
