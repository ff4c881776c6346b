"""What a stranger's JSON must look like: the first part that does not, named by its place."""

import json

import pytest

from mocme_jax.data.readers.json_shape import misfit

RUN = {"name": str, "epoch": int, "mrr?": (float, None), "curve": [[float]], "parts": {str: str}, "more?": object}
SOUND = {"name": "a", "epoch": 3, "mrr": None, "curve": [[1, 0.5]], "parts": {"x": "y"}, "odd": [], "more": {"a": [1]}}


def deep(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return value


def test_what_fits_fits():
    assert misfit(SOUND, RUN) is None
    assert misfit({name: SOUND[name] for name in ("name", "epoch", "curve", "parts")}, RUN) is None
    assert misfit(deep(20), object) is None
    assert misfit({"a": True}, {"a": bool}) is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"name": 7}, "name is 7, expected a text"),
        ({"name": "x" * 20_001}, f"name is {'x' * 40!r}, expected a text"),
        ({"epoch": True}, "epoch is True, expected a whole number"),
        ({"epoch": 1.0}, "epoch is 1.0, expected a whole number"),
        ({"epoch": 10**400}, "epoch is a whole number out of range, expected a whole number"),
        ({"mrr": "0.5"}, "mrr is '0.5', expected a number or nothing"),
        ({"mrr": float("nan")}, "mrr is nan, expected a number or nothing"),
        ({"mrr": 10**400}, "mrr is a whole number out of range, expected a number or nothing"),
        ({"curve": {}}, "curve is a mapping, expected a list"),
        ({"curve": [[1], 7]}, "curve[1] is 7, expected a list"),
        ({"curve": [[1, []]]}, "curve[0][1] is a list, expected a number"),
        ({"parts": []}, "parts is a list, expected a mapping"),
        ({"parts": {"x": None}}, "parts.x is None, expected a text"),
        ({"more": deep(21)}, "more is nested deeper than 20"),
        ({"more": [float("inf")]}, "more is nested deeper than 20, or contains a number that is not finite"),
    ],
)
def test_the_first_misfit_is_told_by_its_place(change, told):
    assert misfit(SOUND | change, RUN).startswith(told)


def test_what_lacks_is_told():
    assert misfit({"run": {}}, {"run": {"epoch": int}}) == "run.epoch is missing"
    assert misfit([], {"run": int}) == "it is a list, expected a mapping"


def test_values_of_json_itself():
    every = json.loads('[null, true, 1, -1.5, "", [], {}, {"": [null]}]')
    assert misfit(every, [object]) is None
    assert misfit(every, [(None, bool, float, str, [object], {str: object})]) is None
