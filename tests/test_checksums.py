"""Checksums of arrays: against a loop, any flipped bit, any layout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from mocme_jax.training.checkpoints.checksums import checksums

NOWHERE = ("nothing", 0)
MASK = 2**32 - 1


def mix(place: int) -> int:
    place = ((place ^ place >> 16) * 0x85EBCA6B) & MASK
    place = ((place ^ place >> 13) * 0xC2B2AE35) & MASK
    return place ^ place >> 16


def by_hand(array: np.ndarray) -> int:
    if array.dtype == bool:
        array = array.astype(np.uint8)
    bits = array.reshape(-1).view({1: np.uint8, 2: np.uint16, 4: np.uint32}[array.dtype.itemsize])
    return sum(int(word) * (2 * mix(place) + 1) for place, word in enumerate(bits)) & MASK


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "table": rng.standard_normal((6, 5)).astype(np.float32),
        "cube": rng.standard_normal((2, 3, 4)).astype(jnp.bfloat16),
        "scalar": np.int32(-7),
        "key": rng.integers(0, 2**32, 2, dtype=np.uint32),
        "mask": rng.random(9) < 0.5,
        "empty": np.zeros((0, 3), np.float32),
    }


def of(tree, table=NOWHERE):
    return checksums(jax.tree.map(jnp.asarray, tree), table)


def test_they_are_those_of_a_loop():
    sums, finite = of(arrays())
    assert sums == {name: by_hand(np.asarray(array)) for name, array in arrays().items()}
    assert finite
    assert len(set(sums.values())) == len(sums)


def test_any_flipped_bit_and_any_swap_is_another_sum():
    table = arrays()["table"]
    before = of({"x": table})[0]["x"]
    for place in range(table.size):
        for bit in range(32):
            words = table.reshape(-1).view(np.uint32).copy()
            words[place] ^= np.uint32(1 << bit)
            assert by_hand(words) != before
    for changed in (table[::-1], np.roll(table, 1), table.reshape(5, 6).T):
        assert of({"x": changed})[0]["x"] != before
    # The loop above is only as good as its agreement with the device's.
    words = table.reshape(-1).view(np.uint32).copy()
    words[17] ^= np.uint32(1 << 31)
    assert of({"x": words.view(np.float32).reshape(6, 5)})[0]["x"] == by_hand(words) != before


@pytest.mark.parametrize("devices", [2, 8])
def test_the_layout_and_rows_that_fill_up_do_not_count(devices):
    rng = np.random.default_rng(1)
    tree = {"structure": rng.standard_normal((21, 5)).astype(np.float32), "other": np.arange(30.0, dtype=np.float32)}
    table = ("structure", 21)
    plain = of(tree, table)[0]
    assert plain["structure"] == by_hand(tree["structure"])
    filled = np.concatenate([tree["structure"], rng.standard_normal((3, 5)).astype(np.float32)])
    mesh = jax.make_mesh((devices,), ("devices",), devices=jax.devices()[:devices])
    for spec in (PartitionSpec("devices"), PartitionSpec()):
        spread = {"structure": jax.device_put(filled, NamedSharding(mesh, spec))}
        spread["other"] = jax.device_put(tree["other"], NamedSharding(mesh, PartitionSpec()))
        assert checksums(spread, table)[0] == plain


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_told(value):
    tree = arrays()
    tree["table"][3, 2] = value
    assert not of(tree)[1]
