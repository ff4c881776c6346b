"""The run that quickstart.sh starts, cut to its first epochs, learns the embedded graph."""

import json

from command_runner import run_process


def test_atlas_is_learnt(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # The default configuration but for its length, so that the bar guards the defaults: this run reached .58 on dev
    # after six epochs when it was set.
    fields = ("--config.train.epochs=6", "--config.train.eval_every=6", "--config.parallel.devices=1")
    result = run_process("train", *fields, folder=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    results = json.loads((tmp_path / "runs" / "atlas" / "results.json").read_text(encoding="utf-8"))
    assert results["graph"]["modalities"].keys() == {"text", "numeric", "image"}
    assert results["warnings"] == []
    dev, test = results["dev"]["overall"]["mrr"], results["test"]["overall"]["mrr"]
    assert dev > 0.5 and test > 0.5
    assert abs(dev - test) < 0.08
    assert results["test"]["clean"] == results["test"]["overall"]
