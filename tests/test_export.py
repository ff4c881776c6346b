"""Exports: read back by the lines of the docs, without the package."""

import dataclasses
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command_runner import assert_one_error, run_here

import mocme_jax
from mocme_jax.data.readers.safetensors_file import read_safetensors
from mocme_jax.method.complementarity import Complementarity
from mocme_jax.method.mocme import init_params
from mocme_jax.method.scoring import SCORES
from mocme_jax.parallel.entity_tables import look_up
from mocme_jax.serving.compiled_queries import encode_some
from mocme_jax.serving.completion import added_to_triples, score_triples
from mocme_jax.serving.exported_tables import cardinality_of, export, pykeen_state, tables_of
from mocme_jax.serving.top_candidates import in_blocks

DOC = (Path(__file__).resolve().parent.parent / "docs" / "guides" / "export.md").read_text(encoding="utf-8")


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


def with_score(model, name):
    """The same graph and experts under another score function, with parameters that are all drawn at random."""
    served, entities, rng = model.served, len(model.entities), np.random.default_rng(0)
    module = served.model.clone(score=SCORES[name])
    shapes = jax.eval_shape(lambda key: init_params(module, key, entities), jax.random.key(0))
    params = jax.tree.map(lambda x: jnp.asarray(0.3 * rng.standard_normal(x.shape), x.dtype), shapes)
    everyone = look_up(params.structure, served.inputs, np.arange(entities), split=False)
    vectors = encode_some(module, params.model, everyone)
    tables = served.tables._replace(questions=in_blocks(vectors.questions), answers=in_blocks(vectors.answers))
    return dataclasses.replace(model, served=dataclasses.replace(served, model=module, params=params, tables=tables))


def halves(x):
    return x[..., : x.shape[-1] // 2] + 1j * x[..., x.shape[-1] // 2 :]


BY_HAND = {
    "complex": lambda h, r, t, core: (halves(h) * halves(r) * halves(t).conj()).sum(axis=-1).real,
    "rotate": lambda h, r, t, core: -np.abs(halves(h) * np.exp(1j * r) - halves(t)).sum(axis=-1),
    "transe": lambda h, r, t, core: -np.abs(h + r - t).sum(axis=-1),
    "distmult": lambda h, r, t, core: (h * r * t).sum(axis=-1),
    "tucker": lambda h, r, t, core: np.einsum("nhd,nhr,hrde,nhe->nh", h, r, core, t),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_the_tables_sum_up_to_the_models_own_scores(model, tmp_path, name):
    other, count = with_score(model, name), len(model.relations)
    export(other, tmp_path, ("npz",))
    with np.load(tmp_path / "tables.npz") as file:
        tables = {key: table.astype(np.float64) for key, table in file.items()}
    meta = json.loads((tmp_path / "model.json").read_text(encoding="utf-8"))
    assert meta["experts"] == ["structure", "numeric", "text", "joint expert"]
    assert tables["entities"].shape == (48, 4, 8)
    for weights in ("question_weights", "answer_weights", "relation_weights"):
        # Else the formula below could do without them.
        assert np.std(np.log(tables[weights])) > 0.1, weights
    triples = np.array([(h, r, t) for r in range(count) for h in range(0, 48, 5) for t in range(0, 48, 7)])

    def scores(heads, relations, tails, without=None):
        ends = tables["entities"][heads], tables["relations"][relations], tables["entities"][tails]
        weights = tables["question_weights"][heads] * tables["relation_weights"][relations]
        weights *= tables["answer_weights"][tails]
        weights[:, [] if without is None else without] = 0
        return (weights * BY_HAND[name](*ends, tables.get("core"))).sum(axis=1)

    h, r, t = triples.T
    found = np.stack([scores(h, r, t), scores(t, r + count, h)], axis=1)
    # What additions add is not of the experts.
    expected = score_triples(other.served, triples) - added_to_triples(other.served, triples)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    # And an expert that is left out is left out of the sum.
    own = other.served.tables
    poorer = dataclasses.replace(
        other.served, tables=own._replace(questions=other.served.model.without(own.questions, 2))
    )
    found = np.stack([scores(h, r, t, without=2), scores(t, r + count, h, without=2)], axis=1)
    expected = score_triples(poorer, triples) - added_to_triples(poorer, triples)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


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
    np.testing.assert_allclose(both[new], score_triples(model.served, triples)[new], rtol=1e-5, atol=1e-5)


def test_pykeens_state_scores_the_same(model, tiny_baseline):
    # Of structure alone, with what the other run adds to scores: the graph is the same.
    alone = mocme_jax.load(tiny_baseline)
    assert alone.entities.names == model.entities.names
    model = dataclasses.replace(alone, served=dataclasses.replace(alone.served, facts=model.served.facts))
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
    tables = tables_of(model)
    for column, name in (("vectors", "entities"), ("question_weights",) * 2, ("answer_weights",) * 2):
        np.testing.assert_array_equal(np.array([row[column] for row in rows], np.float32), tables[name].reshape(48, -1))
    relations = parquet.read_table(tmp_path / "relations.parquet").to_pylist()
    table = np.array([row[part] for part in ("forward", "inverse") for row in relations], np.float32)
    np.testing.assert_array_equal(table, tables["relations"].reshape(6, -1))
    weights = np.array([row[part] for part in ("weights", "inverse_weights") for row in relations], np.float32)
    np.testing.assert_array_equal(weights, tables["relation_weights"])
    columns = [row["cardinality"] for row in relations] + [row["inverse_cardinality"] for row in relations]
    np.testing.assert_array_equal(np.array(columns, np.float32), tables["cardinality"])


def test_what_can_not_be_exported_is_said_in_a_line(tiny_run, model, tmp_path, monkeypatch, capsys):
    status = run_here("export", f"--workdir={tiny_run}", f"--out={tmp_path}", "--formats=onnx", monkeypatch=monkeypatch)
    assert_one_error(status, capsys.readouterr().err, "formats", "pykeen")
    for other, words in (
        (model, "supports only models of structure alone"),
        (with_score(model, "transe"), "score complex"),
    ):
        with pytest.raises(mocme_jax.errors.UserError, match=words):
            export(other, tmp_path, ("pykeen",))
    monkeypatch.setattr(Complementarity, "separable", False)
    with pytest.raises(mocme_jax.errors.UserError, match="tables cannot hold the weights"):
        export(model, tmp_path, ("npz",))


def test_a_missing_package_is_said_before_anything_is_written(model, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "pyarrow" else find(name))
    with pytest.raises(
        mocme_jax.errors.UserError,
        match=r"format parquet: needs a package; run: .*python[0-9.]* -m pip install -e .*\[parquet\]",
    ):
        export(model, tmp_path / "export", ("npz", "parquet"))
    assert not (tmp_path / "export").exists()
