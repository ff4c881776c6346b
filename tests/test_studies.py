"""Studies from end to end on a small graph: seeds together as alone, what is kept, going on, the table, refusals."""

import io
import json
import re
import signal

import numpy as np
import pytest
from command_runner import assert_one_error, run_here, start
from tiny_graph import NO_JUMPS, tiny_flags, write_tiny_graph

from mocme_jax.config import baseline_of, bundled_configs, get_field
from mocme_jax.config_fields import FIELDS
from mocme_jax.errors import UserError
from mocme_jax.flags import parse
from mocme_jax.studies.degraded_graph import without_rows
from mocme_jax.studies.parameter_search import load_space
from mocme_jax.studies.search_space import draw
from mocme_jax.studies.seed_training import train_seeds
from mocme_jax.studies.study import change_dataset, changed, fields_of, load_cells
from mocme_jax.studies.study_folder import read_rows
from mocme_jax.training.logs.progress import make_console
from mocme_jax.training.loop import Loop
from mocme_jax.training.preemption import Preemption
from mocme_jax.training.run import train_and_evaluate
from mocme_jax.training.setup import builders

STUDIES = ("baselines", "beside", "components", "missing", "negatives", "noise", "sparse")
STUDY = """
def get_cells(config, modalities, alone):
    return {"full": {}, "plain": {"negatives.weighting": "uniform"}, "structure alone": alone}
"""


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    return write_tiny_graph(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def study_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "parts.py"
    path.write_text(STUDY)
    return path


class Told(io.StringIO):
    """What is printed, and a function that sees each line as it is."""

    def __init__(self, react=lambda line: None):
        super().__init__()
        self.react = react

    def write(self, text):
        self.react(text)
        return super().write(text)

    @property
    def lines(self):
        return self.getvalue().splitlines()


def train(graph, folder, seeds, told=None, preemption=None, **fields):
    config, _ = parse(tiny_flags(graph, folder, **fields), "")
    console = make_console(told or Told())
    return train_seeds(config, builders.load_dataset(config), seeds, folder, preemption=preemption, console=console)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "compared"),
    [
        # Of the whole model one of the two is enough: tracing it takes long.
        ({"data__modalities": "text,numeric"}, [3]),
        ({"train__average": 8.0, "parallel__devices": 2, "train__patience": 1}, [0, 3]),
    ],
)
def test_a_seed_does_in_company_what_it_does_alone(graph, tmp_path, fields, compared):
    fields = {"data__modalities": "text", "train__epochs": 6, "train__eval_every": 1, **NO_JUMPS, **fields}
    together = train(graph, tmp_path / "lanes", [0, 3], **fields)
    for trained, seed in zip(together, (0, 3), strict=True):
        if seed not in compared:
            continue
        config, workdir = parse(tiny_flags(graph, tmp_path / f"run{seed}", seed=seed, **fields), "")
        alone = train_and_evaluate(config, workdir)
        row = trained.row
        assert row["seed"] == seed
        assert row["best_epoch"] == alone["run"]["best_epoch"]
        assert row["epochs"] == alone["run"]["epoch"] == row["curve"][-1][0]
        # Products of lanes are added up in another order.
        assert row["dev"]["mrr"] == pytest.approx(alone["dev"]["overall"]["mrr"], abs=2e-3)
        assert row["test"]["mrr"] == pytest.approx(alone["test"]["overall"]["mrr"], abs=2e-3)
        assert row["weights"] == pytest.approx(alone["weights"], rel=1e-3)
        assert (1 / trained.ranks).mean() == pytest.approx(row["test"]["mrr"])
    assert together[0].row["curve"] != together[1].row["curve"]


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "modalities"), [([0, 1], "text"), ([1], "structure")])
def test_a_training_that_was_stopped_goes_on_to_the_same_end(seeds, modalities, graph, tmp_path):
    fields = {"data__modalities": modalities, "train__epochs": 4, "train__eval_every": 1}
    whole = train(graph, tmp_path / "whole", seeds, **fields)
    preemption = Preemption()

    def stop_after_two(line):
        preemption.requested = preemption.requested or line.startswith("epoch 2/")

    with pytest.raises(BaseException, match="stopped after step 8 of 16"):
        train(graph, tmp_path / "parts", seeds, Told(stop_after_two), preemption, **fields)
    told = Told()
    rest = train(graph, tmp_path / "parts", seeds, told, **fields)
    assert told.lines[0].startswith("resuming after step 8 (epoch 2 finished) from ")
    assert [line[:7] for line in told.lines if line.startswith("epoch")] == ["epoch 3", "epoch 4"]
    assert [one.row for one in rest] == [one.row for one in whole]
    for one, other in zip(rest, whole, strict=True):
        np.testing.assert_array_equal(one.ranks, other.ranks)


def poisoned_from(steps_by_lane, monkeypatch):
    """From a step on, a lane's relations are not numbers."""
    undisturbed = Loop._train

    def poisoned(self, state, steps):
        for lane, step in steps_by_lane.items():
            if self.position.step >= step:
                relation = state.params.model["params"]["relation"]
                state.params.model["params"]["relation"] = relation.at[lane].set(np.nan)
        return undisturbed(self, state, steps)

    monkeypatch.setattr(Loop, "_train", poisoned)


@pytest.mark.slow
def test_seeds_that_diverge_end_alone(graph, tmp_path, monkeypatch):
    """One at once, one later. The others come to the same numbers as without, also where they stop after that."""
    seeds = [0, 1, 2, 3]
    fields = {"train__epochs": 4, "train__eval_every": 1}
    fields |= {"train__average": 8.0, "train__save_minutes": 1e-9}
    undisturbed = train(graph, tmp_path / "undisturbed", seeds, **fields)
    poisoned_from({1: 0, 3: 8}, monkeypatch)
    told, preemption = Told(), Preemption()

    def stop_after_three(line):
        preemption.requested = preemption.requested or line.startswith("epoch 3/")

    together = train(graph, tmp_path / "together", seeds, told, **fields)
    assert [together[n].row for n in (0, 2)] == [undisturbed[n].row for n in (0, 2)]
    for n in (0, 2):
        np.testing.assert_array_equal(together[n].ranks, undisturbed[n].ranks)
    at_once, later = (line for line in told.lines if "not finite" in line)
    assert at_once == "seed 1: step 1 (epoch 1): the loss or its gradient is not finite; it counts as failed"
    assert later.startswith("seed 3: step 9 (epoch 3): the loss or its gradient is not finite; its best epoch, ")
    for n, step in ((1, 0), (3, 8)):
        assert together[n].row["diverged"] == step + 1
        assert together[n].row["curve"] == undisturbed[n].row["curve"][: step // 4]
    assert together[1].row["dev"] == {"mrr": 0.0}
    assert together[1].ranks is None
    row = together[3].row
    assert row["dev"]["mrr"] == max(mrr for _, mrr in row["curve"])
    assert row["test"]["mrr"] > 0
    with pytest.raises(BaseException, match="stopped after step 12 of 16"):
        train(graph, tmp_path / "parts", seeds, Told(stop_after_three), preemption, **fields)
    rest = train(graph, tmp_path / "parts", seeds, told, **fields)
    assert [one.row for one in rest] == [one.row for one in together]


@pytest.mark.slow
def test_a_seed_whose_scores_are_not_finite_ends_alone(graph, tmp_path, monkeypatch):
    fields = {"train__epochs": 4, "train__eval_every": 1, "train__average": 0.0}
    undisturbed = train(graph, tmp_path / "undisturbed", [0, 1], **fields)
    evaluate = Loop._evaluate

    def poisoned(self, state):
        if self.position.step == 12:
            state = state._replace(params=state.params._replace(structure=state.params.structure.at[0].set(np.nan)))
        return evaluate(self, state)

    monkeypatch.setattr(Loop, "_evaluate", poisoned)
    told = Told()
    first, second = train(graph, tmp_path / "together", [0, 1], told, **fields)
    assert second.row == undisturbed[1].row
    assert first.row["diverged"] == 12
    assert [epoch for epoch, _ in first.row["curve"]] == [1, 2]
    assert len([line for line in told.lines if line.startswith("seed 0: ")]) == 1


@pytest.mark.slow
def test_a_study_of_a_seed_that_diverges(graph, study_file, tmp_path, monkeypatch, capsys):
    """It tells how many did, and differences are over the seeds that both cells have."""
    poisoned_from({1: 0}, monkeypatch)
    flags = [*tiny_flags(graph, tmp_path / "study"), f"--study={study_file}", "--seeds=3", "--cells=full"]
    assert run_here("ablate", *flags, monkeypatch=monkeypatch) == 0
    monkeypatch.undo()
    assert run_here("ablate", *flags[:-1], "--cells=plain", monkeypatch=monkeypatch) == 0
    full, plain = json.loads((tmp_path / "study" / "table.json").read_text())["rows"]
    rows = {(row["cell"], row["seed"]): row for row in read_rows(tmp_path / "study")}
    assert (full["seeds"], full["diverged"]) == (3, 1)
    assert "diverged" not in plain
    assert full["dev"]["mean"] == pytest.approx(sum(rows["full", seed]["dev"]["mrr"] for seed in range(3)) / 3)
    assert full["test"]["mean"] == pytest.approx(np.mean([rows["full", seed]["test"]["mrr"] for seed in (0, 2)]))
    pairs = [rows["plain", seed]["test"]["mrr"] - rows["full", seed]["test"]["mrr"] for seed in (0, 2)]
    assert plain["difference"] == pytest.approx(np.mean(pairs), abs=1e-6)
    assert "diverged" in capsys.readouterr().out


@pytest.mark.slow
def test_a_study_keeps_rows_and_a_table_and_never_runs_a_cell_again(graph, study_file, tmp_path, monkeypatch, capsys):
    flags = [*tiny_flags(graph, tmp_path / "study"), f"--study={study_file}"]
    assert run_here("ablate", *flags, "--seeds=1", "--cells=plain", monkeypatch=monkeypatch) == 0
    assert [(row["cell"], row["seed"]) for row in read_rows(tmp_path / "study")] == [("full", 0), ("plain", 0)]
    assert run_here("ablate", *flags, "--seeds=2", monkeypatch=monkeypatch) == 0
    rows = read_rows(tmp_path / "study")
    assert sorted((row["cell"], row["seed"]) for row in rows) == sorted(
        (cell, seed) for cell in ("full", "plain", "structure alone") for seed in (0, 1)
    )
    assert rows[1]["changes"] == {"negatives.weighting": "uniform"}
    assert rows[-1]["changes"]["data.modalities"] == ["structure"]
    assert rows[-1]["weights"] == {"structure": 1.0}
    table = json.loads((tmp_path / "study" / "table.json").read_text())
    assert table["reference"] == "full"
    assert [row["cell"] for row in table["rows"]] == ["full", "plain", "structure alone"]
    by_cell = {name: [row["test"]["mrr"] for row in rows if row["cell"] == name] for name in ("full", "plain")}
    plain = table["rows"][1]
    assert plain["test"]["mean"] == pytest.approx(np.mean(by_cell["plain"]))
    assert plain["test"]["deviation"] == pytest.approx(np.std(by_cell["plain"], ddof=1))
    assert plain["difference"] == pytest.approx(np.mean(by_cell["plain"]) - np.mean(by_cell["full"]), abs=1e-6)
    assert 0 <= plain["p"] <= 1
    assert table["rows"][0]["difference"] == 0
    assert "clean_p" not in plain
    described = json.loads((tmp_path / "study" / "study.json").read_text())
    assert described["study"] == str(study_file)
    assert described["cells"].keys() == {"full", "plain", "structure alone"}
    told = " ".join(capsys.readouterr().out.split())
    # No column that is not explained.
    assert "means ± standard deviation over seeds; difference: test MRR minus that of full; p: p-value of" in told
    before = (tmp_path / "study" / "rows.jsonl").read_bytes()
    assert run_here("ablate", *flags, "--seeds=2", monkeypatch=monkeypatch) == 0
    assert (tmp_path / "study" / "rows.jsonl").read_bytes() == before
    assert "cell 1" not in capsys.readouterr().out


@pytest.mark.slow
def test_rows_that_train_holds_are_left_out_of_a_second_difference(study_file, tmp_path, monkeypatch, capsys):
    leaking = write_tiny_graph(tmp_path / "leaking")
    held = (leaking / "train.txt").read_text().splitlines(keepends=True)
    with open(leaking / "test.txt", "a") as file:
        file.writelines(held[:20])
    flags = [*tiny_flags(leaking, tmp_path / "study"), f"--study={study_file}", "--cells=structure alone"]
    assert run_here("ablate", *flags, "--seeds=2", monkeypatch=monkeypatch) == 0
    rows = read_rows(tmp_path / "study")
    # Of the rows the evaluator has told the clean ones, of the table the study.
    clean = {name: [row["clean"]["mrr"] for row in rows if row["cell"] == name] for name in ("full", "structure alone")}
    assert {row["clean"]["count"] for row in rows} == {10}
    assert {row["test"]["count"] for row in rows} == {50}
    full, alone = json.loads((tmp_path / "study" / "table.json").read_text())["rows"]
    expected = np.mean(clean["structure alone"]) - np.mean(clean["full"])
    assert alone["clean_difference"] == pytest.approx(expected, abs=1e-6)
    assert abs(alone["clean_difference"] - alone["difference"]) > 1e-6
    assert 0 <= alone["clean_p"] <= 1
    assert full["clean_difference"] == 0
    printed = capsys.readouterr().out
    assert f"{alone['clean_difference']:+.4f}" in printed
    assert "clean rows: test triples that are not in train\n" in printed


@pytest.mark.slow
def test_a_test_that_train_holds_whole_has_no_clean_score(study_file, tmp_path, monkeypatch):
    leaking = write_tiny_graph(tmp_path / "leaking")
    (leaking / "test.txt").write_text("".join((leaking / "train.txt").read_text().splitlines(keepends=True)[:6]))
    flags = [*tiny_flags(leaking, tmp_path / "study"), f"--study={study_file}", "--cells=plain", "--seeds=1"]
    assert run_here("ablate", *flags, monkeypatch=monkeypatch) == 0
    rows = json.loads((tmp_path / "study" / "table.json").read_text())["rows"]
    assert len(rows) == 2
    assert all("test" in row and "clean" not in row and "clean_p" not in row for row in rows)


@pytest.mark.slow
def test_half_a_row_is_made_again(graph, study_file, tmp_path, monkeypatch):
    flags = [*tiny_flags(graph, tmp_path / "study"), f"--study={study_file}", "--seeds=1", "--cells=plain"]
    assert run_here("ablate", *flags, monkeypatch=monkeypatch) == 0
    path = tmp_path / "study" / "rows.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    assert run_here("ablate", *flags, monkeypatch=monkeypatch) == 0
    first, second = (json.loads(line) for line in (whole.splitlines()[-1], path.read_bytes().splitlines()[-1]))
    first.pop("seconds"), second.pop("seconds")
    assert first == second


@pytest.mark.slow
def test_ctrl_c_saves_and_the_same_command_goes_on(graph, study_file, tmp_path, monkeypatch, capsys):
    flags = [*tiny_flags(graph, tmp_path / "study", train__epochs=4000), f"--study={study_file}", "--seeds=1"]
    process = start("ablate", *flags, folder=tmp_path)
    while not re.match("epoch +2/", line := process.stdout.readline()):
        assert line, process.stderr.read()
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 75
    assert stderr == ""
    assert "rerun the same command to resume" in stdout
    assert read_rows(tmp_path / "study") == []
    assert list((tmp_path / "study" / "under_way").iterdir())


@pytest.mark.slow
def test_a_search_looks_at_dev_alone_and_is_kept(graph, tmp_path, monkeypatch, capsys):
    space = tmp_path / "space.py"
    space.write_text(
        "from mocme_jax.studies.search_space import Log\n"
        "def get_space(config):\n"
        "    return {'loss.regularisation': Log(0.01, 0.1), 'train.batch_size': [8, 16]}\n"
    )
    flags = [*tiny_flags(graph, tmp_path / "search"), f"--space={space}"]
    assert run_here("search", *flags, "--trials=2", monkeypatch=monkeypatch) == 0
    before = read_rows(tmp_path / "search")
    assert run_here("search", *flags, "--trials=3", monkeypatch=monkeypatch) == 0
    rows = read_rows(tmp_path / "search")
    assert rows[:2] == before
    assert [row["cell"] for row in rows] == ["as it is", "trial 1", "trial 2"]
    assert all("test" not in row for row in rows)
    for row in rows[1:]:
        assert 0.01 <= row["changes"]["loss.regularisation"] <= 0.1
        assert row["changes"]["train.batch_size"] in (8, 16)
    printed = capsys.readouterr().out
    assert "the best of 3: " in printed
    assert re.search(r"\bchanged\s+fields\b", printed)
    # To the last digit, so that what is printed trains the same.
    line = re.search(r"point 3 of 3: trial 2 (.*)", printed)[1]
    again, _ = parse([*tiny_flags(graph, tmp_path / "search"), *line.split()], "")
    assert {path: get_field(again, path) for path in rows[-1]["changes"]} == rows[-1]["changes"]
    assert run_here("search", *flags, "--trials=9", "--minutes=0.0001", monkeypatch=monkeypatch) == 0
    assert "no further point is started" in capsys.readouterr().out
    assert len(read_rows(tmp_path / "search")) == 3


@pytest.mark.slow
def test_a_point_that_diverges_counts_as_the_worst(graph, tmp_path, monkeypatch, capsys):
    space = tmp_path / "space.py"
    space.write_text("def get_space(config):\n    return {'train.table_learning_rate': [1e12]}\n")
    flags = [*tiny_flags(graph, tmp_path / "search"), f"--space={space}", "--trials=2"]
    assert run_here("search", *flags, monkeypatch=monkeypatch) == 0
    fine, worst = read_rows(tmp_path / "search")
    assert "diverged" not in fine
    assert (worst["diverged"], worst["dev"], worst["best_epoch"]) == (2, {"mrr": 0.0}, 0)
    assert "step 2 (epoch 1): the loss or its gradient is not finite; it counts as failed" in capsys.readouterr().out


def test_every_bundled_study_fits_every_config():
    from mocme_jax.config import load_config

    assert tuple(bundled_configs("studies")) == STUDIES
    for study in STUDIES:
        for name in bundled_configs():
            config, _ = load_config(name)
            modalities = ["text"] if name != "atlas" else ["image", "numeric", "text"]
            cells, change_graph = load_cells(study, config, modalities, baseline_of(name))
            first, *others = cells.values()
            assert fields_of(first) == {}, f"{study} of {name}"
            assert not any("," in cell for cell in cells), f"{study}: --cells could not name it"
            assert len(others) > 2, f"{study} of {name}"
            assert all(others), f"{study} of {name}"
            assert all(set(fields_of(changes)) <= set(FIELDS) for changes in others), f"{study} of {name}"
            assert (change_graph is None) == (study not in ("missing", "noise", "sparse"))


def test_the_components_are_without_a_part_or_with_another_in_its_place():
    from mocme_jax.config import load_config

    config, _ = load_config("atlas")
    cells, _ = load_cells("components", config, ["image", "text"], baseline_of("atlas"))
    assert list(cells) == [
        *("full", "no complementarity", "gate", "attention", "3 experts", "no EGNS", "EGNS unsorted"),
        *("without image", "without text", "structure alone"),
    ]
    assert cells["no complementarity"] == {"model.fusion": "mean"}
    assert cells["without image"] == {"data.modalities": ("text",)}
    assert cells["structure alone"] == baseline_of("atlas")
    # Of a config that has them already, there is no cell that changes nothing.
    config.model.experts, config.model.fusion = 2, "gate"
    cells, _ = load_cells("components", config, ["text"], baseline_of("atlas"))
    expected = ["full", "no complementarity", "attention", "1 expert", "no EGNS", "EGNS unsorted", "structure alone"]
    assert list(cells) == expected
    assert cells["1 expert"] == {"model.experts": 1}


CHANGING_STUDY = """
def get_cells(config, modalities, alone):
    return {"full": {}, "half": {"graph.share": SHARE}, "half, wider": {"graph.share": 0.5, "model.width": 10}}


def change_graph(graph, seed, share):
    return graph.replace(train=graph.train[: int(share * len(graph.train))])
"""


@pytest.mark.slow
def test_a_cell_may_change_the_graph_and_is_told_by_how(graph, tmp_path, monkeypatch, capsys):
    file, folder = tmp_path / "halves.py", tmp_path / "study"
    file.write_text(CHANGING_STUDY.replace("SHARE", "0.5"))
    flags = [*tiny_flags(graph, folder), f"--study={file}", "--seeds=1"]
    assert run_here("ablate", *flags, monkeypatch=monkeypatch) == 0
    assert "cell 3 of 3: half, wider  graph.share=0.5 --config.model.width=10" in capsys.readouterr().out
    rows = read_rows(folder)
    assert [row["changes"] for row in rows] == [{}, {"graph.share": 0.5}, {"graph.share": 0.5, "model.width": 10}]
    # Another number of steps an epoch leaves another curve; all triples are known to the filter in all cells.
    assert rows[0]["dev"] != rows[1]["dev"]
    assert json.loads((folder / "study.json").read_text())["cells"]["half"] == {"graph.share": 0.5}
    assert run_here("ablate", *flags, monkeypatch=monkeypatch) == 0
    assert "cell 1 of" not in capsys.readouterr().out
    assert read_rows(folder) == rows
    # The same name with another change is another cell.
    file.write_text(CHANGING_STUDY.replace("SHARE", "0.25"))
    assert run_here("ablate", *flags, monkeypatch=monkeypatch) == 0
    assert [row["changes"] for row in read_rows(folder)[3:]] == [{"graph.share": 0.25}]


@pytest.mark.slow
def test_a_cell_that_goes_on_is_of_the_same_graph(graph, tmp_path):
    config, _ = parse(tiny_flags(graph, tmp_path, data__modalities="text", train__eval_every=1), "")
    dataset = builders.load_dataset(config)

    def train_without(missing, told, preemption=None):
        poorer = change_dataset(dataset, without_rows, 0, {"missing": missing})
        return train_seeds(config, poorer, [0], tmp_path / "cell", preemption=preemption, console=make_console(told))

    preemption = Preemption()

    def stop_after_two(line):
        preemption.requested = preemption.requested or line.startswith("epoch 2/")

    with pytest.raises(BaseException, match="stopped after step 8 of 16"):
        train_without(0.5, Told(stop_after_two), preemption)
    with pytest.raises(UserError, match="another graph or other features: graph change differs"):
        train_without(0.25, Told())
    told = Told()
    train_without(0.5, told)
    assert told.lines[0].startswith("resuming after step 8")


KINDS = (("full", ""), ("structure", ":structure"))


def test_every_bundled_search_stays_around_its_config():
    from mocme_jax.config import get_field, load_config

    sources = [(kind, name + argument) for kind, argument in KINDS for name in bundled_configs()]
    for kind, source in sources:
        config, _ = load_config(source)
        space = load_space(kind, config)
        assert {"loss.regularisation", "train.table_learning_rate"} <= set(space) <= set(FIELDS), source
        for number in range(1, 21):
            point = draw(space, 0, number)
            changed(config, point)
            for path in ("loss.regularisation", "train.table_learning_rate"):
                assert 0.49 < point[path] / get_field(config, path) < 2.01, f"{source}: {path}"


def test_no_flag_gets_into_the_structural_baseline():
    # mkg_y and mkg_y:structure both draw evenly; --config.negatives.sampling=entropy would stay in a difference.
    alone = baseline_of("mkg_y")
    assert alone["negatives.sampling"] == alone["negatives.weighting"] == "uniform"
    assert alone["data.modalities"] == ("structure",)
    assert baseline_of("atlas")["loss.regulariser"] == "n3"
    assert "loss.regulariser" not in alone
    # A config that is its baseline already has no other.
    assert baseline_of("atlas:structure")["data.modalities"] == ("structure",)


def test_what_can_not_be_is_told_in_a_line(graph, study_file, tmp_path, monkeypatch, capsys):
    def refused(*flags, words):
        status = run_here("ablate", *flags, monkeypatch=monkeypatch)
        assert_one_error(status, capsys.readouterr().err, words)

    flags = tiny_flags(graph, tmp_path / "study")
    refused(*flags, "--study=component", words="did you mean --study=components?")
    refused(*flags, f"--study={study_file}", "--cells=ful", words="unknown cell ful; the cells are full, plain")
    wrong = tmp_path / "wrong.py"
    head = "def get_cells(config, modalities, alone):\n    "
    bodies = {
        "return {'a': {'model.fussion': 'mean'}}": "unknown config field model.fussion; did you mean model.fusion?",
        "return {'a': {'fusion.inter': 'mean'}}": "config field fusion.inter was removed: ",
        "return {'a': {'data.noise': 0.5}}": "config field data.noise was removed: ",
        "return {'a': {'graph.noise': 0.5}}": "expected a function change_graph(graph, seed, ...), found none",
        "return {'a': {'graph.noise': 0.5}}\ndef change_graph(graph, seed): pass": "cell a does not fit change_graph: ",
        "return {'a': {'model.width': config.eval.chunk}}": f"{wrong}, line 2: config field eval was removed: ",
        "return {}": "has no cells for a graph with the modalities none",
    }
    for body, words in bodies.items():
        wrong.write_text(f"{head}{body}\n")
        refused(*flags, f"--study={wrong}", words=words)
    split = [*flags, f"--study={study_file}", "--config.parallel.shard_entities=True"]
    refused(*split, words="whole tables")
