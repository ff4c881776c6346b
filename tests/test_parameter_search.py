"""Searches: how points are drawn, which are pruned, what is kept and gone on with; mostly without any training."""

import math
import sys
import types

import numpy as np
import optuna
import pytest
from command_runner import assert_one_error, run_here
from tiny_graph import tiny_flags, write_tiny_graph

import mocme_jax
from mocme_jax.config import get_field
from mocme_jax.errors import UserError
from mocme_jax.flags import parse
from mocme_jax.studies import study
from mocme_jax.studies.parameter_search import by_score, search
from mocme_jax.studies.search_space import Log, Uniform, draw
from mocme_jax.studies.seed_training import START_UP, WARM_UP, Trained, train_seeds, why_pruned
from mocme_jax.studies.study_folder import read_rows
from mocme_jax.studies.tpe_sampler import TpeSampler
from mocme_jax.training.logs.progress import make_console
from mocme_jax.training.preemption import Preemption, Stopped
from mocme_jax.training.setup import builders

SPACE = {
    "train.learning_rate": Log(1e-3, 1.0),
    "loss.query_dropout": Uniform(0.0, 0.5),
    "model.width": [4, 8, 12, 16],
    "data.modalities": [("structure",), ("text",)],
}
OWN = {
    "train.learning_rate": 0.5,
    "loss.query_dropout": 0.1,
    "model.width": 12,
    "data.modalities": ("structure",),
}


def score(point):
    """The dev MRR of the stand-in for a training: best at a rate of .03 and width 8; the rest makes no difference."""
    miss = abs(math.log10(point["train.learning_rate"] / 0.03)) + 0.3 * (point["model.width"] != 8)
    return math.exp(-miss)


def row_of(changes, **more):
    mrr = score({**OWN, **changes})
    return {"changes": changes, "dev": {"mrr": mrr}, "curve": [[2, 0.6 * mrr], [4, mrr]], **more}


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    return write_tiny_graph(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def stand_in(monkeypatch):
    """Puts the stand-in in the place of training; returns what was trained, and the number at which Ctrl-C arrives."""
    state = {"trained": 0, "stop_at": None}

    def trained(config, dataset, seeds, folder, *, prune, **_):
        state["trained"] += 1
        if state["trained"] == state["stop_at"]:
            raise Stopped("stopped")
        mrr = score({path: get_field(config, path) for path in SPACE})
        curve = []
        row = {"seed": seeds[0], "weights": {}}
        for epoch in (2, 4, 6):
            curve.append([epoch, mrr * epoch / 6])
            row |= {"dev": {"mrr": curve[-1][1]}, "curve": curve, "best_epoch": epoch, "epochs": epoch}
            if prune and epoch < 6 and prune(curve):
                return [Trained(row | {"pruned": epoch}, None)]
        return [Trained(row, None)]

    monkeypatch.setattr(study, "train_seeds", trained)
    return state


def run_search(graph, folder, trials, *, space=SPACE, sampler="tpe", pruner="none", **fields):
    config, _ = parse(tiny_flags(graph, folder, **fields), "")
    return search(config, space, folder, trials=trials, minutes=9.0, sampler=sampler, pruner=pruner)


def kept(folder):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in read_rows(folder)]


def test_tpe_finds_the_best_region_more_often_than_chance():
    def hits(draw_one):
        rows, found = [], 0
        for number in range(1, 31):
            point = draw_one(number, rows)
            rows.append(row_of(point))
            found += number > 10 and 0.01 < point["train.learning_rate"] < 0.1 and point["model.width"] == 8
        return found

    by_tpe = by_chance = 0
    for seed in range(3):
        by_tpe += hits(TpeSampler(SPACE, seed, OWN).draw)
        by_chance += hits(lambda number, rows, seed=seed: draw(SPACE, seed, number))
    # A third of the rates, a quarter of the widths: 60 points by chance have 5 of them there.
    assert by_chance < 12
    assert by_tpe > 2 * by_chance


def test_points_are_in_the_space_and_short():
    # Ends that are longer than what is drawn, and a value that only JSON makes a list.
    space = {"train.learning_rate": Log(0.0123449, 0.0123451), "data.modalities": SPACE["data.modalities"]}
    sampler, rows = TpeSampler(space, 0, OWN), []
    for number in range(1, 15):
        point = sampler.draw(number, rows)
        assert point["train.learning_rate"] in (0.0123, 0.0124)
        assert point["data.modalities"] in space["data.modalities"]
        rows.append(row_of({**point, "data.modalities": list(point["data.modalities"])}))


def test_what_optuna_is_told(monkeypatch):
    told = []

    def create(*args, **options):
        told.append(optuna.study.create_study(*args, **options))
        return told[-1]

    monkeypatch.setattr(optuna, "create_study", create)
    optuna.logging.set_verbosity(optuna.logging.INFO)
    sampler = TpeSampler(SPACE, 0, OWN)
    points = [sampler.draw(number, []) for number in (1, 2)]
    rows = [row_of({}), row_of(points[0]), row_of(points[1], pruned=4)]
    sampler.draw(3, rows)
    own, first, second, asked = told[-1].trials
    states = optuna.trial.TrialState
    assert [trial.state for trial in told[-1].trials] == [*[states.COMPLETE] * 2, states.PRUNED, states.RUNNING]
    assert own.params == {**OWN, "model.width": 2, "data.modalities": 0}
    assert first.value == score(points[0])
    assert second.intermediate_values == dict(rows[2]["curve"])
    assert asked.params["train.learning_rate"] != second.params["train.learning_rate"]
    assert told[-1].direction == optuna.study.StudyDirection.MAXIMIZE
    # A config whose own value is outside of the space says nothing of it.
    TpeSampler(SPACE, 0, {**OWN, "model.width": 5}).draw(3, rows)
    assert len(told[-1].trials) == 3
    TpeSampler(SPACE, 0, {**OWN, "loss.query_dropout": 0.6}).draw(3, rows)
    assert len(told[-1].trials) == 3
    # What a caller set of Optuna's own messages stays.
    assert optuna.logging.get_verbosity() == optuna.logging.INFO


def test_importances_name_the_fields_that_matter():
    sampler = TpeSampler(SPACE, 0, OWN)
    rows = [row_of(draw(SPACE, 0, number)) for number in range(1, 61)]
    assert sampler.importances(rows[:9]) is None
    assert sampler.importances(rows[:9] + [{**row, "pruned": 2} for row in rows[9:]]) is None
    assert sampler.importances(rows[:10])[:2] == (5, 10)
    best, count, shares = sampler.importances(rows)
    assert (best, count) == (15, 60)
    assert list(shares)[:2] == ["train.learning_rate", "model.width"]
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["loss.query_dropout"] + shares["data.modalities"] < 0.2


def test_the_median_rule_is_that_of_numpy_and_of_optuna():
    rng, pruned, epochs = np.random.default_rng(0), 0, np.arange(2, 12, 2)

    def curve_of(fewest, height):
        count = rng.integers(fewest, 6)
        return [[int(epoch), height * float(mrr)] for epoch, mrr in zip(epochs[:count], rng.random(count), strict=True)]

    rule = optuna.pruners.MedianPruner(n_startup_trials=START_UP, n_warmup_steps=int(epochs[WARM_UP]))
    for _ in range(300):
        # Some of the finished ended early, so that not all have every epoch.
        finished, curve = [curve_of(2, 1.0) for _ in range(rng.integers(3, 9))], curve_of(1, 0.6)
        others = [dict(other)[curve[-1][0]] for other in finished if curve[-1][0] in dict(other)]
        below = len(others) > 0 and np.array(curve)[:, 1].max() < np.quantile(others, 0.5)
        expected = bool(below) and len(finished) >= 5 and len(curve) >= 2
        study = optuna.create_study(direction="maximize")
        for other in finished:
            study.add_trial(optuna.trial.create_trial(value=0.0, intermediate_values=dict(other)))
        running = dict(state=optuna.trial.TrialState.RUNNING, intermediate_values=dict(curve))
        trial = optuna.trial.create_trial(**running)
        assert (why_pruned(curve, finished) is not None) == expected == rule.prune(study, trial)
        pruned += expected
    assert 50 < pruned < 250
    assert why_pruned([[2, 0.1], [4, 0.25]], [[[4, mrr]] for mrr in (0.1, 0.2, 0.3, 0.4, 0.5)]) == (
        "its best dev MRR, 0.2500, is below 0.3000, the median of 5 finished points at this epoch"
    )


@pytest.mark.parametrize(("sampler", "pruner"), [("tpe", "median"), ("tpe", "none"), ("random", "median")])
def test_a_search_that_is_stopped_goes_on_to_the_same_points(sampler, pruner, graph, tmp_path, stand_in, capsys):
    options = dict(sampler=sampler, pruner=pruner)
    best = run_search(graph, tmp_path / "whole", 18, **options)
    whole = kept(tmp_path / "whole")
    assert len(whole) == 18
    printed = capsys.readouterr().out
    assert ("fields that set " in printed) == (sampler == "tpe" and sum("pruned" not in row for row in whole) >= 10)
    run_search(graph, tmp_path / "parts", 5, **options)
    stand_in["stop_at"] = stand_in["trained"] + 10
    with pytest.raises(Stopped):
        run_search(graph, tmp_path / "parts", 18, **options)
    assert kept(tmp_path / "parts") == whole[:14]
    before = stand_in["trained"]
    again = run_search(graph, tmp_path / "parts", 18, **options)
    assert kept(tmp_path / "parts") == whole
    assert stand_in["trained"] == before + 4
    assert again["changes"] == best["changes"]
    assert any("pruned" in row for row in whole) == (pruner == "median")
    finished = [row for row in whole if "pruned" not in row]
    assert best["dev"]["mrr"] == max(row["dev"]["mrr"] for row in finished)
    count = f"the best of {len(finished)}" + (f" (pruned: {18 - len(finished)})" if pruner == "median" else "")
    assert f"{count}: --config" in printed
    # With another seed there are other points.
    run_search(graph, tmp_path / "other", 18, **options, seed=2)
    other = kept(tmp_path / "other")
    assert all(mine["changes"] != theirs["changes"] for mine, theirs in zip(whole[1:3], other[1:3], strict=True))
    for rows in (whole, other):
        for number, row in enumerate(rows):
            # The third evaluation is the last, so that a point is judged at the second one alone.
            before = [dict(one["curve"])[4] for one in rows[:number] if "pruned" not in one]
            judged = pruner == "median" and len(before) >= 5
            assert ("pruned" in row) == (judged and dict(row["curve"])[4] < np.median(before))


def test_a_pruned_point_is_never_the_best():
    rows = [{"dev": {"mrr": 0.3}}, {"dev": {"mrr": 0.9}, "pruned": 4}, {"dev": {"mrr": 0.5}}]
    assert by_score(rows) == [rows[2], rows[0]]


def test_another_search_in_the_folder_is_refused(graph, tmp_path, stand_in, monkeypatch, capsys):
    folder = tmp_path / "search"
    run_search(graph, folder, 2, sampler="random")
    before = kept(folder)
    for options, words in (
        ({"sampler": "tpe"}, r"another sampler \(random there, tpe now\); undo the change"),
        ({"pruner": "median"}, r"another pruner \(none there, median now\)"),
        ({"space": {**SPACE, "model.width": [4, 8]}}, r"space.model.width \(\[4, 8, 12, 16\] there, \[4, 8\] now\)"),
        ({"space": {**SPACE, "loss.query_dropout": Log(0.1, 0.5)}}, r"Uniform\(.* there, Log\(.* now\)"),
        ({"seed": 1}, "config differs in seed"),
    ):
        with pytest.raises(UserError, match=words):
            run_search(graph, folder, 3, **{"sampler": "random", **options})
    assert kept(folder) == before
    flags = tiny_flags(graph, folder)
    status = run_here("ablate", *flags, "--study=components", monkeypatch=monkeypatch)
    assert_one_error(status, capsys.readouterr().err, "contains a search, not a study; give another folder")
    # Tuples are lists in JSON, and how many points there are is no part of a search.
    run_search(graph, folder, 3, sampler="random", space={**SPACE, "model.width": (4, 8, 12, 16)})
    assert len(kept(folder)) == 3


def test_without_optuna_points_are_drawn_at_random_alone(graph, tmp_path, stand_in, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    run_search(graph, tmp_path / "search", 2, sampler="random", pruner="median")
    flags = tiny_flags(graph, tmp_path / "none")
    status = run_here("search", *flags, "--sampler=tpe", monkeypatch=monkeypatch)
    assert_one_error(status, capsys.readouterr().err, "--sampler=tpe needs the package optuna, version 5", "[search]")
    assert not (tmp_path / "none").exists()
    status = run_here("search", *flags, "--sampler=tep", monkeypatch=monkeypatch)
    assert_one_error(status, capsys.readouterr().err, "expected one of random, tpe; did you mean tpe?")
    monkeypatch.setitem(sys.modules, "optuna", types.SimpleNamespace(__version__="4.9.0"))
    with pytest.raises(UserError, match="version 5 or later; run: "):
        TpeSampler(SPACE, 0, OWN)


def test_a_search_from_python_checks_what_it_is_asked_for(graph):
    with pytest.raises(UserError, match=r"sampler: bayes is not allowed, expected one of random, tpe"):
        mocme_jax.search(graph, SPACE, sampler="bayes")
    with pytest.raises(UserError, match=r"pruner: medain is not allowed.*did you mean median"):
        mocme_jax.search(graph, SPACE, pruner="medain")
    with pytest.raises(UserError, match=r"trials: 0 is not allowed, expected at least 1"):
        mocme_jax.search(graph, SPACE, trials=0)


@pytest.mark.slow
def test_a_training_that_is_pruned_ends_there_also_after_a_stop(graph, tmp_path, capsys):
    config, _ = parse(tiny_flags(graph, tmp_path, train__epochs=5, train__eval_every=1), "")
    dataset = builders.load_dataset(config)

    def train(name, prune, preemption=None):
        options = dict(preemption=preemption, console=make_console(), test=False, prune=prune)
        return train_seeds(config, dataset, [0], tmp_path / name, **options)[0].row

    whole = train("whole", None)
    seen = []

    def at_three(curve):
        seen.append([list(point) for point in curve])
        return "why" if len(curve) == 3 else None

    row = train("pruned", at_three)
    assert row["pruned"] == row["epochs"] == 3
    assert row["curve"] == whole["curve"][:3]
    assert seen == [whole["curve"][:count] for count in (1, 2, 3)]
    assert row["dev"]["mrr"] == max(mrr for _, mrr in row["curve"]) == dict(map(tuple, row["curve"]))[row["best_epoch"]]
    assert row["dev"].keys() == whole["dev"].keys()
    assert row["weights"].keys() == whole["weights"].keys()
    assert "pruned at epoch 3: why\n" in capsys.readouterr().out
    # A kill before the row is written: the evaluation is made, and judged, again.
    assert train("pruned", at_three) == row
    preemption = Preemption()

    def stop_at_two(curve):
        preemption.requested = len(curve) == 2

    with pytest.raises(Stopped):
        train("parts", stop_at_two, preemption)
    assert train("parts", at_three) == row
    # After the last evaluation there is nothing to save.
    finished = train("last", lambda curve: "why" if len(curve) == 5 else None)
    assert finished == whole
