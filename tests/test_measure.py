"""The benchmark's figures and the plan's, against programs that really run."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_runner import assert_one_error, contents, environment, run_here
from tiny_graph import tiny_flags, write_tiny_graph

from mocme_jax.config import default_config, load_config
from mocme_jax.errors import UserError
from mocme_jax.measure.host_memory import device_share, host_need
from mocme_jax.measure.memory_plan import Sizes, collective_bytes, need, on_cpus
from mocme_jax.measure.throughput import synthetic_graph
from mocme_jax.measure.timed_stages import Calibration, evaluation_stages
from mocme_jax.parallel.mesh import Mapper
from mocme_jax.training.logs.run_results import read_results
from mocme_jax.training.setup import builders
from mocme_jax.training.setup.settings import schedule_of, with_fields


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_as_for_users")
@pytest.mark.parametrize(("kind", "count", "split"), [("pmap", 1, False), ("shard_map", 4, True)])
def test_the_planned_memory_is_the_compiled_programs(kind, count, split):
    """Within a tenth, of a training that could run: its arrays where they lie, and its program's temporaries."""
    config = default_config()
    config.parallel.mapper, config.parallel.devices, config.parallel.shard_entities = kind, count, split
    config.model.width, config.negatives.pool, config.train.batch_size = 32, 64, 32
    graph = synthetic_graph(3000, relations=500, feature_width=20)
    mapper, model = builders.build_mapper(config), builders.build_model(config, graph)
    training = builders.build_training(config, model, graph, mapper)
    state = training.plan.create()
    analysis = training.program.lower(state, training.data, jnp.int32(1)).compile().memory_analysis()
    planned = need(config, Sizes(3000, 500, len(graph.train), (20,)), Mapper("shard_map", count))
    one = jax.local_devices()[0]
    # More than the program's arguments without the number of steps: what it does not read is held too.
    held = sum(
        shard.data.nbytes
        for leaf in jax.tree.leaves((state, training.data))
        for shard in leaf.addressable_shards
        if shard.device == one
    )
    assert held + 4 >= analysis.argument_size_in_bytes
    step = sum(planned.parts.values()) + planned.stages["a training step"]
    assert step == pytest.approx(held + analysis.temp_size_in_bytes, rel=0.1)
    # A row of both experts.
    table = 4 * 2 * 32 * 3000 / (count if split else 1)
    assert planned.parts["entity table"] == pytest.approx(table, rel=0.01)
    assert (planned.collective > 0) == (count > 1)


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_as_for_users")
def test_a_large_graph_is_evaluated_without_its_vectors(monkeypatch):
    """Encoded at once, two vectors of 64 numbers per entity are held; in blocks, nothing grows with the entities."""
    config, mapper = default_config(), Mapper("shard_map", 2)
    config.model.width, config.negatives.pool, config.train.batch_size = 32, 64, 32
    config.parallel.shard_entities, config.parallel.mapper = True, "shard_map"
    found = []
    for entities, most in ((20_000, 1 << 30), (20_000, 0), (80_000, 0)):
        monkeypatch.setattr("mocme_jax.training.setup.builders.ENCODED_BYTES", most)
        found.append(need(config, Sizes(entities, 5, 1000, (20,), 100), mapper).stages["an evaluation and a save"])
    assert found[0] > 2 * 4 * 64 * 20_000 / 2
    assert found[1] < found[0] / 2
    assert found[2] == pytest.approx(found[1], rel=0.05)


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_as_for_users")
@pytest.mark.parametrize("saves", [True, False])
def test_a_training_peaks_where_the_plan_says(saves, tmp_path):
    """The memory of a real process, whose two CPU devices are part of it, with saves in between and without."""
    maker = Path(__file__).parents[1] / "docs" / "studies" / "large-graph" / "make_graph.py"
    sizes = ["--entities=6e4", "--triples=1e5", "--held=200", f"--out={tmp_path / 'graph'}"]
    subprocess.run([sys.executable, maker, *sizes], check=True)
    changes = {
        **{"parallel.devices": 2, "parallel.mapper": "shard_map", "parallel.shard_entities": True},
        **{"model.width": 128, "train.batch_size": 2048, "negatives.pool": 256, "train.epochs": 1},
        **{"train.eval_every": 1, "negatives.batch_candidates": False, "model.cardinality": 0},
        "train.save_minutes": 0.02 if saves else 1000.0,
        **{"data.dir": str(tmp_path / "graph"), "data.features_dir": str(tmp_path / "graph")},
    }
    config = with_fields(load_config("atlas")[0], changes)
    flags = [f"--config.{path}={value}" for path, value in changes.items()]
    # The peak of the process itself: getrusage also counts what its parent held when it started the process.
    peak = "print(*[line for line in open('/proc/self/status') if line.startswith('VmHWM')], file=open('peak', 'w'))"
    train = (
        f"import atexit, runpy; atexit.register(lambda: {peak}); runpy.run_module('mocme_jax.train', None, '__main__')"
    )
    command = [sys.executable, "-c", train, f"--workdir={tmp_path / 'run'}", *flags]
    devices = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    subprocess.run(command, env=environment() | devices, cwd=tmp_path, stdout=subprocess.DEVNULL, check=True)
    measured = 1024 * int((tmp_path / "peak").read_text(encoding="utf-8").split()[1])
    planned = need(config, Sizes(60_000, 500, 100_000, (64,), 200), Mapper("shard_map", 2))
    host = host_need(config, Sizes(60_000, 500, 100_000, (64,)), planned.saved, processes=1)
    assert schedule_of(config, 100_000).saves_while_training(1.0) == saves
    total = on_cpus(planned, host, 2, saves=saves)
    # How much of a save overlaps with a step depends on the machine, and programs from the compilation cache need less
    # than those that are compiled: 1.20 to 1.28 GB were measured for 1.38 planned, without saves 1.06 to 1.20 for 1.13.
    assert 0.85 * total < measured < 1.1 * total


def test_the_processes_of_a_node_share_the_features():
    """Of 1,000 entities with 20 columns: 80 kB are counted once."""
    host = host_need(default_config(), Sizes(1000, 5, 100, (20,)), 10**6, processes=4)
    assert host.of_node(1) == host.total
    assert 4 * host.total - host.of_node(4) == 3 * 80_000


@pytest.mark.parametrize(
    ("kind", "fraction", "share"),
    [("h100", None, 0.75), ("h100", "0.9", 0.9), ("tpu-v4", "0.9", 1.0), (None, "much", 0.75), ("h100", "7", 0.75)],
)
def test_jax_takes_a_share_of_a_device(kind, fraction, share):
    assert device_share(kind, fraction) == share


@pytest.mark.slow
def test_the_plan_tells_the_fewest_devices_that_fit(tmp_path, monkeypatch, capsys):
    """A table of 2 million rows of 4 numbers for each of two experts is .064 GB.

    With its optimizer state, its average, a copy for a checkpoint of pmap, and both vectors of every entity, one device
    needs .74 GB, and two need .37 GB each, of which JAX takes three quarters.
    """
    monkeypatch.chdir(tmp_path)
    flags = ["--entities=2e6", "--triples=1000", "--relations=5", "--modalities=4", "--config.model.width=4"]
    flags += ["--config.parallel.shard_entities=True", "--config.train.batch_size=32"]
    row = {"stage": "train", "rate": 500.0, "unit": "triples/s", "share": 0.5}
    rate = {"device": "cpu", "rows": [row]}
    (tmp_path / "rate.json").write_text(json.dumps(rate), encoding="utf-8")
    flags += ["--config.negatives.pool=16", "--benchmark=rate.json"]
    flags += ["--config.negatives.sampling=uniform"]
    for memory, words in (
        (["--memory=0.6"], "2 devices of 0.6 GB are enough"),
        ([], "1 device of 80 GB is enough (JAX takes 75% of the memory)"),
    ):
        monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
        assert run_here("plan", *flags, *memory, monkeypatch=monkeypatch) == 0
        printed = capsys.readouterr().out
        assert words in printed
        assert "settings of atlas, width 4, batch 32" in printed
        assert "32 steps, 0.00 hours at 500 triples/s" in printed
    for flag, words in (("--device=tpu-v5", "tpu-v5e"), ("--memory=0", "memory"), ("--benchmark=no.json", "no.json")):
        assert_one_error(run_here("plan", *flags, flag, monkeypatch=monkeypatch), capsys.readouterr().err, words)


def test_collectives_are_counted_from_the_text():
    text = """
  %a = f32[8,256]{1,0} all-gather(f32[2,256]{1,0} %x), dimensions={0}
  ROOT %b = (f32[3]{0}, s32[2,2]{1,0}) all-reduce(f32[3]{0} %y, s32[2,2]{1,0} %z)
  %c = f32[100]{0} add(f32[100]{0} %x, f32[100]{0} %x)
"""
    assert collective_bytes(text) == 4 * (8 * 256 + 3 + 4)


def test_the_roofline_is_the_longer_of_two_times():
    limits = Calibration(flops=100.0, bytes=10.0)
    assert limits.roofline(50, 1) == 0.5
    assert limits.roofline(50, 20) == 2


def test_synthetic_graphs_have_the_sizes_asked_for():
    graph = synthetic_graph(5000, relations=9, feature_width=3)
    assert len(graph.entities) == 5000
    assert graph.train.shape == (100_000, 3)
    assert (graph.train.max(axis=0) < [5000, 9, 5000]).all()
    assert graph.train.min() == 0
    assert graph.modalities[0].features.shape == (5000, 3)
    assert not synthetic_graph(2_000_000, feature_width=0).modalities
    np.testing.assert_array_equal(graph.train, synthetic_graph(5000, relations=9, feature_width=3).train)


@pytest.fixture
def quick_limits(monkeypatch):
    """A device's limits, really measured, but on small arrays: here they need be no more than positive."""
    monkeypatch.setattr("mocme_jax.measure.timed_stages._SIZES", (128,))
    monkeypatch.setattr("mocme_jax.measure.timed_stages._COPIED_BYTES", 1 << 20)


def test_the_operations_of_an_evaluation_grow_with_the_width_of_the_vectors(tmp_path):
    """By formula, products and reads of scores: the products are linear in the width, whatever the devices hold."""
    graph, found = write_tiny_graph(tmp_path / "graph"), []
    for width in (8, 16):
        config = default_config()
        config.data.dir, config.model.width, config.parallel.devices = str(graph), width, 2
        *_, evaluation = evaluation_stages(config, builders.load_dataset(config))
        # On each of two devices, 10 queries read the scores of 24 of the 48 entities.
        found.append(evaluation.cost.flops - 2 * 10 * 24)
    assert found[1] == 2 * found[0] > 0


@pytest.mark.slow
@pytest.mark.usefixtures("quick_limits")
def test_the_benchmark_prints_saves_and_compares(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = tiny_flags(write_tiny_graph(tmp_path / "graph"), tmp_path / "run", parallel__devices=0)
    flags += ["--devices=1,2", "--steps=2", "--repeats=2", "--json=one.json"]
    assert run_here("benchmark", *flags, monkeypatch=monkeypatch) == 0
    figures = json.loads((tmp_path / "one.json").read_text(encoding="utf-8"))
    stages = ["train, full model", "train, structure alone", "encode all entities", "filtered evaluation"]
    assert [row["stage"] for row in figures["rows"]] == 2 * stages
    assert [row["devices"] for row in figures["rows"]] == 4 * [1] + 4 * [2]
    for row in figures["rows"]:
        assert min(row["rate"], row["ms"], row["GFLOP"], row["GB held"], row["roofline ms"]) > 0, row
        assert row["ms p95"] >= row["ms"] * 0.99
        assert row["best"] >= row["rate"] * 0.99
        assert row["share"] == pytest.approx(row["roofline ms"] / row["ms"])
    printed = capsys.readouterr().out
    assert "GFLOP/s" in printed
    assert "filtered evaluation" in printed
    assert not (tmp_path / "run").exists()

    for row in figures["rows"]:
        row["rate"] *= 2
    (tmp_path / "two.json").write_text(json.dumps(figures), encoding="utf-8")
    assert run_here("benchmark", "--compare=one.json,two.json", monkeypatch=monkeypatch) == 0
    printed = capsys.readouterr().out
    assert printed.count(" 2.00 ") == 8
    assert printed.count(" 1.00 ") == 8
    (tmp_path / "bad.json").write_text("{}", encoding="utf-8")
    for name, words in (("bad.json", "is not a file of benchmark --json"), ("none.json", "no such file")):
        status = run_here("benchmark", f"--compare=one.json,{name}", monkeypatch=monkeypatch)
        assert_one_error(status, capsys.readouterr().err, name, words)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["step", "evaluation"])
def test_growth_is_measured_in_turns(what, monkeypatch, capsys):
    script = Path(__file__).parents[1] / "docs" / "studies" / "large-graph" / "measure_growth.py"
    flags = ["--entities=500,1000", "--width=8", "--batch=16", "--pool=16", "--steps=1", "--held=10", "--repeats=2"]
    monkeypatch.setattr(sys, "argv", [str(script), what, *flags])
    runpy.run_path(str(script), run_name="__main__")
    printed = capsys.readouterr().out
    assert "1,000" in printed
    assert {"step": "ms per step", "evaluation": "ns per query"}[what] in printed


@pytest.mark.slow
@pytest.mark.usefixtures("quick_limits")
def test_growth_is_measured_on_synthetic_graphs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = ["--entities=500,1000", "--steps=1", "--repeats=1", "--json=growth.json", "--config.parallel.devices=2"]
    flags += ["--config.model.width=8", "--config.train.batch_size=16"]
    flags += ["--config.parallel.shard_entities=True"]
    monkeypatch.setattr("mocme_jax.training.setup.builders.DENSE_ENTITIES", 10)
    assert run_here("benchmark", *flags, monkeypatch=monkeypatch) == 0
    rows = json.loads((tmp_path / "growth.json").read_text(encoding="utf-8"))["rows"]
    assert [(row["stage"], row["entities"]) for row in rows] == [("train", 500), ("train", 1000)]
    assert "1,000" in capsys.readouterr().out


ROW = {"stage": "train", "unit": "triples/s", "rate": 100.0, "share": 0.5, "devices": 1}
BAD_FIGURES = {
    "no text": (b"\xff\xfe", "line 1 is not UTF-8 text"),
    "nested": (b"[" * 100_000 + b"]" * 100_000, "is not JSON (nested too deeply)"),
    "long number": (b'{"rows": ' + b"9" * 5000 + b"}", "is not JSON"),
    "twice": (b'{"device": "a", "device": "b"}', "'device' is given twice"),
    "too long": (b" " * (1 << 23), "is 8,388,608 bytes long, but such a file may have at most 4,194,304"),
    "rows are a text": (json.dumps({"device": "x", "rows": "rows"}).encode(), "has rows that benchmark --json"),
    **{
        f"{name} is {value!r:.20}": (
            json.dumps({"device": "x", "rows": [ROW | {name: value}]}).encode(),
            "has rows that benchmark --json does not write",
        )
        for name, value in [("rate", "fast"), ("rate", float("nan")), ("rate", 0), ("rate", 10**400), ("mapper", [])]
    },
    "device is a number": (json.dumps({"device": 3, "rows": [ROW]}).encode(), "is not a file of benchmark --json"),
}


@pytest.mark.parametrize("case", BAD_FIGURES)
def test_figures_of_a_stranger(case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    content, word = BAD_FIGURES[case]
    (tmp_path / "one.json").write_text(json.dumps({"device": "x", "rows": [ROW]}), encoding="utf-8")
    (tmp_path / "bad.json").write_bytes(content)
    before = contents(tmp_path)
    for command, flag in (("benchmark", "--compare=one.json,bad.json"), ("plan", "--benchmark=bad.json")):
        status = run_here(command, flag, monkeypatch=monkeypatch)
        assert_one_error(status, capsys.readouterr().err, "bad.json", word)
    assert contents(tmp_path) == before


def test_figures_cannot_write_on_the_terminal(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    row = ROW | {"stage": "[/b]\x1b[2Jtrain", "mapper": "\ud800"}
    (tmp_path / "one.json").write_text(json.dumps({"device": "[red]\n", "rows": [row]}), encoding="utf-8")
    assert run_here("benchmark", "--compare=one.json,one.json", monkeypatch=monkeypatch) == 0
    printed = capsys.readouterr().out
    assert r"[/b]\x1b[2Jtrain 1 \ud800" in printed
    assert "\x1b" not in printed
    assert "[red]" in printed


@pytest.mark.parametrize("content", [b"\xff", b"[]", b'{"dev":1}', b'{"dev":1,"test":1,"device":3}', b"[" * 9999])
def test_results_that_are_none(content, tmp_path):
    assert read_results(tmp_path) is None
    (tmp_path / "results.json").write_bytes(content)
    with pytest.raises(UserError, match=r"results\.json: (is not JSON|does not contain the results of a run)"):
        read_results(tmp_path)
