"""Filled-in rows of stand-ins for published feature files, with the defects that those have."""

import numpy as np
import pytest
from test_torch_file import tensor, write_zip

from mocme_jax.data.audit.graph_audit import audit
from mocme_jax.data.features.feature_files import read_feature_file
from mocme_jax.data.features.filled_rows import find_filled
from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph


def vectors(count: int, width: int, seed: int = 0) -> np.ndarray:
    """As of a network's last layer: not negative, some columns large, means far from 0."""
    rng = np.random.default_rng(seed)
    scale = rng.lognormal(size=width)
    return np.maximum(rng.standard_normal((count, width)) + 0.5, 0).astype(np.float32) * scale.astype(np.float32)


def filled_in(rows: np.ndarray, lacking: np.ndarray, what: str) -> np.ndarray:
    """The rows with those of the entities that lack the modality as a release has them."""
    filler = {
        "mean": rows[~lacking].mean(axis=0),
        "zeros": np.zeros(rows.shape[1]),
        "ones": np.ones(rows.shape[1]),
        "one random row": np.random.default_rng(9).standard_normal(rows.shape[1]),
    }[what]
    return np.where(lacking[:, None], filler.astype(rows.dtype), rows)


@pytest.mark.parametrize("what", ["mean", "zeros", "ones", "one random row"])
@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_what_was_filled_in_is_found_and_nothing_else(what, share, dtype):
    rows = vectors(1200, 64)
    lacking = np.random.default_rng(1).random(1200) < share
    found = find_filled(filled_in(rows, lacking, what).astype(dtype))
    assert found.any.tolist() == lacking.tolist()
    kind = {"mean": "mean", "one random row": "repeated"}.get(what, "constant")
    assert getattr(found, kind).tolist() == lacking.tolist()


def test_a_single_mean_row_is_found():
    rows = vectors(500, 64)
    rows[7] = np.delete(rows, 7, axis=0).mean(axis=0)
    assert np.flatnonzero(find_filled(rows).any).tolist() == [7]


def test_real_rows_that_repeat_stay():
    """As descriptions in DB15K do: American actor 343 times, American actress 218, music genre 93."""
    rows = vectors(3000, 64)
    rows[:343], rows[343:561], rows[561:654] = rows[0], rows[343], rows[561]
    assert not find_filled(rows).any.any()
    # Two pictures of one flag, and the same placeholder nineteen times.
    pictures = vectors(3000, 64, seed=1)
    pictures[1], pictures[10:29] = pictures[0], pictures[10]
    assert not find_filled(pictures).any.any()
    # With a filler for a tenth of the entities, only the filler goes.
    rows[2000:] = vectors(1, 64, seed=2)
    rows[100:561] = vectors(461, 64, seed=3)
    assert np.flatnonzero(find_filled(rows).any).tolist() == list(range(2000, 3000))


@pytest.mark.parametrize("rows", [np.ones((40, 3)), np.eye(20), vectors(1, 20), vectors(2, 20), np.zeros((0, 20))])
def test_narrow_and_small_matrices_and_one_hot_rows_are_left_alone(rows):
    assert not find_filled(rows).any.any()


def test_categories_stay_whichever_is_the_most_frequent():
    kinds = np.r_[np.zeros(400, int), np.random.default_rng(0).integers(1, 20, 200)]
    assert not find_filled(np.eye(20)[kinds]).any.any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_rows_that_are_not_finite_are_left_to_be_reported(bad):
    rows = vectors(300, 32)
    rows[:40, 5] = bad
    assert not find_filled(rows).any.any()


def test_huge_rows_do_not_make_the_others_the_mean():
    rows = vectors(1000, 32)
    rows[0], rows[1] = 1e7, -1e7
    rows[:2, 0] = 0
    assert not find_filled(rows).any.any()


def test_years_as_numeric_rows_are_left_alone(tmp_path):
    rows = np.repeat(np.arange(3), 40)[:, None] * np.ones((1, 20))
    names = [f"e{index}" for index in range(120)]
    for name, told in (("numeric", 0), ("other", 1)):
        np.save(tmp_path / f"{name}.npy", rows + (np.arange(120) == 5)[:, None] * np.arange(20))
        lines: list[str] = []
        modality = read_feature_file(tmp_path / f"{name}.npy", name, names, lines.append)
        assert (modality.present.all(), len(lines)) == (not told, told)


def test_a_file_that_marks_what_is_missing_is_believed(tmp_path):
    names = [f"e{index}" for index in range(200)]
    rows = filled_in(vectors(200, 32), np.arange(200) < 50, "mean")
    lines: list[str] = []
    np.savez(tmp_path / "image.npz", rows=rows, present=np.arange(200) != 199)
    assert read_feature_file(tmp_path / "image.npz", "image", names, lines.append).present.sum() == 199
    rows[199] = np.nan
    np.save(tmp_path / "image.npy", rows)
    assert read_feature_file(tmp_path / "image.npy", "image", names, lines.append).present.sum() == 199
    assert lines == []


def test_a_torch_file_says_in_one_line_what_is_treated_as_missing(tmp_path):
    lacking = np.arange(300) % 10 == 0
    rows = vectors(300, 96)
    rows[1] = 0
    rows[lacking] = rows[~lacking].sum(axis=0) / 269  # zeros add nothing
    path = write_zip(tmp_path / "image.pth", tensor(rows), {"0": rows.tobytes()})
    lines: list[str] = []
    names = [f"e{index}" for index in range(300)]
    modality = read_feature_file(path, "image", names, lines.append)
    lacking[1] = True
    assert modality.present.tolist() == (~lacking).tolist()
    np.testing.assert_array_equal(modality.features[~lacking], rows[~lacking])
    assert lines == [
        f"{path}: 31 of 300 rows look filled in and are treated as missing (30 are the mean of the others, "
        "1 are constant); to keep them, save the arrays rows and present as an .npz"
    ]
    triples = np.array([[0, 0, 1]], np.int32)
    graph = KnowledgeGraph("g", names, ["r"], triples, triples[:0], triples[:0], (modality,))
    assert not [line for line in audit(graph).warnings() if "share one row" in line]


def test_rows_are_kept_as_the_message_says(tmp_path):
    """So a run that was trained with them can be read: its features are the same to the last bit."""
    rows, names = filled_in(vectors(200, 32), np.arange(200) < 50, "zeros"), [f"e{index}" for index in range(200)]
    np.savez(tmp_path / "image.npz", rows=rows, present=np.ones(200, bool))
    kept = read_feature_file(tmp_path / "image.npz", "image", names, pytest.fail)
    assert kept.present.all()
    np.testing.assert_array_equal(kept.features, rows)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "width", "lacking"), [("image", 4096, 756), ("text", 768, 2695), ("noise", 768, 0)])
def test_the_shapes_of_mkg_y(tmp_path, name, width, lacking):
    """15,000 entities, 4,096 wide pictures, 768 wide texts, and noise that nothing is wrong with."""
    rows = np.random.default_rng(2).standard_normal((15_000, width), np.float32)
    without = np.random.default_rng(3).permutation(15_000) < lacking
    rows = filled_in(rows, without, "mean") if lacking else rows
    np.save(tmp_path / f"{name}.npy", rows)
    lines: list[str] = []
    modality = read_feature_file(tmp_path / f"{name}.npy", name, [f"e{index}" for index in range(15_000)], lines.append)
    assert modality.present.tolist() == (~without).tolist()
    assert len(lines) == bool(lacking)
