"""The report: its figures against results.json and plain loops, what strangers' names become, users' errors."""

import base64
import dataclasses
import io
import json
import re
import shlex
import shutil
import sys

import numpy as np
import pytest
from command_runner import assert_one_error, run_here
from page_reader import Reader
from strange_names import ENTITIES, LONG, RELATIONS, SCRIPT, write_study

from mocme_jax.ablate import OPTIONS as ABLATE
from mocme_jax.evaluation.metrics import ranking_metrics
from mocme_jax.flags import parse_command

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from mocme_jax.parallel.entity_tables import look_up
from mocme_jax.report import charts, html_page, score_tables
from mocme_jax.report.expert_weights import pattern_bars, relation_bars
from mocme_jax.report.finished_run import read_finished
from mocme_jax.report.report_writer import short_names, write_report
from mocme_jax.report.run_measurements import measure, shares_by_pattern, shares_by_relation
from mocme_jax.report.study_page import read_study, repeat_flags
from mocme_jax.serving.compiled_queries import expert_shares
from mocme_jax.serving.probability import in_bins


@pytest.fixture(scope="module")
def measured(tiny_run):
    return measure(read_finished(tiny_run))


@pytest.fixture(scope="module")
def page(tiny_run, tiny_baseline, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "new folder" / "run.html"
    assert write_report([tiny_run], out, baseline=tiny_baseline) == out
    return out.read_text(encoding="utf-8")


def results_of(workdir):
    return json.loads((workdir / "results.json").read_text(encoding="utf-8"))


def test_the_page_has_the_scores_of_both_runs_and_what_lies_between(page, tiny_run, tiny_baseline):
    text = Reader(page).text
    mine, other = (results_of(run)["test"]["overall"] for run in (tiny_run, tiny_baseline))
    for metrics in (mine, other):
        for name in ("mrr", "hits@1", "hits@3", "hits@10"):
            assert f" {metrics[name]:.3f} " in text
    gap = mine["mrr"] - other["mrr"]
    assert f"{gap:+.3f}".replace("-", "−") in text
    assert results_of(tiny_run)["fingerprint"] in text
    assert "--config.model.expert_hidden=4" in text


def test_its_ranks_are_those_that_training_scored(measured, tiny_run):
    test = results_of(tiny_run)["test"]
    assert ranking_metrics(measured.ranks) == test["overall"]
    edges = charts.rank_edges(48)
    assert edges == [1, 3, 10, 30, 100]
    cumulative = np.cumsum(charts.rank_shares(measured.ranks, edges))
    np.testing.assert_allclose(cumulative[:3], [test["overall"][f"hits@{k}"] for k in (1, 3, 10)], atol=1e-12)
    assert cumulative[-1] == pytest.approx(1)
    groups = {row.name: row.metrics[0] for row in score_tables.by_answer_modalities([measured])}
    assert {("none" if name == "structure" else name): m for name, m in groups.items()} == test["groups"][
        "answer_modalities"
    ]


EXPERTS = ("structure", "numeric", "text", "joint expert")


def test_entity_shares_average_to_those_of_the_run(measured, tiny_run):
    shares, told = measured.entity_shares, results_of(tiny_run)["weights"]
    assert tuple(measured.run.experts) == tuple(told) == EXPERTS
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(shares.mean(axis=0), list(told.values()), atol=1e-6)
    present = {m.name: m.present for m in measured.model.graph.modalities}
    present |= {"structure": np.ones(48, bool), "joint expert": present["text"] | present["numeric"]}
    for name in EXPERTS:
        assert measured.reads(name) == pytest.approx(present[name].mean())


def test_shares_by_pattern_are_plain_means(measured):
    rows = shares_by_pattern(measured.entity_shares, measured.patterns)
    assert sum(count for _, count, _ in rows) == 48
    assert len(rows) == 4
    for name, count, mean in rows:
        members = [index for index in range(48) if measured.patterns[index] == name]
        assert count == len(members)
        np.testing.assert_allclose(mean, sum(measured.entity_shares[index] for index in members) / count)
    # What an entity carries moves its weights.
    assert np.ptp([mean for _, _, mean in rows], axis=0).max() > 0.01


def test_shares_by_relation_are_means_of_the_models_own_over_the_training_triples(measured):
    served, train = measured.model.served, np.asarray(measured.model.graph.train)
    found = measured.relation_shares
    assert found.shape == (3, 2, 4)
    moved = []
    for relation in range(3):
        triples = train[train[:, 1] == relation]
        for place, (column, asked) in enumerate(((0, relation), (2, relation + 3))):
            carried = look_up(served.params.structure, served.inputs, triples[:, column], split=False)
            relations = np.full(len(triples), asked, np.int32)
            shares = expert_shares(served.model, served.params.model, carried, relations)
            np.testing.assert_allclose(found[relation, place], np.asarray(shares, np.float64).mean(axis=0), atol=1e-6)
            without = measured.entity_shares[triples[:, column]].mean(axis=0)
            moved.append(np.abs(found[relation, place] - without).max() > 1e-3)
    # The relation has a part in it, unless dev has no triple of it.
    counts = np.bincount(np.asarray(measured.model.graph.valid)[:, 1], minlength=3)
    assert moved == np.repeat(counts > 0, 2).tolist()
    assert any(moved)


def test_a_relation_without_triples_has_no_shares():
    entity = np.array([[0.25, 0.75], [0.5, 0.5]])
    relation = np.array([[1.0, 1.0], [3.0, 1.0], [1.0, 1.0], [1.0, 3.0]])
    found = shares_by_relation(entity, relation, np.array([[0, 1, 1], [1, 1, 1]]))
    assert np.isnan(found[0]).all()
    # Asked for tails: (.75, .75) and (1.5, .5) are halves, and three quarters. Asked for heads: (.5, 1.5) twice.
    np.testing.assert_allclose(found[1], [[0.625, 0.375], [0.25, 0.75]])


def test_the_page_shows_the_shares(page, measured, tiny_run):
    text = Reader(page).text
    for name, share in results_of(tiny_run)["weights"].items():
        assert f"{name} {share:.1%} {measured.reads(name):.1%}" in text
    colours = {name: place for place, name in enumerate(EXPERTS)}
    for one in pattern_bars(measured, colours) + relation_bars(measured, colours):
        assert " ".join(f"{part.name} {part.share:.1%}" for part in one.parts) in text
    assert "experts: structure, numeric, text, joint expert; fusion complementarity." in text
    assert "Shares of the experts" in text
    told = r"Mean share of the experts by epoch, run\. structure: 0\.\d+ at epoch 4, 0\.\d+ at epoch 12;"
    assert re.search(told, page)


def test_the_reliability_diagram_has_the_calibrations_own_errors(measured):
    report = measured.model.calibration.report["splits"]["test"]
    for name in ("before", "after"):
        bins = measured.reliability[name]
        error = sum(n * abs(c - r) for c, r, n in zip(*bins, strict=True)) / bins.count.sum()
        assert error == pytest.approx(report[name]["error"], abs=1e-9)
        assert bins.count.sum() == report[name]["questions"] == 10


def test_bins_hold_what_falls_into_them():
    bins = in_bins(np.array([0.05, 0.15, 0.19, 1.0]), np.array([False, True, False, True]), 10)
    np.testing.assert_allclose(bins.confidence, [0.05, 0.17, 1.0])
    np.testing.assert_allclose(bins.right, [0, 0.5, 1])
    assert bins.count.tolist() == [1, 2, 1]


def test_the_page_stands_alone_and_is_the_same_again(page, tiny_run, tiny_baseline, tmp_path):
    read = Reader(page)
    assert not {"script", "iframe", "object", "embed", "base", "form"} & set(read.tags)
    assert "://" not in page
    assert "@import" not in page
    for _, name, value in read.attributes:
        assert not name.startswith("on")
        if name in ("href", "src"):
            assert value.startswith(("#", "data:"))
    # Colours are the page's own, of which there are three sets.
    assert "#0000a" not in page
    assert "#01010" not in page
    assert "var(--c0)" in page
    ids = [value for _, name, value in read.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    wanted = {value[1:] for _, name, value in read.attributes if name == "href" and value.startswith("#")}
    assert wanted | set(re.findall(r"url\(#([^)]+)\)", page)) <= set(ids)
    told = re.findall(r'<svg class="chart" viewBox="[^"]+" role="img" aria-label="[^"]{20,}">', page)
    assert told
    assert len(told) == page.count("<svg")
    write_report([tiny_run], tmp_path / "again.html", baseline=tiny_baseline)
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == page


def test_without_a_baseline_the_page_says_so(tiny_run, tiny_baseline, tmp_path):
    write_report([tiny_run], tmp_path / "alone.html", entities=["place 3", "place 7"])
    text = Reader((tmp_path / "alone.html").read_text(encoding="utf-8")).text
    assert "No structural baseline was given" in text
    assert "place 3" in text
    assert "place 7" in text
    assert "The entities were named with --entities" in text
    write_report([tiny_baseline], tmp_path / "baseline.html")
    text = Reader((tmp_path / "baseline.html").read_text(encoding="utf-8")).text
    assert "is structure alone; it has no features" in text
    assert "no modality besides the structure" in text
    assert "all negatives the same weight" in text


def test_test_rows_that_train_holds_are_told_of(tiny_run, page, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "run")
    results = results_of(tiny_run)
    results["test"]["clean"] = results["test"]["clean"] | {"count": 4, "mrr": 0.0625}
    (tmp_path / "run" / "results.json").write_text(json.dumps(results), encoding="utf-8")
    write_report([tmp_path / "run"])
    text = Reader((tmp_path / "run" / "report.html").read_text(encoding="utf-8")).text
    assert text.count("60% of the test triples are in train too") == 2
    assert "test, clean rows 0.062" in text
    assert "of the test triples are in train too" not in page


def test_strangers_names_stay_text(strange_run, tiny_run, tmp_path):
    image = pytest.importorskip("PIL.Image")
    pictures = tmp_path / "pictures"
    (pictures / "place 5").mkdir(parents=True)
    image.new("RGB", (900, 300), "red").save(pictures / "place 5" / "a.jpg")
    image.new("RGBA", (20, 40), (0, 0, 255, 128)).save(pictures / "place 4.png")
    names = [ENTITIES["place 0"], ENTITIES["place 6"], ENTITIES["place 12"], "place 4", "place 5", "place 7"]
    # Unlike a flag's, these may hold commas.
    write_report([strange_run], tmp_path / "page.html", entities=names, images=pictures)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    read = Reader(page)
    assert "script" not in read.tags
    assert not [1 for _, name, _ in read.attributes if name.startswith("on")]
    assert SCRIPT in read.text
    assert RELATIONS["member of"] in read.text
    assert LONG in read.text
    assert "a<b>&amp;\"'" in read.text
    assert "run<i>" in read.text
    assert "\u202e" not in page
    assert "\\u202e$\\frac{1}{0}$ مصر" in read.text
    sources = [value for tag, name, value in read.attributes if (tag, name) == ("img", "src")]
    found = [value.removeprefix("data:image/png;base64,") for value in sources]
    found = [image.open(io.BytesIO(base64.b64decode(value))) for value in found]
    assert [one.size for one in found] == [(20, 40), (128, 43)]
    assert found[1].convert("RGB").getpixel((60, 20))[0] > 240
    assert read.text.count("No picture in the folder.") == 4


def test_several_runs_stand_side_by_side(tiny_run, tiny_baseline, strange_run, tmp_path):
    write_report([tiny_run, tiny_baseline], tmp_path / "two.html")
    text = Reader((tmp_path / "two.html").read_text(encoding="utf-8")).text
    assert "2 runs side by side: run , baseline" in text
    assert "The baseline is baseline" in text
    assert "negatives.weighting" in text
    assert "These runs have other names" not in text
    assert text.count("python -m mocme_jax.train") == 2
    write_report([tiny_run, strange_run], tmp_path / "strange.html")
    text = Reader((tmp_path / "strange.html").read_text(encoding="utf-8")).text
    assert "These runs have other names or test triples" in text
    assert "No structural baseline was given" in text


def test_short_names_tell_folders_apart(tmp_path):
    assert short_names([tmp_path / "a" / "run", tmp_path / "b" / "run"]) == ["a/run", "b/run"]
    assert short_names([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]
    assert short_names([tmp_path, tmp_path]) == [tmp_path.name] * 2


CELLS = {"full": {}, "no EGNS": {"negatives.weighting": "uniform"}, SCRIPT: {"model.experts": 3}}


@pytest.mark.parametrize("table", [False, True])
def test_a_study_tells_its_table_and_what_is_missing(tiny_run, tmp_path, table):
    config = results_of(tiny_run)["config"]
    folder = write_study(tmp_path / "study", config, CELLS, left_out={(SCRIPT, 1), (SCRIPT, 2)}, table=table)
    assert write_report([folder]) == folder / "report.html"
    page = (folder / "report.html").read_text(encoding="utf-8")
    read = Reader(page)
    assert "script" not in read.tags
    assert "7 of 9 trainings are finished" in read.text
    assert f"{SCRIPT} : seeds 1, 2 missing" in read.text
    assert "a third of test is in train" in read.text
    assert "no EGNS 3 0.491 ± 0.001 −0.010" in read.text
    assert ("0.012" in read.text) == table
    assert "negatives.weighting=uniform" in read.text
    assert "Test triples that are not in train" in read.text


def test_the_command_of_a_study_runs_it_again(tiny_run, tmp_path):
    config = results_of(tiny_run)["config"]
    told = read_study(write_study(tmp_path / "study", config, CELLS)).told
    flags = [flag.replace("FOLDER", config["data"]["dir"]) for flag in repeat_flags(told)]
    command = parse_command(shlex.split(" ".join(flags)), "", ABLATE)
    assert command.options["study"] == "components"
    assert command.options["seeds"] == 3
    again, of_a_machine = command.config.to_dict(), ("dir", "features_dir")
    for section in ("data", "model", "negatives", "loss", "train"):
        for name, value in again[section].items():
            if name not in of_a_machine:
                assert value == (tuple(old) if isinstance(old := config[section][name], list) else old), name
    page = write_report([tmp_path / "study"]).read_text(encoding="utf-8")
    assert "python -m mocme_jax.ablate" in page
    assert "--study=components" in page


def test_a_study_of_a_number_shows_weights_over_it(tiny_run, tmp_path):
    noise = {f"noise {share}": {"graph.noise": share} for share in (0.0, 0.25, 0.5, 1.0)}
    # The config holds the reference's scale, 0.1.
    scaled = {"full": {}, **{f"scale {value}": {"model.modality_scale": value} for value in (0.025, 0.05, 0.2)}}
    cases = {
        "graph.noise": (noise, r"0\.300 at 0, 0.275 at 0.25, 0.250 at 0.5, 0.225 at 1"),
        "model.modality_scale": (scaled, r"0.275 at 0.025, 0.250 at 0.05, 0.300 at 0.1, 0.225 at 0.2"),
    }
    for number, (cells, weights) in cases.items():
        folder = write_study(tmp_path / number, results_of(tiny_run)["config"], cells)
        write_report([folder], tmp_path / "out.html")
        text = (tmp_path / "out.html").read_text(encoding="utf-8")
        assert re.search(f"Share of text over {number}: {weights}", text), number
        assert f"Test MRR over {number}" in text


def test_rows_that_an_earlier_version_wrote_have_a_page_without_shares(tiny_run, tmp_path):
    folder = write_study(tmp_path / "study", results_of(tiny_run)["config"], CELLS)
    *rows, half = (folder / "rows.jsonl").read_text(encoding="utf-8").split("\n")
    old = {"weights": {"modality": {"structure": 1.0}, "view": {"structure": [1.0]}}}
    rows = [json.loads(row) | old for row in rows]
    (folder / "rows.jsonl").write_text("\n".join([*map(json.dumps, rows), half]), encoding="utf-8")
    page = write_report([folder]).read_text(encoding="utf-8")
    assert "There are no weights yet" in page
    assert "9 of 9 trainings are finished" in page


def test_a_seed_that_diverged_is_done_and_has_no_score(tmp_path):
    cell = list(CELLS)[1]
    folder = write_study(tmp_path / "study", {}, CELLS, left_out=[(cell, 2)])
    row = {"cell": cell, "seed": 2, "changes": CELLS[cell], "dev": {"mrr": 0.0}, "best_epoch": 0, "diverged": 7}
    row |= {"epochs": 1, "curve": [], "seconds": 1.0}
    with open(folder / "rows.jsonl", "a", encoding="utf-8") as file:
        file.write(f"\n{json.dumps(row)}\n")
    study = read_study(folder)
    assert study.unfinished == []
    assert [row["seed"] for row in study.of(cell)] == [0, 1]
    assert [row["seeds"] for row in study.table] == [3, 2, *[3] * (len(CELLS) - 2)]


def test_a_study_that_has_only_begun_has_a_page(tiny_run, tmp_path):
    folder = write_study(tmp_path / "study", results_of(tiny_run)["config"], CELLS)
    (folder / "rows.jsonl").unlink()
    assert read_study(folder).unfinished == [(cell, [0, 1, 2]) for cell in CELLS]
    write_report([folder])
    assert "No training has a score yet" in (folder / "report.html").read_text(encoding="utf-8")


def test_the_command_writes_and_says_where(tiny_run, tiny_baseline, tmp_path, monkeypatch, capsys):
    out = tmp_path / "page.html"
    flags = (f"--workdir={tiny_run},{tiny_baseline}", f"--out={out}", "--entities=place 1,place 2")
    assert run_here("report.__main__", *flags, monkeypatch=monkeypatch) == 0
    assert f"{out}: {out.stat().st_size:,} bytes" in capsys.readouterr().out
    assert "place 2" in out.read_text(encoding="utf-8")


def test_users_errors_are_one_line(measured, tiny_run, tiny_baseline, strange_run, tmp_path, monkeypatch, capsys):
    # Some are found only when a run is measured, which takes seconds; each is measured once.
    taken = {tiny_run: measured}

    def measure_once(run, **options):
        if run.workdir not in taken:
            taken[run.workdir] = measure(run, **options)
        return dataclasses.replace(taken[run.workdir], run=run)

    monkeypatch.setattr("mocme_jax.report.report_writer.measure", measure_once)
    study = write_study(tmp_path / "study", results_of(tiny_run)["config"], CELLS)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "study.json").write_text('{"study": "components"}', encoding="utf-8")
    half = tmp_path / "half"
    half.mkdir()
    shutil.copy(tiny_run / "results.json", half)
    (tmp_path / "file").write_text("", encoding="utf-8")
    run = f"--workdir={tiny_run}"
    for flags, words in (
        ([], ["--workdir"]),
        ([f"--workdir={tmp_path / 'nothing'}"], ["results.json", "study.json"]),
        ([f"--workdir={half}"], ["no checkpoint"]),
        ([f"--workdir={broken}"], ["reference"]),
        ([f"--workdir={study},{tiny_run}"], ["report it alone"]),
        ([f"--workdir={study}", "--entities=a"], ["are for runs, not"]),
        ([f"--workdir={tiny_run},{tiny_run}"], ["twice"]),
        ([run, f"--baseline={strange_run}"], ["structure alone"]),
        ([f"--workdir={strange_run}", f"--baseline={tiny_baseline}"], ["names or test triples differ"]),
        ([f"--workdir={tiny_run},{strange_run}", f"--baseline={tiny_baseline}"], ["one run"]),
        ([run, "--entities=plaice 1"], ["did you mean place 1"]),
        ([run, f"--images={tmp_path / 'nothing'}"], ["no such folder"]),
        ([run, f"--out={tmp_path / 'file' / 'page.html'}"], ["cannot be written"]),
    ):
        status = run_here("report.__main__", *flags, monkeypatch=monkeypatch)
        assert_one_error(status, capsys.readouterr().err, *words)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    status = run_here("report.__main__", run, monkeypatch=monkeypatch)
    assert_one_error(status, capsys.readouterr().err, "matplotlib", "pip install -e", "[report]")


@pytest.mark.parametrize(
    ("flag", "words"), [("--entities=plaice 1", "did you mean place 1"), ("--images=nothing", "no such folder")]
)
def test_what_is_not_there_is_said_before_a_model_is_read(tiny_run, flag, words, monkeypatch, capsys):
    def build_model(*_):
        raise AssertionError("a model was built")

    monkeypatch.setattr("mocme_jax.training.best_model.builders.build_model", build_model)
    status = run_here("report.__main__", f"--workdir={tiny_run}", flag, monkeypatch=monkeypatch)
    assert_one_error(status, capsys.readouterr().err, words)


@pytest.mark.parametrize(
    ("share", "digits", "text"),
    [(0.5, 1, "50.0%"), (0.0004, 1, "<0.1%"), (0.0006, 1, "0.1%"), (0.0, 1, "0.0%"), (0.004, 0, "<1%"), (None, 1, "–")],
)
def test_a_small_share_is_not_rounded_to_none(share, digits, text):
    assert html_page._percent(share, digits) == text


def test_an_evaluation_that_was_repeated_counts_once(tiny_run, tmp_path):
    shutil.copy(tiny_run / "results.json", tmp_path)
    rows = [{"epoch": 2, "step": 4, "dev": {"mrr": 0.1}}, {"epoch": 2, "step": 4, "dev": {"mrr": 0.2}}, {"test": {}}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert read_finished(tmp_path).curve("dev/mrr") == ([2], [0.2])


def test_what_modalities_add_is_shown_once_it_was_measured(tiny_run, tmp_path):
    text = Reader(write_report([tiny_run], tmp_path / "before.html").read_text(encoding="utf-8")).text
    assert "not measured yet: python -m mocme_jax.evaluate --information --workdir=" in text
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    amounts = {"structure": 1.25, "numeric": -0.004, "text": 0.5}
    added = {name: {"nats": nats, "margin": 0.125, "triples": 5} for name, nats in amounts.items()}
    experts = {name: {"nats": 2.0 + i, "margin": None, "triples": 5} for i, name in enumerate(EXPERTS)}
    best = results_of(run)["run"]["best_step"]
    told = {"best_step": best, "modalities": added, "experts": experts, "relations": {SCRIPT: added}}
    told["weights"] = {"fitted": 0.5, "before": 0.375, "gain": 0.125, "margin": 0.0625}
    (run / "information.json").write_text(json.dumps(told))
    page = Reader(write_report([run], tmp_path / "after.html").read_text(encoding="utf-8"))
    cells = re.findall(r"(−?[\d.]+ ± [\d.]+) nats", page.text)
    # Those of all relations, and no others: dev's only relation here is not one of test's.
    assert cells == ["1.25 ± 0.12", "0.00 ± 0.12", "0.50 ± 0.12"]
    assert re.search(r"structure \d+\.\d% 100\.0% 2\.00 numeric \d+\.\d% \d+\.\d% 3\.00", page.text)
    assert "dev MRR: 0.5000 with the fitted weights, 0.3750 with the weights before the fit" in page.text
    assert "gain +0.1250 ± 0.0625" in page.text
    assert "script" not in page.tags
    # A file of something else, or of another checkpoint, counts as none.
    for other in ([], told | {"best_step": best + 1}):
        (run / "information.json").write_text(json.dumps(other))
        assert "not measured yet" in write_report([run], tmp_path / "odd.html").read_text(encoding="utf-8")
