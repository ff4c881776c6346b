"""Weights & Biases and MLflow themselves, where they are installed: both write to a folder, without a server."""

import contextlib

import pytest

import mocme_jax
from mocme_jax.training.logs.trackers import MLflow, WeightsAndBiases

SMALL = dict(width=8, pool=16, batch_size=32, epochs=4, eval_every=2, patience=0, devices=1)
# A modality may be called anything.
STRANGE = "numbers (€) + more"


@pytest.fixture(scope="module")
def graph():
    rows = [(f"place {n}", "next", f"place {(n + 1) % 24}") for n in range(24)]
    vectors = {name: {f"place {n}": [n, n % 5] for n in range(24)} for name in (STRANGE, "image")}
    return mocme_jax.KnowledgeGraph.from_triples(rows, valid=0.1, test=0.1, features=vectors)


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    before = mlflow.get_tracking_uri()
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/runs.db")
    yield mlflow
    while mlflow.active_run() is not None:
        mlflow.end_run()
    mlflow.set_tracking_uri(before)


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    if not hasattr(wandb, "init"):
        pytest.skip("wandb is a folder here, and no package")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    yield wandb
    wandb.teardown()


def runs_of(mlflow):
    return mlflow.search_runs(experiment_ids=["0"], output_format="list")


@pytest.mark.slow
def test_mlflow_holds_the_numbers_of_each_evaluation(graph, mlflow):
    rows = {}
    mocme_jax.fit(graph, trackers=[MLflow(run_name="mine")], on_evaluation=lambda n, e: rows.update({e: n}), **SMALL)
    (run,) = runs_of(mlflow)
    assert (run.info.run_name, run.info.status) == ("mine", "FINISHED")
    assert sorted(rows) == [2, 4]
    client = mlflow.MlflowClient()
    names = {name: name.replace("@", "_at_").replace(STRANGE, "numbers ___ _ more") for name in rows[2]}
    assert set(names.values()) == set(run.data.metrics)
    for name, other in names.items():
        history = [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, other)]
        assert history == [(epoch, pytest.approx(row[name], rel=1e-9)) for epoch, row in rows.items()], name
    assert any("numbers ___" in name for name in names.values())


@pytest.mark.slow
def test_weights_and_biases_holds_the_numbers_of_each_evaluation(graph, wandb, tmp_path):
    tracker, rows, held = WeightsAndBiases(project="tiny"), {}, {}

    def compare(numbers, epoch):
        # What W&B holds of a run is gone from this process once it has ended.
        rows[epoch] = dict(numbers) | {"epoch": epoch}
        held[epoch] = {name: value for name, value in dict(tracker._run.summary).items() if not name.startswith("_")}

    mocme_jax.fit(graph, trackers=[tracker], on_evaluation=compare, **SMALL)
    assert sorted(rows) == [2, 4]
    assert held == rows
    assert wandb.run is None
    assert len(list(tmp_path.glob("wandb/offline-run-*/*.wandb"))) == 1


def test_a_fit_that_is_refused_ends_the_run(graph, mlflow):
    for _ in range(2):
        with pytest.raises(mocme_jax.UserError, match=r"negatives\.pool"):
            mocme_jax.fit(graph, pool=-1, trackers=[MLflow()])
    assert [run.info.status for run in runs_of(mlflow)] == ["FINISHED", "FINISHED"]


def test_a_run_inside_of_another_leaves_that_one_alone(mlflow):
    with mlflow.start_run() as outer:
        tracker = MLflow(nested=True)
        with mlflow.start_run(nested=True) as inner:
            tracker.log({"dev/mrr": 0.5}, 3)
        tracker.close()
        tracker.close()
        assert mlflow.active_run().info.run_id == outer.info.run_id
    logged = {run.info.run_id: run.data.metrics for run in runs_of(mlflow)}
    assert logged[outer.info.run_id] == logged[inner.info.run_id] == {}
    assert sorted(map(len, logged.values())) == [0, 0, 1]


def test_weights_and_biases_may_be_closed_twice(wandb):
    tracker = WeightsAndBiases(project="tiny")
    with contextlib.closing(tracker):
        tracker.log({"dev/hits@1": 0.5}, 3)
        assert tracker._run.summary["dev/hits@1"] == 0.5
        tracker.close()
    assert wandb.run is None
