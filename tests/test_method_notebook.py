"""The notebook on the method against NumPy, and the names and links of the page beside it."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest
from notebook_runner import code_cells, run_notebook

from mocme_jax.config_fields import FIELDS, SECTIONS

DOCS = Path(__file__).resolve().parent.parent / "docs" / "explanation"
NOTEBOOK, PAGE = DOCS / "method-notebook.ipynb", DOCS / "method.md"


@pytest.fixture(scope="module")
def ran():
    """The notebook's namespace, and what each cell printed."""
    return run_notebook(NOTEBOOK)


@pytest.fixture(scope="module")
def names(ran):
    return ran[0]


def in_float64(names, *wanted):
    return [np.asarray(names[name], np.float64) for name in wanted]


@pytest.mark.slow
def test_the_stored_outputs_are_those_of_the_cells(ran):
    for cell, printed in zip(code_cells(NOTEBOOK), ran[1], strict=True):
        stored = "".join("".join(output["text"]) for output in cell["outputs"])
        number = r"-?\d+\.?\d*"
        assert re.sub(rf"\s*{number}", "#", printed) == re.sub(rf"\s*{number}", "#", stored)
        values = [[float(x) for x in re.findall(number, text)] for text in (printed, stored)]
        # The last digit shown may be rounded the other way; shares are in percent.
        np.testing.assert_allclose(*values, rtol=0.002, atol=0.011)


def test_experts_equal_the_loop_and_read_no_missing_row(names):
    vectors, structure = in_float64(names, "vectors", "structure")
    np.testing.assert_array_equal(vectors[:, 0], structure)
    for m in range(3):
        present, features = names["present"][:, m], names["features"][m]
        assert np.isnan(features[~present]).all()
        down, up = (np.asarray(names[name][m], np.float64) for name in ("down", "up"))
        x = 0.4 * features[present].astype(np.float64)
        np.testing.assert_allclose(vectors[present, m + 1], x + np.maximum(x @ down, 0) @ up, rtol=1e-4, atol=1e-4)
    assert np.isfinite(vectors).all()


def test_the_structure_knows_its_triples_by_heart_and_features_are_fair_on_both(names):
    assert names["own"]["structure"][0] > 0.98
    assert names["own"]["structure"][1] < 0.4
    for expert in ("text", "copy"):
        train, dev = names["own"][expert]
        assert train == pytest.approx(dev, abs=0.08)
        assert dev > 0.3
    assert max(names["own"]["noise"]) < 0.05


def log_weights(names, variables, ids, relations, side):
    """By the formula, in float64."""
    own = {name: np.asarray(table, np.float64) for name, table in variables["params"].items()}
    has, evidence = names["has"][ids], np.log(1 + names["triples"][ids])
    found = np.where(has, own["has"][side], own["lacks"][side]) + own["evidence"][side] * evidence[:, None]
    return found if side else found + own["relation"][relations]


def test_fused_scores_are_the_weighted_sum_of_the_experts(names):
    """So are those of long vectors that hold all experts."""
    test, pool, variables = names["test"], names["pool"], names["fitted"]["dev"]
    vectors = in_float64(names, "vectors")[0]
    relations = np.asarray(names["relations"], np.float64)[test.relations]
    asked = np.exp(log_weights(names, variables, test.entities, test.relations, 0))
    answering = np.exp(log_weights(names, variables, pool, None, 1))
    expected = 0.0
    for j in range(4):
        head, answer = vectors[test.entities, j], vectors[pool, j]
        turned = (head[:, :16] + 1j * head[:, 16:]) * (relations[:, :16] + 1j * relations[:, 16:])
        own = (turned @ (answer[:, :16] + 1j * answer[:, 16:]).conj().T).real
        np.testing.assert_allclose(test.scores[j], own, rtol=1e-3, atol=1e-3)
        expected = expected + asked[:, [j]] * answering[:, j] * own
    for scores in (names["fused_scores"], names["long_scores"]):
        np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-2)


def test_weights_fitted_on_train_trust_the_structure_and_tell_less_of_new_answers(names):
    fitted, fusion = names["fitted"], names["complementarity"]
    shares = {
        (name, count): names["shares"](fusion, variables, np.flatnonzero(names["triples"] == count))
        for name, variables in fitted.items()
        for count in (3, 30)
    }
    for count in (3, 30):
        assert shares["train", count][0] > max(0.5, shares["dev", count][0] + 0.1)
        for name in fitted:
            assert shares[name, count].argmin() == 3
    # Where little is known of an entity, queries of dev turn to the text and its copy.
    assert shares["dev", 3][0] < 0.3 < 0.45 < shares["dev", 30][0]
    assert shares["dev", 3][1:3].sum() > 0.6
    (bound, mrr), (by_heart, by_heart_mrr) = names["judged"]["dev"], names["judged"]["train"]
    assert bound > by_heart + 1
    assert mrr > by_heart_mrr + 0.1
    assert bound < np.log(257)


def test_a_copy_adds_little_and_noise_nothing(names):
    added = names["added"]
    both = added["text", "copy"].nats
    assert added[("text",)].nats + added[("copy",)].nats < 0.7 * both
    assert min(added[("text",)].nats, added[("copy",)].nats) > 0.1
    assert abs(added[("noise",)].nats) < 0.1
    assert added[("structure",)].nats > 1
    assert all(one.triples == 200 for one in added.values())


def test_another_fusion_is_the_ablation(names):
    test, (bound, mrr) = names["test"], names["ablation"]
    rank = names["mean_reciprocal_rank"]
    plain = [np.asarray(x.sum(axis=0)) for x in (test.positive, test.scores)]
    assert mrr == pytest.approx(rank(*plain, test.negative), abs=0.01)
    assert names["judged"]["dev"][0] > bound + 1
    assert names["judged"]["dev"][1] > mrr + 0.1


def test_scores_are_the_formula_of_complex(names):
    scores, positive, query, reader = in_float64(names, "scores", "positive", "query", "reader")
    q, t = query[:, :16] + 1j * query[:, 16:], reader[:, :16] + 1j * reader[:, 16:]
    every = (q @ t.conj().T).real
    np.testing.assert_allclose(scores, every[:, names["candidates"]], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(positive, every[np.arange(8), names["tails"]], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(np.diag(scores), positive, rtol=1e-4, atol=1e-4)
    assert not np.diag(names["negative"]).any()


def test_weights_of_negatives_are_those_of_their_classes(names):
    scores, positive = in_float64(names, "scores", "positive")
    p = 1 / (1 + np.exp(positive[:, None] - scores))
    entropy = -p * np.log2(p) - (1 - p) * np.log2(1 - p)
    hard = (entropy >= 0.8) | (p > 0.5)
    # Among them a negative whose low entropy alone would make it easy.
    assert (hard & (entropy < 0.3)).any()
    weights = np.where(hard, 2.0, np.where(entropy < 0.3, 0.5, 1.0)) * names["negative"]
    weights *= names["negative"].sum(axis=1, keepdims=True) / weights.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(names["egns"].values, weights, rtol=1e-5, atol=1e-6)
    assert np.asarray(names["egns"].counts).sum() == names["negative"].sum()
    assert np.asarray(names["egns"].counts).all()


def test_weights_of_1_give_the_plain_loss_and_egns_its_own_gradient(names):
    scores, positive, weights = (*in_float64(names, "scores", "positive"), np.asarray(names["egns"].values))
    powers = np.exp(scores) * names["negative"]
    shares = {
        "softmax_loss": weights * (powers / (np.exp(positive) + powers.sum(axis=1))[:, None]),
        "margin_softmax_loss": weights * powers / (np.exp(positive) + (weights * powers).sum(axis=1))[:, None],
    }
    for loss, gradient in shares.items():
        results = {title: found for (kind, title), found in names["results"].items() if kind == loss}
        for plain, ones in zip(results["plain"], results["weights of 1"], strict=True):
            np.testing.assert_array_equal(plain, ones)
        np.testing.assert_allclose(results["EGNS"][1], gradient, rtol=1e-4, atol=1e-6)
        assert np.abs(results["EGNS"][1] - results["plain"][1]).max() > 0.01
    assert names["results"]["softmax_loss", "EGNS"][0] == names["results"]["softmax_loss", "plain"][0]


def test_four_holders_of_the_columns_give_the_losses_of_one(names):
    scores, positive, weights = (*in_float64(names, "scores", "positive"), np.asarray(names["egns"].values))
    powers = weights * np.exp(scores) * names["negative"]
    expected = np.log(np.exp(positive) + powers.sum(axis=1)) - positive
    for losses in (names["together"], names["spread"]):
        np.testing.assert_allclose(losses, expected, rtol=1e-4)


def defined(path: Path) -> set[str]:
    """Names of the functions, classes and constants at the top of a module."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def links(text: str) -> list[tuple[str, Path]]:
    return [(label, DOCS / target) for label, target in re.findall(r"\[([^\]]+)\]\(([^)#]+)\)", text)]


def test_links_of_the_page_lead_to_files_functions_and_tests():
    found = links(PAGE.read_text(encoding="utf-8"))
    assert len(found) > 50
    for label, path in found:
        assert path.exists(), f"[{label}] leads to {path}, which does not exist"
        if label.startswith("`"):
            assert label.strip("`") in defined(path), f"{path} has no {label}"


def test_the_first_table_names_functions_of_its_files():
    rows = [
        line for line in PAGE.read_text(encoding="utf-8").splitlines() if "](../../tests/" in line and line[0] == "|"
    ]
    assert len(rows) > 8
    for row in rows:
        _, word, functions, files, tests, _ = row.split("|")
        known = set().union(*(defined(path) for _, path in links(files)))
        assert set(re.findall(r"`(\w+)`", functions)) <= known, word
        assert links(tests), word


def test_the_config_fields_of_the_method_are_named_on_the_page_and_no_others():
    named = re.findall(r"`(\w+\.\w+)`", PAGE.read_text(encoding="utf-8"))
    named = [name for name in named if name.partition(".")[0] in SECTIONS]
    assert set(named) <= FIELDS.keys()
    assert set(named) >= {field for field in FIELDS if field.partition(".")[0] in ("model", "negatives", "loss")}
