"""The embedded graph, trained for a few epochs by the command that quickstart.sh runs, learns what it should."""

import json

from command_runner import run_process


def test_atlas_is_learnt(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # Narrower and shorter than the default run, which would take minutes. What sets the pace is written out, so that
    # the bar below (this run reached .36 on dev when it was set) speaks of the program and not of the defaults.
    fields = {
        "model.width": 32,
        "model.experts": 0,
        "fusion.panel": 64,
        "fusion.mi_width": 8,
        "model.modality_scale": 0.1,
        "model.structure_bias": 0.0,
        "model.structure_dropout": 0.1,
        "fusion.estimator": "gaussian",
        "fusion.relevance": "gate",
        "negatives.pool": 256,
        "loss.regularisation": 0.03,
        "train.learning_rate": 0.001,
        "train.batch_size": 256,
        "train.epochs": 14,
        "train.eval_every": 7,
        "parallel.devices": 1,
    }
    result = run_process("train", *(f"--config.{name}={value}" for name, value in fields.items()), folder=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    results = json.loads((tmp_path / "runs" / "atlas" / "results.json").read_text(encoding="utf-8"))
    assert results["graph"]["modalities"].keys() == {"text", "numeric", "image"}
    assert results["warnings"] == []
    dev, test = results["dev"]["overall"]["mrr"], results["test"]["overall"]["mrr"]
    assert dev > 0.3 and test > 0.3
    assert abs(dev - test) < 0.08
    assert results["test"]["clean"] == results["test"]["overall"]
