"""What a person's name, readable name or number stands for, in graphs of words and in graphs of numbers."""

import numpy as np
import pytest

from mocme_jax.errors import UserError
from mocme_jax.serving.name_lookup import Lookup

WORDS = Lookup("entity", ["<http://x.org/resource/New_York>", "a b", "a_b", "c"])
IDS = Lookup("entity", [str(index) for index in range(4)])
NUMBERS = Lookup("entity", ["28", "3", "0", "1"])


def test_words_by_name_readable_name_and_id():
    assert WORDS.ids(["New York", "a b", "c", "3", 1, np.int64(2)]).tolist() == [0, 1, 3, 3, 1, 2]


def test_numbers_by_name():
    keys = ["0", "1", 3, np.int32(0)]
    assert IDS.ids(keys).tolist() == [0, 1, 3, 0]
    assert NUMBERS.ids(keys).tolist() == [2, 3, 1, 2]
    assert NUMBERS.id(28) == NUMBERS.id("28") == 0


@pytest.mark.parametrize(
    ("lookup", "key", "message"),
    [
        (WORDS, 4, "entity id 4: expected 0 to 3"),
        (WORDS, "4", "entity id 4: expected 0 to 3"),
        (WORDS, -1, "entity id -1: expected 0 to 3"),
        (WORDS, "9" * 30, "no such name"),
        (WORDS, "Nw York", r"no such name; did you mean New York\?"),
        (WORDS, "a  b", r"matches several names, such as a b \(id 1\), a_b \(id 2\)"),
        (IDS, 4, r"entity '4': no such name \(the names are whole numbers, so a number is a name and not an id\)"),
        (NUMBERS, 2, "entity '2': no such name"),
        (NUMBERS, "2", "entity '2': no such name"),
        (NUMBERS, -1, "entity '-1': no such name"),
    ],
)
def test_what_is_not_there_stands_for_nothing_else(lookup, key, message):
    with pytest.raises(UserError, match=message):
        lookup.id(key)
