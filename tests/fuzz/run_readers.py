"""The readers of a run's and a study's folder, which may come from a stranger too."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from mocme_jax.errors import UserError

from . import bombs, run_seeds
from .containers import change_npy, change_zip
from .mutations import change_in_place, change_json, change_lines
from .reader import Reader, only
from .seeds import Files

ENTITIES = 6


def _usable(value: Any, folder: Path) -> Any:
    """What is used; where a reader makes it anew instead, it counts as refused."""
    if not value:
        raise UserError(f"{folder}: is made anew")
    return value


def _sealed(change: Callable[[Random, bytes], bytes]) -> Callable[[Random, bytes], bytes]:
    """A change of JSON that has its digest made anew, more often than not."""

    def changed(rng: Random, data: bytes) -> bytes:
        from mocme_jax.training.checkpoints.sealed_checkpoints import digest_of

        data = change(rng, data)
        if rng.random() < 0.2:
            return data
        try:
            held = json.loads(data)
            if "content" in held:
                held["digest"] = digest_of(held["content"])
            else:
                held["digest"] = digest_of({name: value for name, value in held.items() if name != "digest"})
            return json.dumps(held).encode()
        except (ValueError, TypeError, AttributeError, RecursionError):
            return data

    return changed


def _rows_change(rng: Random, data: bytes) -> bytes:
    if rng.random() < 0.3:
        return change_lines(rng, data)
    lines = data.split(b"\n")
    place = rng.randrange(len(lines))
    lines[place] = change_json(rng, lines[place])
    return b"\n".join(lines)


def _study_change(rng: Random, data: bytes) -> bytes:
    if data[:6] == b"\x93NUMPY":
        return change_npy(rng, data)
    return (change_json if data.count(b"\n") < 2 else _rows_change)(rng, data)


def _read_metrics(folder: Path) -> list[dict]:
    from mocme_jax.training.logs.metrics_log import MetricsLog, read_metrics

    with MetricsLog(folder, keep_until_step=20, tensorboard=False) as log:
        log.write({"epoch": 3, "step": 30})
    return read_metrics(folder)


def _check_metrics(rows: list[dict]) -> None:
    assert rows[-1] == {"epoch": 3, "step": 30}
    assert all(row.get("step", 0) <= 30 and "test" not in row for row in rows)


def _read_results(folder: Path) -> list[str]:
    from mocme_jax.report.finished_run import read_finished
    from mocme_jax.report.score_tables import all_rows
    from mocme_jax.serving.model_card import card

    run = read_finished(folder)
    text = card(run.results, None)
    told = [f"{row.metrics['mrr']} {row.metrics['count']:,}" for row in all_rows(run)]
    assert all(value is None or value < 1e300 for value in run.curve("dev/mrr")[1])
    return [*told, *text.split("\n"), *run.added_by_experts.values()]


def _check_printable(lines: list[str]) -> None:
    "\n".join(lines).encode("utf-8", "surrogatepass")
    assert all(line.isprintable() for line in lines), lines


def _read_calibration(folder: Path) -> Any:
    from mocme_jax.serving.calibration import read_calibration
    from mocme_jax.serving.model_card import _calibration

    found = _usable(read_calibration(folder, run_seeds.OF), folder)
    list(_calibration(found.report))
    return found


def _check_calibration(found: Any) -> None:
    assert np.isfinite(found.answers.sharpness).all()
    assert ((found.answers_curve(np.linspace(0, 1, 9)) >= 0) & (found.answers_curve(np.linspace(0, 1, 9)) <= 1)).all()


def _read_lenders(folder: Path) -> Any:
    from mocme_jax.additions.lending import read_lenders

    return _usable(read_lenders(folder, ENTITIES, 0.5), folder)


def _check_lenders(found: Any) -> None:
    assert found.ids.shape == found.weights.shape
    assert ((found.ids >= 0) & (found.ids < ENTITIES)).all()


def _lenders() -> list[Files]:
    from mocme_jax.additions.lending import Lending

    ids = np.array([[(e + 1) % ENTITIES, (e + 2) % ENTITIES] for e in range(ENTITIES)], np.int32)
    name, content = Lending(ids, np.full(ids.shape, 0.5, np.float32), np.ones(ENTITIES, np.float32), 0.5).file()
    return [{name: content}]


def _read_study(folder: Path) -> Any:
    from mocme_jax.report.study_page import clean_rows, dots, mean_weights, read_study, repeat_flags, shared_numbers

    study = read_study(folder)
    told = study.told
    dots(study.table, told["reference"])
    shared_numbers(told["cells"], told["config"], told["reference"])
    flags = repeat_flags(told)
    return study.unfinished, clean_rows(study), [mean_weights(study, cell) for cell in study.cells], flags


def _read_rows(folder: Path) -> Any:
    from mocme_jax.studies.finished_cells import Rows
    from mocme_jax.studies.parameter_search import by_score
    from mocme_jax.studies.study_table import make_table

    rows = Rows(folder, run_seeds.STUDY)
    by_score(rows.all)
    return make_table(rows, {"full": {}, "less": {"model.width": 4}}, [0, 1], np.ones(2, bool))


def _check_table(table: dict) -> None:
    json.dumps(table, allow_nan=False)


def _read_answers(folder: Path) -> list[int]:
    from mocme_jax.serving.answer_files import RowFile

    done = []
    for name in ("a.tsv", "a.jsonl"):
        if (folder / name).exists():
            with RowFile(folder / name, {"k": 3}, ("query", "head", "score")) as file:
                done.append(file.done)
                file.write([[(file.done + 1, "h", 0.5)]])
    return done


def _read_checkpoint(folder: Path, arrays: bool) -> Any:
    from mocme_jax.training.checkpoints.orbax_store import open_checkpoints
    from mocme_jax.training.checkpoints.run_position import Position, check_format, check_same_run
    from mocme_jax.training.checkpoints.sealed_checkpoints import Saves
    from mocme_jax.training.setup.settings import here

    identity, shapes = run_seeds.identity(), run_seeds.shapes() if arrays else None
    lines: list[str] = []
    with open_checkpoints(folder, create=False) as checkpoints:
        found = Saves(checkpoints, None, None, lines.append).newest("last", shapes)
    if found is None:
        raise UserError(f"{folder}: holds no checkpoint")
    assert all(map(str.isprintable, lines))
    check_format(folder, found.meta)
    if not arrays:
        check_same_run(folder, found.meta, identity)
        try:
            here(found.meta, None, None, alone=True)
        except UserError as error:
            raise UserError(f"{folder}: {str(error)[:300]}") from None
        Position(**found.meta["position"])
    return found


def _check_checkpoint(found: Any) -> None:
    if found.arrays is not None:
        for name, array in run_seeds.state().items():
            np.testing.assert_array_equal(np.asarray(found.arrays[name]), array)


def _rows_bombs(name: str) -> Callable[[Path], dict[str, list[bombs.Bomb]]]:
    return lambda _: only(name, bombs.json_bombs())


_META = "last/8/meta/metadata"
_STATE = "last/8/state/"

RUN_READERS = {
    "metrics": Reader(run_seeds.metrics, _rows_change, _read_metrics, _check_metrics, _rows_bombs("metrics.jsonl")),
    "results": Reader(run_seeds.results, _study_change, _read_results, _check_printable, _rows_bombs("results.json")),
    "calibration": Reader(
        run_seeds.calibration,
        _sealed(change_json),
        _read_calibration,
        _check_calibration,
        _rows_bombs("calibration.json"),
    ),
    "lenders": Reader(
        _lenders,
        change_zip(change_npy),
        _read_lenders,
        _check_lenders,
        lambda _: only("lenders.npz", bombs.archive_bombs("ids.npy")),
    ),
    "study": Reader(run_seeds.study, _study_change, _read_study, lambda _: None, _rows_bombs("study.json")),
    "study rows": Reader(run_seeds.study, _study_change, _read_rows, _check_table, _rows_bombs("rows.jsonl")),
    "answers": Reader(
        run_seeds.answers, _rows_change, _read_answers, lambda done: None, _rows_bombs("a.tsv.settings.json")
    ),
    "meta": Reader(
        lambda: [{_META: files[_META]} for files in run_seeds.checkpoints()],
        _sealed(change_json),
        functools.partial(_read_checkpoint, arrays=False),
        _check_checkpoint,
        _rows_bombs(_META),
    ),
    "checkpoint": Reader(
        run_seeds.checkpoints,
        lambda rng, data: (_sealed(change_json) if data[:1] == b"{" else change_in_place)(rng, data),
        functools.partial(_read_checkpoint, arrays=True),
        _check_checkpoint,
        lambda _: (
            only(_STATE + "_METADATA", bombs.json_bombs())
            | only(_STATE + "manifest.ocdbt", bombs.archive_bombs("ids.npy"))
        ),
    ),
}
