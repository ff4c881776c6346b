"""Numeric attributes: ranks, masks, names or ids, and each bad input."""

import numpy as np
import pytest

from mocme_jax.data.numeric import numeric_modality, quantile_scale
from mocme_jax.data.openke import read_openke
from mocme_jax.errors import UserError

ENTITIES = ["a", "b", "c", "d"]


def test_quantiles_against_scipy_free_arithmetic():
    np.testing.assert_allclose(quantile_scale(np.array([10.0, -3, 1e30, 5])), [0.25, -0.75, 0.75, -0.25])
    np.testing.assert_allclose(quantile_scale(np.array([1.0, 1, 2, 3])), [-0.5, -0.5, 0.25, 0.75])
    np.testing.assert_allclose(quantile_scale(np.array([7.0, 7])), [0, 0])


def test_quantiles_are_centred_bounded_and_monotone():
    values = np.round(np.random.default_rng(0).standard_cauchy(500), 1)
    scaled = quantile_scale(values)
    assert abs(scaled.mean()) < 1e-12
    assert np.abs(scaled).max() < 1
    order = np.argsort(values)
    assert ((np.diff(scaled[order]) > 0) == (np.diff(values[order]) > 0)).all()
    np.testing.assert_allclose(quantile_scale(values**3), scaled)


def test_values_then_masks_by_alphabet(write_files):
    rows = "a\tsize\t1\nb\tsize\t3\nc\tsize\t2\nb\tage\t5\n"
    path = write_files({"n.tsv": rows}) / "n.tsv"
    modality = numeric_modality(path, ENTITIES, min_rows=1)
    third = 2 / 3
    np.testing.assert_allclose(
        modality.features,
        [[0, -third, 0, 1], [0, third, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]],
        atol=1e-6,
    )
    assert modality.present.tolist() == [True, True, True, False]
    kept = numeric_modality(path, ENTITIES, min_rows=2)
    assert kept.features.shape == (4, 2)
    assert numeric_modality(path, ENTITIES, min_rows=9).features.shape == (4, 4), (
        "dropping all would leave nothing"
    )


def test_several_values_count_with_their_mean_and_ids_serve_as_well(write_files):
    by_name = write_files({"n.tsv": "entity\tattribute\tvalue\na\tx\t1\na\tx\t5\nb\tx\t2\n"}) / "n.tsv"
    by_id = write_files({"i.tsv": "0\tx\t3\n1\tx\t2\n"}) / "i.tsv"
    first, second = (numeric_modality(path, ENTITIES, min_rows=1) for path in (by_name, by_id))
    np.testing.assert_array_equal(first.features, second.features)
    assert first.features[:, 0].tolist() == [0.5, -0.5, 0, 0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"n\.tsv: holds no rows"),
        ("a\tx\n", r"n\.tsv:1: expected 'entity<TAB>attribute<TAB>value'"),
        ("a\tx\t1\nb\tx\tbig\n", r"n\.tsv:2: value 'big' is no finite number"),
        ("a\tx\tnan\n", r"n\.tsv:1: value 'nan' is no finite number"),
        ("a\tx\tinf\n", r"n\.tsv:1: value 'inf' is no finite number"),
        ("entity\tattribute\tvalue\na\tx\t1\nz\tx\t1\n", r"n\.tsv:3: 'z' is no entity .*\(1 such rows\)"),
        ("0\tx\t1\n4\tx\t1\n", r"n\.tsv:\d: '.' is no entity"),
    ],
)
def test_bad_rows(write_files, content, message):
    with pytest.raises(UserError, match=message):
        numeric_modality(write_files({"n.tsv": content}) / "n.tsv", ENTITIES)


@pytest.mark.parametrize(("name", "entities", "attributes"), [("DB15K", 11_241, 113), ("MKG-Y", 5_012, 5)])
def test_benchmarks(benchmark_data, name, entities, attributes):
    graph = read_openke(benchmark_data / name)
    modality = numeric_modality(benchmark_data / name / "numeric_triples.tsv", graph.entities, min_rows=1)
    assert modality.features.shape == (len(graph.entities), 2 * attributes)
    assert modality.present.sum() == entities
    values, given = np.split(modality.features, 2, axis=1)
    assert (values[given == 0] == 0).all()
    assert np.abs(values).max() < 1


@pytest.mark.parametrize("value", ["1_000", "\u0663", "9" * 400, "1e400", "0x10"])
def test_numbers_in_other_writings(write_files, value):
    with pytest.raises(UserError, match=r"n\.tsv:2: value '.*' is no finite number"):
        numeric_modality(write_files({"n.tsv": f"a\tx\t1\nb\tx\t{value}\n"}) / "n.tsv", ENTITIES)


def test_a_table_that_the_rows_do_not_fill_is_refused_before_it_is_made(write_files):
    # 30,000 attributes of 5,000 entities: 1.2 GB for 700 kB of rows.
    rows = "".join(f"{index % 3}\tattribute {index}\t1\n" for index in range(30_000))
    path = write_files({"n.tsv": rows}) / "n.tsv"
    with pytest.raises(UserError, match=r"30,000 attributes of 5,000 entities would be 150,000,000 cells for 30,000"):
        numeric_modality(path, [f"entity {index}" for index in range(5000)])
    assert numeric_modality(path, ["a", "b", "c"]).features.shape == (3, 60_000)
