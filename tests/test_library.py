"""The program from Python: graphs of what a caller holds, and training, search and studies on them."""

import gc
import json
import os
import signal
import sys
import types
from pathlib import Path

import numpy as np
import pandas
import pytest
from tiny_graph import write_tiny_graph

import mocme_jax
from mocme_jax.config_values import path_of
from mocme_jax.flags import parse
from mocme_jax.training.logs.trackers import MLflow, WeightsAndBiases
from mocme_jax.training.setup.datasets import load_dataset

UserError, KnowledgeGraph = mocme_jax.UserError, mocme_jax.KnowledgeGraph
SMALL = dict(width=8, expert_hidden=4, pool=16, batch_size=32, epochs=4, eval_every=2, patience=0, devices=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_tiny_graph(tmp_path_factory.mktemp("library") / "tiny")


@pytest.fixture(scope="module")
def rows(folder) -> dict[str, list[list[str]]]:
    """The triples of the tiny graph by split."""
    splits = ("train", "valid", "test")
    return {
        split: [line.split("\t") for line in (folder / f"{split}.txt").read_text().splitlines()] for split in splits
    }


@pytest.fixture(scope="module")
def graph(rows) -> KnowledgeGraph:
    """The tiny graph in memory, with numbers for most of its entities."""
    numbers = {f"place {n}": {"group": n // 6, "place": n % 6 if n % 4 else None} for n in range(40)}
    features = {"text": "names", "numeric": numbers}
    return KnowledgeGraph.from_triples(rows["train"], valid=rows["valid"], test=rows["test"], features=features)


def test_the_package_shows_what_it_has_and_imports_no_jax_for_it():
    assert {"KnowledgeGraph", "fit", "load", "search", "ablate"} <= set(dir(mocme_jax))
    for name in dir(mocme_jax):
        assert getattr(mocme_jax, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        mocme_jax.fitt  # noqa: B018


@pytest.mark.parametrize("form", ["lists", "tuples", "array", "frame", "frame with more columns"])
def test_triples_in_any_form_are_the_graph_of_the_files(folder, rows, form):
    def in_form(part):
        frame = pandas.DataFrame(part, columns=["subject", "predicate", "object"])
        forms = {"lists": part, "tuples": tuple(map(tuple, part)), "array": np.array(part), "frame": frame}
        forms["frame with more columns"] = frame.assign(year=1999)[["year", "object", "subject", "predicate"]]
        return forms[form]

    parts = {split: in_form(part) for split, part in rows.items()}
    made = KnowledgeGraph.from_triples(parts["train"], valid=parts["valid"], test=parts["test"])
    assert made.fingerprints() == KnowledgeGraph.from_folder(folder, modalities=("structure",)).fingerprints()


def test_whole_numbers_are_ids_if_they_are_0_to_n_and_names_otherwise():
    ids = KnowledgeGraph.from_triples(np.array([[2, 0, 1], [0, 1, 2]]))
    assert ids.entities == ["0", "1", "2"]
    assert ids.train.tolist() == [[2, 0, 1], [0, 1, 2]]
    names = KnowledgeGraph.from_triples([(7, "r", 3), (3, "r", 9)])
    assert names.entities == ["7", "3", "9"]


@pytest.mark.parametrize(
    ("triples", "told"),
    [
        ([], "none were given"),
        ([("a", "r")], "row 0: expected"),
        ([("a", "r", "b"), ("a", "r", None)], "row 1 lacks a value"),
        ([("a", "r", float("nan"))], "row 0 lacks a value"),
        ([("a", "r", " ")], "row 0 lacks a value"),
        (np.array([[0.0, 1.0, 2.0]]), "convert the column to integers"),
        (pandas.DataFrame([["a", "r", "b", 1]], columns=["x", "y", "z", "n"]), "the columns are x, y, z, n"),
    ],
)
def test_what_is_no_triple_is_told(triples, told):
    with pytest.raises(UserError, match=told):
        KnowledgeGraph.from_triples(triples)


def test_shares_leave_every_entity_in_train_and_no_reverse_on_the_other_side(rows):
    everything = [row for part in rows.values() for row in part]
    both = everything + [(tail, "before", head) for head, word, tail in everything if word == "next"]
    graph = KnowledgeGraph.from_triples(both, valid=0.1, test=0.1, seed=3)
    assert len(graph.valid) == pytest.approx(0.1 * len(both), abs=2)
    assert len(graph.test) == pytest.approx(0.1 * len(both), abs=2)
    assert len(graph.train) + len(graph.valid) + len(graph.test) == len(both)
    assert set(graph.train[:, [0, 2]].ravel()) == set(range(len(graph.entities)))
    turns = {graph.relations.index("next"), graph.relations.index("before")}
    sides = [{frozenset((h, t)) for h, r, t in part.tolist() if r in turns} for part in graph.splits.values()]
    assert not sides[0] & (sides[1] | sides[2])
    assert not sides[1] & sides[2]


def test_by_pair_no_two_entities_stand_in_two_splits():
    rng = np.random.default_rng(0)
    triples = np.unique(
        np.stack([rng.integers(0, 12, 400), rng.integers(0, 5, 400), rng.integers(0, 12, 400)], 1), axis=0
    )
    for by_pair in (True, False):
        graph = KnowledgeGraph.from_triples(triples, test=0.2, valid=0.1, by_pair=by_pair)
        pairs = [{frozenset((h, t)) for h, _, t in part.tolist()} for part in graph.splits.values()]
        shared = pairs[0] & pairs[1] | pairs[0] & pairs[2] | pairs[1] & pairs[2]
        assert bool(shared) != by_pair


def test_by_time_the_latest_are_test_and_those_before_them_valid():
    years = np.random.default_rng(1).permutation(100) // 2
    frame = pandas.DataFrame({"head": np.arange(100) % 7, "relation": "r", "tail": np.arange(100) % 11, "year": years})
    graph = KnowledgeGraph.from_triples(frame, valid=0.1, test=0.2, time="year")
    expected = {
        "train": frame[years <= 34],
        "valid": frame[(years > 34) & (years <= 39)],
        "test": frame[years > 39],
    }
    for split, part in expected.items():
        names = [[graph.entities[h], graph.relations[r], graph.entities[t]] for h, r, t in graph.splits[split].tolist()]
        assert names == part[["head", "relation", "tail"]].astype(str).to_numpy().tolist()
    for time, told in (("month", "no column"), (years[:5], "shape"), (np.zeros(100), "too many times are equal")):
        with pytest.raises(UserError, match=told):
            KnowledgeGraph.from_triples(frame, test=0.2, time=time)
    for shares in (dict(test=1.5), dict(test=0.6, valid=0.5)):
        with pytest.raises(UserError, match=r"share|leaves none for training"):
            KnowledgeGraph.from_triples(frame, **shares)


def test_features_belong_to_the_entity_they_are_given_for():
    triples, lines = [("a", "r", "b"), ("b", "r", "c")], []
    vectors = {"c": [3.0, 4.0], "a": np.array([1.0, 2.0]), "elsewhere": [0.0, 0.0]}
    frame = pandas.DataFrame([[5.0, 6.0]], index=["b"])
    graph = KnowledgeGraph.from_triples(triples, features={"visual": vectors, "audio": frame}, notify=lines.append)
    audio, image = graph.modalities
    assert (audio.name, image.name) == ("audio", "image")
    assert image.features.tolist() == [[1, 2], [0, 0], [3, 4]]
    assert image.present.tolist() == [True, False, True]
    assert audio.features.tolist() == [[0, 0], [5, 6], [0, 0]]
    assert len(lines) == 1
    assert "'elsewhere'" in lines[0]
    ids = KnowledgeGraph.from_triples([(0, 0, 1), (1, 0, 2)], features={"image": np.arange(6).reshape(3, 2)})
    assert ids.modalities[0].features.tolist() == [[0, 1], [2, 3], [4, 5]]


def test_a_graph_in_memory_is_asked_for_modalities_in_any_of_their_words():
    triples = [(f"e{n}", "r", f"e{n + 1}") for n in range(40)]
    vectors = {f"e{n}": [n, 1.0] for n in range(41)}
    graph = KnowledgeGraph.from_triples(triples, features={"image": vectors, "sound": vectors})
    config, _ = parse(["--config.data.modalities=visual"], "")
    assert [one.name for one in load_dataset(config, graph=graph).graph.modalities] == ["image"]


def test_words_among_numbers_are_refused_with_a_cure_that_works():
    triples, frame = [("a", "r", "b")], pandas.DataFrame({"kind": ["town", "city"], "size": [1, 2]}, index=["a", "b"])
    with pytest.raises(UserError, match=r"numeric: 'kind' is 'town', not a number; .* as pandas\.get_dummies does"):
        KnowledgeGraph.from_triples(triples, features={"numeric": frame})
    graph = KnowledgeGraph.from_triples(triples, features={"numeric": pandas.get_dummies(frame)})
    # In the order of names: kind_city, kind_town, size; then which of them are given.
    assert graph.modalities[0].features.tolist() == [[-0.5, 0.5, -0.5, 1, 1, 1], [0.5, -0.5, 0.5, 1, 1, 1]]


def test_numbers_and_texts_are_prepared_as_those_of_files(folder, graph):
    numbers = {f"place {n}": {"group": n // 6, "place": n % 6 if n % 4 else None} for n in range(40)}
    lines = [
        "entity,group,place",
        *(f"{name},{row['group']},{'' if row['place'] is None else row['place']}" for name, row in numbers.items()),
    ]
    (folder.parent / "numbers.csv").write_text("\n".join(lines) + "\n")
    from mocme_jax.data.features.numeric_features import numeric_modality
    from mocme_jax.data.features.text_features import text_modality

    expected = numeric_modality(folder.parent / "numbers.csv", graph.entities), text_modality(graph.entities)
    for made, read in zip(graph.modalities, expected, strict=True):
        np.testing.assert_array_equal(made.features, read.features)
        np.testing.assert_array_equal(made.present, read.present)


def test_pictures_are_encoded_as_prepare_does(tmp_path):
    from PIL import Image

    from mocme_jax.data.features.entity_files import entity_files, files_modality

    for number, name in enumerate(("a", "b")):
        Image.new("RGB", (20, 20), (90 * number, 40, 200)).save(tmp_path / f"{name}.png")
    paths = {"a": tmp_path / "a.png", "b": [tmp_path / "b.png"]}
    graph = KnowledgeGraph.from_triples([("a", "r", "b"), ("b", "r", "c")], features={"image": paths})
    expected = files_modality("image", entity_files(tmp_path, graph.entities, "image")[0], 3)
    np.testing.assert_array_equal(graph.modalities[0].features, expected.features)


@pytest.mark.parametrize(
    ("features", "told"),
    [
        ({"image": np.ones((3, 2))}, "give {entity: row}"),
        ({"structure": {"a": [1.0]}}, "reserved for one of the model's own experts"),
        ({"image": {"a": [1.0]}, "visual": {"a": [1.0]}}, "given twice"),
        ({"image": {"a": [1.0], "b": [1.0, 2.0]}}, "differ in length"),
        ({"image": {"a": [1.0], "b": "text"}}, "files and vectors"),
        ({"text": {"a": [1.0], "b": "text"}}, "texts and vectors"),
        ({"image": {"z": [1.0]}}, "none of the names"),
        ({"image": {"a": "a.png"}}, r"a\.png: no such file"),
        ({"taste": {"a": "sweet"}}, "give texts under the name text"),
        ({"image": pandas.Series([[1.0], [2.0]], index=["a", "a"])}, "given twice, or by its name"),
        ({"image": 5}, "give {entity: row}"),
        ({"image": {}}, "is empty"),
        ({"image": "names"}, "accepted word"),
        ({"numeric": {"a": {"x": None}}}, "contains no number"),
        ({"smell": {"a": Path("a.wav")}}, "files are read only for image, audio, video"),
    ],
)
def test_features_that_do_not_fit_are_told(features, told):
    with pytest.raises(UserError, match=told):
        KnowledgeGraph.from_triples([("a", "r", "b"), ("b", "r", "c")], features=features, notify=lambda line: None)


def test_a_graph_that_is_saved_is_read_as_it_was(graph, tmp_path):
    numbers = KnowledgeGraph.from_triples([(7, "r", 3), (3, "r", 9)], features={"image": {"9": [1.0]}})
    for number, one in enumerate((graph, numbers)):
        one.save(tmp_path / str(number))
        read = KnowledgeGraph.from_folder(tmp_path / str(number), make=())
        assert read.fingerprints() == one.fingerprints()
    separators = KnowledgeGraph.from_triples([("a\u2028b", "r", "c\x85d\x0be\rf")])
    separators.save(tmp_path / "separators")
    assert KnowledgeGraph.from_folder(tmp_path / "separators", make=()).entities == separators.entities
    for name in ("a\tb", "a\nb", "a\0b"):
        with pytest.raises(UserError, match="cannot contain"):
            KnowledgeGraph.from_triples([(name, "r", "c")]).save(tmp_path / "refused")


def test_a_dataset_of_pykeen_keeps_its_ids():
    ids = dict(entity_to_id={"b": 1, "a": 0, "c": 2}, relation_to_id={"r": 0})
    training = types.SimpleNamespace(mapped_triples=np.array([[1, 0, 2], [0, 0, 1]]), numeric_literals=np.eye(3), **ids)
    testing = types.SimpleNamespace(mapped_triples=np.array([[2, 0, 0]]), **ids)
    graph = KnowledgeGraph.from_pykeen(types.SimpleNamespace(training=training, validation=None, testing=testing))
    assert graph.entities == ["a", "b", "c"]
    assert [part.tolist() for part in graph.splits.values()] == [[[1, 0, 2], [0, 0, 1]], [], [[2, 0, 0]]]
    assert graph.modalities[0].features.tolist() == np.eye(3).tolist()


def test_fit_gives_the_numbers_of_the_command(tiny_run):
    command = json.loads((tiny_run / "results.json").read_text())
    graph = KnowledgeGraph.from_folder(tiny_run.parent / "graph", modalities=("text", "numeric"))
    more = dict(epochs=12, eval_every=4, self_answers="seen", cardinality=0.5, train__patience=0)
    model = mocme_jax.fit(graph, **{**SMALL, **more})
    for part in ("dev", "test", "weights", "fingerprint", "graph"):
        expected = command[part] | {"name": "graph"} if part == "graph" else command[part]
        assert model.results[part] == expected, part


@pytest.mark.slow
def test_a_model_without_a_folder_answers_and_leaves_nothing(graph, capsys):
    model = mocme_jax.fit(graph, **SMALL)
    folder = model.workdir
    assert folder.is_dir()
    frame = model.complete(head="place 1", relation="next", k=3).to_frame()
    assert frame.columns.tolist() == ["rank", "id", "name", "label", "score", "probability", "known"]
    assert frame["rank"].tolist() == [1, 2, 3]
    many = model.complete(head=["place 1", "place 2"], relation="next", k=2).to_frame()
    assert many["query"].tolist() == [0, 0, 1, 1]
    assert model.neighbours("place 3", k=2).to_frame()["rank"].tolist() == [1, 2]
    scores = model.results.to_frame()
    assert scores["split"].tolist() == ["dev", "test"]
    assert scores["mrr"].tolist() == [model.results[split]["overall"]["mrr"] for split in ("dev", "test")]
    for thing in (model, graph, graph.modalities[0], model.results):
        assert len(repr(thing)) < 400
    del model
    gc.collect()
    assert not folder.exists()


def test_a_run_with_a_folder_is_found_again_by_load_and_by_the_command(graph, rows, tmp_path):
    model = mocme_jax.fit(graph, workdir=tmp_path / "run", **SMALL)
    assert (tmp_path / "run" / "MODEL_CARD.md").is_file()
    again = mocme_jax.load(tmp_path / "run")
    assert again.graph.fingerprints()[0] == model.graph.fingerprints()[0]
    questions = np.array([[1, 0], [5, 3]])
    np.testing.assert_array_equal(again.answer(questions, 5).ids, model.answer(questions, 5).ids)
    np.testing.assert_array_equal(again.answer(questions, 5).probability, model.answer(questions, 5).probability)
    other = KnowledgeGraph.from_triples(rows["train"][:-1])
    with pytest.raises(UserError, match="another graph"):
        mocme_jax.fit(other, workdir=tmp_path / "run", **SMALL)
    assert mocme_jax.load(tmp_path / "run").results == model.results


@pytest.mark.slow
def test_ctrl_c_is_a_keyboard_interrupt_and_the_same_call_goes_on(graph, tmp_path):
    whole = mocme_jax.fit(graph, workdir=tmp_path / "whole", **SMALL)
    seen = []

    def interrupted(numbers, epoch):
        seen.append((epoch, numbers["dev/mrr"]))
        if epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match=r"fit with workdir=.* continues"):
        mocme_jax.fit(graph, workdir=tmp_path / "run", on_evaluation=interrupted, **SMALL)
    assert signal.getsignal(signal.SIGINT) is before
    assert [epoch for epoch, _ in seen] == [2]
    model = mocme_jax.fit(graph, workdir=tmp_path / "run", **SMALL)
    assert model.results["test"] == whole.results["test"]
    rows = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert seen[0][1] == rows[0]["dev"]["mrr"]


@pytest.mark.parametrize(
    "flag",
    ["width=-1", "width=many", "score=complx", "dev_fraction=1.5", "patience=-3", "class_weights=1,2"],
)
def test_a_wrong_value_is_told_as_by_the_command(graph, flag, tmp_path):
    name, _, text = flag.partition("=")
    value = json.loads(text) if text.lstrip("-").replace(".", "").isdigit() else text
    with pytest.raises(UserError) as told:
        mocme_jax.fit(graph, **{name: (1.0, 2.0) if "," in text else value})
    with pytest.raises(UserError) as expected:
        parse([f"--config.{path_of(name)}={text}"], "")
    assert str(told.value) == str(expected.value)


def test_a_field_that_is_unknown_or_may_be_two_is_told(graph):
    for name, told in (("widht", "did you mean model.width"), ("model", "group of fields"), ("granularity", "gone|no")):
        with pytest.raises(UserError, match=rf"{told}"):
            mocme_jax.fit(graph, **{name: 8})


def test_commands_of_the_same_names_do_not_hide_the_functions():
    import mocme_jax.ablate
    import mocme_jax.search

    assert callable(mocme_jax.search)
    assert callable(mocme_jax.ablate)


@pytest.mark.slow
def test_search_and_ablate_take_a_graph_a_space_and_cells(graph, tmp_path):
    best = mocme_jax.search(
        graph, {"width": [8, 12]}, trials=2, workdir=tmp_path / "search", **{**SMALL, "epochs": 1, "eval_every": 1}
    )
    assert set(best) <= {"model__width"}
    cells = {"full": {}, "no text": {"modalities": ("numeric",)}}
    table = mocme_jax.ablate(graph, cells, seeds=2, **{**SMALL, "epochs": 1, "eval_every": 1})
    assert table.to_frame()["cell"].tolist() == ["full", "no text"]
    assert [row["seeds"] for row in table] == [2, 2]


def test_trackers_are_closed_once_however_fit_ends(graph):
    class Mine:
        closed = 0

        def log(self, numbers, epoch):
            raise AssertionError("nothing was trained")

        def close(self):
            self.closed += 1

    first, second = Mine(), Mine()
    with pytest.raises(UserError, match=r"negatives\.pool"):
        mocme_jax.fit(graph, pool=-1, trackers=[first, second])
    with pytest.raises(UserError, match="no such"):
        mocme_jax.fit("nowhere", trackers=[first])
    assert (first.closed, second.closed) == (2, 1)


@pytest.mark.slow
def test_trackers_take_the_numbers_of_each_evaluation(graph, monkeypatch):
    taken = {"wandb": [], "mlflow": []}
    run = types.SimpleNamespace(log=taken["wandb"].append, finish=lambda: taken["wandb"].append("end"))
    run.define_metric = lambda name, step_metric: None
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=lambda **options: run))
    started = types.SimpleNamespace(info=types.SimpleNamespace(run_id="1"))
    flow = types.SimpleNamespace(
        start_run=lambda **options: started,
        active_run=lambda: started,
        log_metrics=lambda numbers, step, run_id: taken["mlflow"].append({**numbers, "epoch": step}),
        end_run=lambda: taken["mlflow"].append("end"),
    )
    monkeypatch.setitem(sys.modules, "mlflow", flow)
    model = mocme_jax.fit(graph, trackers=[WeightsAndBiases(project="p"), MLflow()], **SMALL)
    for numbers in taken.values():
        assert [row if row == "end" else row["epoch"] for row in numbers] == [2, 4, "end"]
        assert max(row["dev/mrr"] for row in numbers[:2]) == model.results["dev"]["overall"]["mrr"]
    assert not any("@" in name for name in taken["mlflow"][0])

    def refused(numbers, epoch):
        raise ConnectionError("no server")

    with pytest.raises(ConnectionError, match="no server"):
        mocme_jax.fit(graph, on_evaluation=refused, **SMALL)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="pip install wandb"):
        WeightsAndBiases()
