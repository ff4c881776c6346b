"""Exports: read back by the lines of the docs, without the package."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_runner import assert_one_error, run_here

import mocme_jax
from mocme_jax.data.readers.safetensors_file import read_safetensors
from mocme_jax.serving.completion import complete_questions, score_triples
from mocme_jax.serving.exported_tables import cardinality_of, export, pykeen_state, tables_of
from mocme_jax.serving.top_candidates import in_blocks

DOC = (Path(__file__).resolve().parent.parent / "docs" / "use.md").read_text(encoding="utf-8")


def lines_with(word: str) -> str:
    """The one block of Python in the docs that holds a word."""
    (block,) = [block for block in re.findall(r"```python\n(.*?)```", DOC, re.DOTALL) if word in block]
    return block


def run_alone(code: str, folder: Path) -> str:
    """What a script prints that never imports the package."""
    code += "\nimport sys; assert 'mocme_jax' not in sys.modules"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_tables_give_the_test_mrr_back_in_the_lines_of_the_docs(tiny_run, tmp_path, monkeypatch):
    code = lines_with("test MRR")
    assert len(code.strip().splitlines()) <= 21
    argv = (f"--workdir={tiny_run}", f"--out={tmp_path / 'export'}", "--formats=npz,safetensors")
    assert run_here("export", *argv, monkeypatch=monkeypatch) == 0
    expected = json.loads((tiny_run / "results.json").read_text(encoding="utf-8"))["test"]["overall"]["mrr"]
    assert float(run_alone(code, tmp_path).split()[-1]) == pytest.approx(expected, abs=1e-6)
    kept = read_safetensors(tmp_path / "export" / "tables.safetensors")
    with np.load(tmp_path / "export" / "tables.npz") as tables:
        assert kept.keys() == set(tables)
        for name, table in kept.items():
            np.testing.assert_array_equal(table, tables[name])
    rows = (tmp_path / "export" / "entities.tsv").read_text(encoding="utf-8").splitlines()
    assert rows[0] == "id\tname\tlabel"
    assert len(rows) == 49


@pytest.mark.parametrize("features_in", ["questions", "heads"])
def test_models_whose_questions_are_other_than_their_answers_keep_both_tables(model, tmp_path, features_in):
    rng = np.random.default_rng(0)
    questions = rng.standard_normal((48, model.served.model.encoder.width)).astype(np.float32)
    served = dataclasses.replace(
        model.served,
        model=model.served.model.clone(features_in=features_in),
        tables=model.served.tables._replace(questions=in_blocks(questions)),
    )
    other = dataclasses.replace(model, served=served)
    export(other, tmp_path / "export", ("npz",))
    count, test = len(model.relations), model.graph.test
    asked = np.concatenate([test, np.stack([test[:, 2], test[:, 1] + count, test[:, 0]], axis=1)])
    found = complete_questions(served, asked[:, :2], 48, np.ones(2 * count), asked=asked[:, 2])
    expected = np.mean(1 / (1 + np.argmax(found.ids == asked[:, 2:], axis=1)))
    assert float(run_alone(lines_with("test MRR"), tmp_path).split()[-1]) == pytest.approx(expected, abs=1e-6)


def test_the_serialised_scorer_needs_no_package(model, tmp_path):
    pytest.importorskip("flatbuffers")
    export(model, tmp_path / "export", ("npz", "jax"))
    code = lines_with("scorer.jax") + (
        "\nrows = np.arange(48, dtype=np.int32)"
        "\nnp.save('scores.npy', [scorer.call(tables, rows, np.full(48, r, np.int32)) for r in range(6)])"
    )
    assert run_alone(code, tmp_path).strip() == "(2, 48)"
    scores = np.load(tmp_path / "scores.npy")
    triples = np.array([(h, r, t) for r in range(3) for h in range(0, 48, 5) for t in range(0, 48, 7)])
    h, r, t = triples.T
    # A known answer counts for itself there.
    known = set(map(tuple, model.graph.train.tolist()))
    new = np.array([tuple(row) not in known for row in triples.tolist()])
    both = np.stack([scores[r, h, t], scores[r + 3, t, h]], axis=1)
    np.testing.assert_allclose(both[new], score_triples(model.served, triples)[new], atol=1e-5)


def test_pykeens_state_scores_the_same(model):
    state = pykeen_state(model, tables_of(model))
    entities, relations = (
        state[f"{kind}_representations.0._embeddings.weight"].astype(np.float64) for kind in ("entity", "relation")
    )
    # Cardinality takes 2R complex coordinates more.
    assert entities.shape == (48, 8 + 12)
    assert relations.shape == (6, 8 + 12)
    # PyKEEN views them as [n, d / 2, 2] and then as complex.
    entities, relations = (table[:, ::2] + 1j * table[:, 1::2] for table in (entities, relations))
    triples = model.graph.test
    h, r, t = triples.T
    forward = (entities[h] * relations[2 * r] * entities[t].conj()).sum(axis=1).real
    backward = (entities[t] * relations[2 * r + 1] * entities[h].conj()).sum(axis=1).real
    # The entity that is asked about takes its own bonus off, of all its answers alike.
    times, bonus = cardinality_of(model)
    assert bonus.any()
    counted = times > 0
    own = np.stack([counted[h, r] * bonus[r], counted[t, r + 3] * bonus[r + 3]], axis=1)
    np.testing.assert_allclose(
        np.stack([forward, backward], axis=1) + own, score_triples(model.served, triples), atol=1e-5
    )


def test_parquet_tables_hold_names_and_numbers(model, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    export(model, tmp_path, ("parquet",))
    rows = parquet.read_table(tmp_path / "entities.parquet").to_pylist()
    assert [row["name"] for row in rows] == model.entities.names
    np.testing.assert_array_equal(
        np.array([row["answers"] for row in rows], np.float32), model.encode(range(48), answers=True)
    )
    relations = parquet.read_table(tmp_path / "relations.parquet").to_pylist()
    table = np.array([row[part] for part in ("forward", "inverse") for row in relations], np.float32)
    np.testing.assert_array_equal(table, tables_of(model)["relations"])
    columns = [row["cardinality"] for row in relations] + [row["inverse_cardinality"] for row in relations]
    np.testing.assert_array_equal(np.array(columns, np.float32), tables_of(model)["cardinality"])


def test_what_can_not_be_exported_is_said_in_a_line(tiny_run, model, tmp_path, monkeypatch, capsys):
    status = run_here("export", f"--workdir={tiny_run}", f"--out={tmp_path}", "--formats=onnx", monkeypatch=monkeypatch)
    assert_one_error(status, capsys.readouterr().err, "formats", "pykeen")
    other = dataclasses.replace(
        model, served=dataclasses.replace(model.served, model=model.served.model.clone(features_in="questions"))
    )
    with pytest.raises(mocme_jax.errors.UserError, match=r"fusion.features_in=questions"):
        export(other, tmp_path, ("pykeen",))
