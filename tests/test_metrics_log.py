"""The trace of a run: rows, what survives a resume, and TensorBoard's copy."""

import json
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from mocme_jax.config import flat
from mocme_jax.errors import UserError
from mocme_jax.training.logs.metrics_log import MetricsLog, read_metrics


def test_rows_are_there_at_once_and_plain(tmp_path):
    with MetricsLog(tmp_path / "run", tensorboard=False) as log:
        log.write(
            {
                "epoch": np.int64(1),
                "loss": jnp.float32(0.5),
                "dev": {"mrr": 0.25, "hits": [np.float64(1), None]},
            }
        )
        lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == [
            {"epoch": 1, "loss": 0.5, "dev": {"mrr": 0.25, "hits": [1.0, None]}}
        ]


def test_what_is_no_number_becomes_null(tmp_path):
    with MetricsLog(tmp_path, tensorboard=False) as log:
        log.write({"epoch": 1, "loss": float("nan"), "norm": np.float32(np.inf), "share": jnp.array([1.0, -np.inf])})
    assert read_metrics(tmp_path) == [{"epoch": 1, "loss": None, "norm": None, "share": [1.0, None]}]


def test_a_resumed_run_drops_what_it_will_write_again(tmp_path):
    with MetricsLog(tmp_path, tensorboard=False) as log:
        log.write({"note": "start"})
        for epoch in range(1, 5):
            log.write({"epoch": epoch, "step": 10 * epoch, "try": 1})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 2, "lo')
    with MetricsLog(tmp_path, keep_until_step=25, tensorboard=False) as log:
        log.write({"epoch": 3, "step": 30, "try": 2})
    rows = read_metrics(tmp_path)
    assert [(row.get("epoch"), row.get("try")) for row in rows] == [(None, None), (1, 1), (2, 1), (3, 2)]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_without_a_resume_all_rows_stay(tmp_path):
    for attempt in range(2):
        with MetricsLog(tmp_path, tensorboard=False) as log:
            log.write({"epoch": 1, "try": attempt})
    assert [row["try"] for row in read_metrics(tmp_path)] == [0, 1]
    assert read_metrics(tmp_path / "elsewhere") == []


def test_flatten_joins_names():
    assert flat({"a": 1, "b": {"c": 2, "d": {"e": 3}}, "f": {}}, between="/") == {"a": 1, "b/c": 2, "b/d/e": 3}


def test_tensorboard_gets_the_scalars(tmp_path, monkeypatch):
    tensorboardx = pytest.importorskip("tensorboardX")
    added = []
    monkeypatch.setattr(tensorboardx.SummaryWriter, "add_scalar", lambda self, *args: added.append(args))
    with MetricsLog(tmp_path) as log:
        log.write({"epoch": 3, "dev": {"mrr": 0.5, "nan": float("nan")}, "name": "x", "done": True, "steps": 7})
        log.write({"dev": {"mrr": 1.0}})
    assert sorted(added) == [("dev/mrr", 0.5, 3), ("steps", 7, 3)]
    assert list((tmp_path / "tensorboard").iterdir())


def test_tensorboard_is_not_needed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with MetricsLog(tmp_path) as log:
        log.write({"epoch": 1})
    assert not (tmp_path / "tensorboard").exists()
    assert read_metrics(tmp_path) == [{"epoch": 1}]


def test_lines_that_no_run_writes_are_dropped(tmp_path):
    deep = b'{"epoch":1,"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    bad = [b'{"epoch":' + b"9" * 5000 + b"}", b'{"epoch": "1"}', b'{"step": 1.5}', b"\xff", b"[1]", deep]
    lines = [b'{"epoch": 1, "step": 5, "x":  0.10}', *bad, b'{"a":1,"a":2}', b'{"epoch": 2, "step": 9}']
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(lines))
    assert read_metrics(tmp_path) == [{"epoch": 1, "step": 5, "x": 0.1}, {"epoch": 2, "step": 9}]
    with MetricsLog(tmp_path, keep_until_step=5, tensorboard=False):
        pass
    # A line that is kept is kept as it was written.
    assert (tmp_path / "metrics.jsonl").read_bytes() == b'{"epoch": 1, "step": 5, "x":  0.10}\n'


def test_a_folder_in_its_place(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    for read in (read_metrics, lambda folder: MetricsLog(folder, keep_until_step=1)):
        with pytest.raises(UserError, match=r"metrics\.jsonl: expected a file, found a folder, a pipe or a device"):
            read(tmp_path)
