"""The notebook on the method against NumPy, and the names and links of the page beside it."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest
from notebook_runner import code_cells, run_notebook

from mocme_jax.config_fields import FIELDS, SECTIONS

DOCS = Path(__file__).resolve().parent.parent / "docs"
NOTEBOOK, PAGE = DOCS / "method.ipynb", DOCS / "method.md"


@pytest.fixture(scope="module")
def ran():
    """The notebook's namespace, and what each cell printed."""
    return run_notebook(NOTEBOOK)


@pytest.fixture(scope="module")
def names(ran):
    return ran[0]


def in_float64(names, *wanted):
    return [np.asarray(names[name], np.float64) for name in wanted]


def test_the_stored_outputs_are_those_of_the_cells(ran):
    for cell, printed in zip(code_cells(NOTEBOOK), ran[1], strict=True):
        stored = "".join("".join(output["text"]) for output in cell["outputs"])
        number = r"-?\d+\.?\d*"
        assert re.sub(rf"\s*{number}", "#", printed) == re.sub(rf"\s*{number}", "#", stored)
        values = [[float(x) for x in re.findall(number, text)] for text in (printed, stored)]
        # The last digit shown may be rounded the other way; shares are in percent.
        np.testing.assert_allclose(*values, rtol=0.002, atol=0.011)


def test_views_equal_the_loop_and_read_no_missing_row(names):
    present, features = names["present"][:, 2], names["features"][2]
    assert np.isnan(features[~present]).all()
    dense = np.asarray(names["views"][2].dense())
    x, down, up = (np.asarray(part, np.float64) for part in (features[present], names["down"], names["up"]))
    for k in range(3):
        expected = x + np.maximum(x @ down[k], 0) @ up[k]
        np.testing.assert_allclose(dense[present, k], expected, rtol=1e-4, atol=1e-4)
    assert not dense[~present].any()


def test_both_estimators_tell_a_copy_from_noise(names):
    for between in names["information"].values():
        assert between[0, 1] > 4
        assert between[0, 2] < 0.2
        assert between[1, 2] < 0.2


def test_missing_parts_weigh_nothing_and_the_others_by_their_formula(names):
    present = names["present"]
    prior, between = in_float64(names, "prior")[0], np.asarray(names["information"]["gaussian"], np.float64)
    for kind, weights in names["weights"].items():
        assert not weights[~present].any()
        if kind == "sum":
            np.testing.assert_array_equal(weights, present)
        else:
            np.testing.assert_allclose(weights.sum(axis=1), present.any(axis=1), atol=1e-5)
    # Entity 0 has all parts.
    logits = [prior[i] - np.mean([between[i, j] for j in range(3) if j != i]) for i in range(3)]
    expected = np.exp(logits) / np.sum(np.exp(logits))
    np.testing.assert_allclose(names["weights"]["complementarity"][0], expected, rtol=1e-4)
    assert names["alone"].weights[0, 2] > 0.9


def test_another_fusion_is_the_ablation(names):
    mean, full = names["Mean"](), names["complementarity"]
    present = names["present"]
    np.testing.assert_allclose(
        names["cmkf"](full, mean).weights, present / np.maximum(present.sum(axis=1, keepdims=True), 1), rtol=1e-5
    )
    assert not np.allclose(names["cmkf"](mean, full).vectors, names["vectors"], atol=1e-3)


def test_scores_are_the_formula_of_complex(names):
    scores, positive, query = in_float64(names, "scores", "positive", "query")
    vectors = np.asarray(names["vectors"], np.float64)
    q, t = query[:, :4] + 1j * query[:, 4:], vectors[:, :4] + 1j * vectors[:, 4:]
    every = (q @ t.conj().T).real
    np.testing.assert_allclose(scores, every[:, names["candidates"]], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(positive, every[np.arange(8), names["tails"]], rtol=1e-3, atol=1e-4)
    assert scores[0, 5] == pytest.approx(positive[0], abs=1e-4)
    assert not names["negative"][0, 5]


def test_weights_of_negatives_are_those_of_their_classes(names):
    scores, positive = in_float64(names, "scores", "positive")
    p = 1 / (1 + np.exp(positive[:, None] - scores))
    entropy = -p * np.log2(p) - (1 - p) * np.log2(1 - p)
    weights = np.where(entropy < 0.3, 0.5, np.where(entropy < 0.8, 1.0, 2.0)) * names["negative"]
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
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if "](../tests/" in line and line[0] == "|"]
    assert len(rows) > 8
    for row in rows:
        _, word, functions, files, tests, _ = row.split("|")
        known = set().union(*(defined(path) for _, path in links(files)))
        assert set(re.findall(r"`(\w+)`", functions)) <= known, word
        assert links(tests), word


def test_the_config_fields_of_the_page_exist():
    named = re.findall(r"`(\w+\.\w+)`", PAGE.read_text(encoding="utf-8"))
    named = [name for name in named if name.partition(".")[0] in SECTIONS]
    assert len(set(named)) > 20
    assert set(named) <= FIELDS.keys()
