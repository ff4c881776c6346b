"""Runs from end to end through the command lines: what they leave, going on, refusals, devices."""

import json
import re
import shlex
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_runner import assert_one_error, contents, run_here, run_process
from tiny_graph import NO_JUMPS, tiny_flags, write_tiny_graph

from mocme_jax.config import config_from_dict
from mocme_jax.config_fields import FIELDS
from mocme_jax.training.logs.metrics_log import read_metrics
from mocme_jax.training.setup import builders
from mocme_jax.training.setup.settings import warning_of_memory

pytestmark = pytest.mark.slow
FULL = {"data__modalities": "text,numeric"}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Compiled programs are shared by the runs of this file, and the user's own cache is left alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def graph(tmp_path_factory) -> Path:
    return write_tiny_graph(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def finished(graph, tmp_path_factory):
    """The workdir of a finished run of the full model, and what the command printed; for reading only."""
    folder = tmp_path_factory.mktemp("finished")
    result = run_process("train", *tiny_flags(graph, folder / "run", **FULL), folder=folder)
    assert result.returncode == 0, result.stderr
    return folder / "run", result


def read_results(workdir: Path) -> dict:
    return json.loads((workdir / "results.json").read_text(encoding="utf-8"))


def untimed(rows: list[dict]) -> list[dict]:
    return [{name: value for name, value in row.items() if name != "speed"} for row in rows]


def scores(results: dict) -> dict:
    """What must repeat exactly: everything but the settings and the time it took."""
    run = {name: value for name, value in results["run"].items() if name != "minutes"}
    return {**results, "run": run, "config": None}


def test_a_run_leaves_results_metrics_and_checkpoints(finished):
    workdir, result = finished
    assert result.stderr == ""
    assert {path.name for path in workdir.iterdir()} >= {"results.json", "metrics.jsonl", "last", "best"}
    assert "tiny: 48 entities, 3 relations" in result.stdout
    assert "results.json" in result.stdout
    *rows, last = read_metrics(workdir)
    assert [row["epoch"] for row in rows] == [2, 4]
    assert [row["step"] for row in rows] == [8, 16]
    for row in rows:
        train, weights = row["train"], row["weights"]
        assert {"loss/total", "loss/ranking", "loss/regularisation", "norm/gradient", "norm/parameters"} <= train.keys()
        assert all(np.isfinite(value) for value in train.values())
        shares = [train[f"negatives/share_{kind}"] for kind in ("easy", "ambiguous", "hard")]
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert min(shares) >= 0
        assert sum(train[f"negatives/weight_{kind}"] for kind in ("easy", "ambiguous", "hard")) == pytest.approx(1)
        assert row["dev"].keys() == {"count", "mrr", "mr", "hits@1", "hits@3", "hits@10"}
        assert row["dev"]["count"] == 10
        assert 0 < row["dev"]["mrr"] <= 1 <= row["dev"]["mr"] <= 48
        assert list(weights) == ["structure", "numeric", "text", "joint expert"]
        assert all(0 < share < 1 for share in weights.values())
        assert sum(weights.values()) == pytest.approx(1, abs=1e-5)
        # Only a fusion that is fitted on train is fitted in the steps.
        assert "information" not in train
        assert row["speed"]["triples/s"] > 0
        assert row["speed"]["queries/s"] > 0
    assert rows[1]["train"]["loss/total"] < rows[0]["train"]["loss/total"]

    results = read_results(workdir)
    assert last == {"test": results["test"]["overall"]}
    assert results["dev"]["overall"] == max((row["dev"] for row in rows), key=lambda dev: dev["mrr"])
    assert results["run"]["epoch"] == 4
    assert results["graph"]["triples"] == {"train": 126, "valid": 5, "test": 5}
    assert results["graph"]["dev"] == "released valid split"
    assert results["config"]["train"]["epochs"] == 4
    assert len(results["fingerprint"]) == 64
    tails, heads = (results["test"]["groups"]["direction"][name] for name in ("tail", "head"))
    assert tails["count"] == heads["count"] == 5
    assert results["test"]["overall"]["mrr"] == pytest.approx((tails["mrr"] + heads["mrr"]) / 2, abs=1e-12)
    for warning in results["warnings"]:
        assert f"warning: {warning}" in result.stdout


def test_a_finished_run_only_repeats_its_results(finished, graph, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished[0], workdir)
    before = contents(workdir)
    result = run_process("train", *tiny_flags(graph, workdir, **FULL), folder=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert "test" in result.stdout
    assert "epoch 2/4" not in result.stdout
    after = contents(workdir)
    same = {"results.json", "metrics.jsonl"} | {name for name in before if name.startswith(("best", "last"))}
    assert {name: after.get(name) for name in same} == {name: before[name] for name in same}


def test_a_stopped_run_goes_on_to_the_same_numbers(finished, graph, tmp_path, monkeypatch, capsys):
    workdir = tmp_path / "run"
    cases = (2, "epoch 2/2"), (3, "step 8 (epoch 2 finished)"), (4, "resuming after step 12 (epoch 3 finished)")
    for epochs, words in cases:
        flags = tiny_flags(graph, workdir, **FULL, train__epochs=epochs)
        assert run_here("train", *flags, monkeypatch=monkeypatch) == 0
        assert words in capsys.readouterr().out
    rows, expected = read_metrics(workdir), read_metrics(finished[0])
    # Epoch 3 was evaluated too, which fits weights on dev. That must leave no trace in the training.
    assert [row.get("epoch") for row in rows] == [2, 3, 4, None]
    assert untimed([rows[0], rows[3]]) == untimed([expected[0], expected[2]])
    for name in ("dev", "weights"):
        assert rows[2][name] == expected[1][name]
    assert rows[2]["train"]["norm/parameters"] == expected[1]["train"]["norm/parameters"]
    found, results = scores(read_results(workdir)), scores(read_results(finished[0]))
    # One evaluation more was without a better dev MRR.
    assert found["run"].pop("stale") == results["run"].pop("stale") + 1 == 2
    assert found == results


def test_evaluate_repeats_the_numbers_and_tells_when_they_differ(finished, graph, tmp_path, monkeypatch, capsys):
    before = contents(finished[0])
    result = run_process("evaluate", f"--workdir={finished[0]}", folder=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert "the same numbers as" in result.stdout
    assert contents(finished[0]) == before

    workdir, moved = tmp_path / "run", tmp_path / "moved"
    shutil.copytree(finished[0], workdir)
    shutil.copytree(graph, moved)
    flags = [f"--workdir={workdir}", f"--data-dir={moved}"]
    assert run_here("evaluate", *flags, "--json", "--protocol=openke", monkeypatch=monkeypatch) == 0
    printed = capsys.readouterr()
    results, again = read_results(workdir), json.loads(printed.out)
    openke = again.pop("openke")
    assert openke["test"]["strict"] == results["test"]["overall"]
    assert openke["test"]["openke"]["mrr"] >= results["test"]["overall"]["mrr"]
    assert "openke" not in (workdir / "results.json").read_text()
    # The checkpoint is of the best epoch, and the run went on.
    assert again["run"]["best_epoch"] == again["run"]["epoch"] == results["run"]["best_epoch"]
    assert scores(again | {"run": {}}) == scores(results | {"run": {}})
    # Results of a version with fewer groupings are the same; other numbers are not, in whatever part.
    del results["test"]["groups"]["two_entities"]
    (workdir / "results.json").write_text(json.dumps(results))
    assert run_here("evaluate", *flags, monkeypatch=monkeypatch) == 0
    assert "the same numbers as" in capsys.readouterr().out
    for part in (results["test"]["overall"], results["dev"]["clean"], results["test"]["groups"]["direction"]["head"]):
        before, part["mrr"] = part["mrr"], part["mrr"] + 1e-12
        (workdir / "results.json").write_text(json.dumps(results))
        assert run_here("evaluate", *flags, monkeypatch=monkeypatch) == 1
        assert "NOT the numbers" in capsys.readouterr().out
        part["mrr"] = before
    (moved / "test.txt").write_text((moved / "valid.txt").read_text())
    status = run_here("evaluate", *flags, monkeypatch=monkeypatch)
    assert_one_error(status, capsys.readouterr().err, "another graph", "--data-dir")


def test_evaluate_tells_what_each_modality_adds(finished, monkeypatch, capsys):
    flags = [f"--workdir={finished[0]}", "--information"]
    assert run_here("evaluate", *flags, monkeypatch=monkeypatch) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "information about dev answers that each modality adds to the others" in printed
    assert "the same numbers as" in printed
    assert run_here("evaluate", *flags, "--json", monkeypatch=monkeypatch) == 0
    information = json.loads(capsys.readouterr().out)["information"]
    everything, relations = information["modalities"], information["relations"]
    # Held-out triples are of these relations alone.
    assert relations
    assert set(relations) <= {"next", "opposite"}
    assert set(everything) == {"structure", "text", "numeric"}
    assert list(information["experts"]) == ["structure", "numeric", "text", "joint expert"]
    weights = information["weights"]
    told = f"{weights['fitted']:.4f} with the fitted weights, {weights['before']:.4f} with the weights before the fit"
    assert f"dev MRR: {told}" in printed
    assert weights["fitted"] == json.loads((finished[0] / "results.json").read_text())["dev"]["overall"]["mrr"]
    assert weights["gain"] == pytest.approx(weights["fitted"] - weights["before"])
    for name, added in everything.items():
        parts = [one[name] for one in relations.values()]
        assert added["triples"] == sum(part["triples"] for part in parts) == 5
        assert added["nats"] == pytest.approx(sum(part["nats"] * part["triples"] for part in parts) / 5)


DIFFERENCES = {
    "graph": "another graph or other features: train triples differs",
    "features": "another graph or other features: modality text differs",
    "config": "config differs in model.width (8 there, 16 now), seed (0 there, 3 now)",
}


@pytest.mark.parametrize("other", DIFFERENCES)
def test_a_workdir_of_another_run_is_refused_untouched(other, finished, graph, tmp_path, monkeypatch, capsys):
    workdir, changed = tmp_path / "run", tmp_path / "changed"
    shutil.copytree(finished[0], workdir)
    shutil.copytree(graph, changed)
    fields = dict(FULL)
    if other == "graph":
        lines = (changed / "train.txt").read_text().splitlines(keepends=True)
        (changed / "train.txt").write_text("".join(lines[:-1]) + "place 7\tnext\tplace 9\n")
    elif other == "features":
        np.save(changed / "text.npy", 2 * np.load(changed / "text.npy"))
    else:
        fields |= {"model__width": 16, "seed": 3}
    before = contents(workdir)
    status = run_here("train", *tiny_flags(changed, workdir, **fields), monkeypatch=monkeypatch)
    assert_one_error(status, capsys.readouterr().err, str(workdir), DIFFERENCES[other], "--workdir")
    assert contents(workdir) == before


def test_a_run_goes_on_without_a_feature_file_that_was_added(finished, graph, tmp_path, monkeypatch, capsys):
    workdir, grown = tmp_path / "run", tmp_path / "grown"
    shutil.copytree(finished[0], workdir)
    shutil.copytree(graph, grown)
    np.save(grown / "audio.npy", np.random.default_rng(0).normal(size=(48, 3)).astype(np.float32))
    before = json.loads((workdir / "results.json").read_text(encoding="utf-8"))
    flags = tiny_flags(grown, workdir, data__modalities="all")
    status = run_here("train", *flags, monkeypatch=monkeypatch)
    told = capsys.readouterr().err
    assert_one_error(status, told, "modality audio differs", "--config.data.modalities=numeric,text", "--workdir")
    cure = re.search(r"--config\.data\.modalities=\S+?(?=,? )", told)[0]
    assert run_here("train", *flags, cure, monkeypatch=monkeypatch) == 0
    after = json.loads((workdir / "results.json").read_text(encoding="utf-8"))
    assert after["test"] == before["test"]
    assert run_here("train", *flags, "--config.data.modalities=text", monkeypatch=monkeypatch) == 2
    assert "modality numeric differs; restore them" in capsys.readouterr().err


def test_the_number_of_devices_does_not_matter(graph, tmp_path, monkeypatch, capsys):
    rows = {}
    for devices in (1, 4):
        workdir = tmp_path / str(devices)
        fields = {"data__modalities": "text", "train__epochs": 2, "parallel__devices": devices}
        fields |= NO_JUMPS
        assert run_here("train", *tiny_flags(graph, workdir, **fields), monkeypatch=monkeypatch) == 0
        assert f"{devices} device" in capsys.readouterr().out
        rows[devices] = read_metrics(workdir)
    for one, many in zip(rows[1], rows[4], strict=True):
        assert many.keys() == one.keys()
        for group in one.keys() & {"train", "dev", "test"}:
            assert many[group] == pytest.approx(one[group], rel=2e-4, abs=1e-6)


@pytest.mark.parametrize(
    ("devices", "words"), [(0, "multiple of 8"), (4, "must be a multiple"), (64, "only 8 cpu devices")]
)
def test_devices_that_do_not_fit(devices, words, finished, graph, tmp_path, monkeypatch, capsys):
    """The batch, or the machine; what an earlier run left stays, and a new one leaves nothing."""
    size = 64 if devices == 64 else 30
    fields = {"train__batch_size": size, "parallel__devices": devices}
    shutil.copytree(finished[0], tmp_path / "old")
    before = contents(tmp_path / "old")
    for workdir in (tmp_path / "new", tmp_path / "old"):
        status = run_here("train", *tiny_flags(graph, workdir, **fields), monkeypatch=monkeypatch)
        assert_one_error(status, capsys.readouterr().err, words)
    assert not (tmp_path / "new").exists()
    assert contents(tmp_path / "old") == before


def test_a_batch_larger_than_the_graph_is_cut_and_the_command_that_goes_on_works(graph, tmp_path, monkeypatch, capsys):
    triples = len((graph / "train.txt").read_text(encoding="utf-8").splitlines())
    workdir = tmp_path / "my run"
    flags = tiny_flags(graph, workdir, train__batch_size=100_000, train__epochs=1)
    assert run_here("train", *flags, monkeypatch=monkeypatch) == 0
    printed = capsys.readouterr().out
    assert f"train.batch_size is {triples}, not 100,000: the graph has {triples} training triples\n" in printed
    assert read_results(workdir)["config"]["train"]["batch_size"] == triples
    # The only epoch is the best and the last.
    (line,) = (line for line in printed.splitlines() if "the best epoch is the last one" in line)
    command = shlex.split(line.partition("may help: ")[2])
    assert command[1:3] == ["-m", "mocme_jax.train"]
    assert run_here("train", *command[3:], monkeypatch=monkeypatch) == 0
    assert "resuming after step 1 (epoch 1 finished)" in capsys.readouterr().out
    assert read_results(workdir)["run"]["epoch"] == 2


def test_a_best_epoch_before_the_last_has_no_command_to_go_on(finished):
    workdir, result = finished
    run = read_results(workdir)["run"]
    assert ("the best epoch is the last one" in result.stdout) == (run["best_epoch"] == run["epoch"])


@pytest.mark.parametrize(
    ("work", "fields", "cure"),
    [
        # The pool and both ends of the batch's triples: 16 + 2 * 32.
        ("training", {}, "is 32, and each query is scored against 80 candidates)"),
        ("training", {"negatives__batch_candidates": "false"}, "scored against 16 candidates), negatives.pool or"),
        ("training", {"negatives__pool": 1000}, "scored against 48 candidates), negatives.pool or model.width\n"),
        ("scoring", {}, "take more devices with parallel.shard_entities, or lower model.width"),
    ],
)
def test_memory_that_runs_out_is_one_line_that_names_a_field(work, fields, cure, graph, tmp_path, monkeypatch, capsys):
    def too_much(*_):
        return jnp.zeros(10**13).block_until_ready()

    if work == "training":
        monkeypatch.setattr("mocme_jax.training.setup.builders.make_train_program", lambda *_, **__: too_much)
    else:
        monkeypatch.setattr("mocme_jax.evaluation.evaluator.Ranker", lambda *_, **__: too_much)
    status = run_here("train", *tiny_flags(graph, tmp_path / "run", **fields), monkeypatch=monkeypatch)
    told = capsys.readouterr().err
    assert_one_error(status, told, "out of memory", "40,000.0 GB", cure)
    assert ("or set negatives.batch_candidates=false" in told) == (work == "training" and not fields)


def test_scores_that_fill_a_device_are_warned_of_before_training():
    """2 x 16,384 queries against a pool of 1,024 and both ends of the batch: 32,768 x 33,792 numbers of 4 bytes."""
    config = config_from_dict({"train": {"batch_size": 16_384}, "negatives": {"pool": 1024}})
    told = warning_of_memory(config, 10**6, 1)
    assert "32,768 queries against 33,792 candidates, which takes 4.4 GB" in told
    assert "or set negatives.batch_candidates=false" in told
    assert "takes 2.2 GB" in warning_of_memory(config, 10**6, 2)
    assert warning_of_memory(config, 10**6, 8) is None
    config.negatives.batch_candidates = False
    assert warning_of_memory(config, 10**6, 1) is None


def build(graph: Path, **sections):
    """The config, dataset, model, devices, training, and a train call of so many steps."""
    sections = {
        "data": {"name": "tiny", "dir": str(graph), "modalities": ["text"]},
        "model": {"width": 8, "expert_hidden": 4} | sections.pop("model", {}),
        "negatives": {"pool": 16} | sections.pop("negatives", {}),
        **sections,
    }
    config = config_from_dict(sections)
    dataset = builders.load_dataset(config)
    model = builders.build_model(config, dataset.graph)
    mapper = builders.build_mapper(config)
    training = builders.build_training(config, model, dataset.graph, mapper)
    train = lambda state, steps: training.program(state, training.data, jnp.int32(steps))  # noqa: E731
    return config, dataset, model, mapper, training, train


# Every word of every choice stands here at least once; the defaults run in the tests above.
ABLATIONS = [
    {
        "negatives": {"weighting": "uniform", "reference": "absolute", "sampling": "entropy"},
        "loss": {"kind": "logistic", "margin": 2.0},
        "model": {"score": "rotate", "fusion": "complementarity", "self_answers": "seen"},
        "parallel": {"mapper": "none"},
    },
    {
        "negatives": {"weighting": "self_adversarial", "sampling": "uniform"},
        "loss": {"regulariser": "l2"},
        "model": {"score": "transe", "fusion": "gate", "experts": 2, "self_answers": "seen"},
        "parallel": {"mapper": "shard_map", "devices": 4, "shard_entities": True},
    },
    {
        "negatives": {"confident": "entropy", "sampling": "entropy"},
        "model": {"score": "distmult", "fusion": "mean", "self_answers": "all"},
        "parallel": {"mapper": "pmap", "devices": 2},
    },
    {
        "train": {"precision": "tf32"},
        "negatives": {"confident": "false_negative", "weights_in": "gradient", "many": 2},
        "loss": {"query_dropout": 0.2, "regulariser": "dura"},
        "model": {"score": "tucker", "fusion": "attention", "core_width": 4},
    },
    {
        "model": {"fusion": "gate"},
        "negatives": {"weighting": "unsorted", "confident": "hard", "weights_in": "sum"},
    },
    {
        "model": {"score": "complex", "fusion": "attention", "experts": 3},
        "negatives": {"weighting": "entropy", "reference": "relative"},
        "loss": {"kind": "softmax", "regulariser": "n3"},
        "train": {"precision": "float32", "adagrad": "elementwise"},
    },
    {
        "model": {"fusion": "complementarity"},
        "train": {"precision": "bfloat16", "adagrad": "rowwise"},
    },
    {
        "model": {"score": "complex", "fusion": "relation_gate", "experts": 2},
        "parallel": {"mapper": "pmap", "devices": 2, "shard_entities": True},
    },
    {
        "model": {"score": "transe", "fusion": "vector_mean"},
    },
    {
        "model": {"score": "complex", "fusion": "vector_attention"},
        "parallel": {"mapper": "shard_map", "devices": 2, "shard_entities": True},
    },
]
CHOICES = [path for path, field in FIELDS.items() if field.choices and not path.startswith("data.")]


def test_the_ablations_below_name_every_choice():
    for path in CHOICES:
        section, name = path.split(".")
        named = {case[section][name] for case in ABLATIONS if name in case.get(section, {})}
        assert named == set(FIELDS[path].choices), path


@pytest.mark.parametrize("case", ABLATIONS, ids=lambda case: "-".join(map(str, case["model"].values())))
def test_every_ablation_trains(case, graph):
    sections = {name: dict(fields) for name, fields in case.items()}
    sections["parallel"] = {"devices": 1} | sections.get("parallel", {})
    sections["train"] = {"batch_size": 32} | sections.get("train", {})
    *_, training, train = build(graph, **sections)
    state = training.plan.create()
    before = jax.tree.map(np.array, state.params)
    state, metrics = train(state, 2)
    metrics = {name: float(value) for name, value in metrics.items()}
    assert all(map(np.isfinite, metrics.values())), metrics
    assert metrics["norm/gradient"] > 0
    moved = jax.tree.map(lambda old, new: bool(np.any(old != np.asarray(new))), before, state.params)
    assert moved.model["params"]["relation"]
    assert moved.structure
    assert all(bool(np.isfinite(leaf).all()) for leaf in jax.tree.leaves(state.params))


def test_a_tiny_graph_is_learnt_by_heart(graph):
    config, dataset, model, mapper, training, train = build(
        graph,
        model={"width": 64, "fusion": "mean"},
        negatives={"pool": 48, "weighting": "uniform"},
        loss={"regularisation": 0.0},
        train={"batch_size": 63},
        parallel={"devices": 1},
    )
    state = training.plan.create()
    for _ in range(60):
        state, _ = train(state, 2)
    vectors, _ = builders.build_encode(config, model, dataset.graph, mapper, ())(state.params, training.inputs)
    evaluator = builders.build_evaluator(config, model, dataset, mapper)
    assert (evaluator.ranks(state.params.model, vectors, "train") == 1).all()
