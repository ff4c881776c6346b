"""A small crash drill in every run of the tests; the large one is a command."""

import pytest
from drills import kill
from tiny_graph import tiny_flags, write_tiny_graph


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(kill, "pty"), reason="needs a terminal of its own")
def test_killed_trainings_end_as_if_nothing_had_been(tmp_path, monkeypatch):
    # A kill may leave half a compiled program.
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
    graph = write_tiny_graph(tmp_path / "graph")
    fields = {"train__epochs": 18, "train__eval_every": 1, "train__save_minutes": 0.001}
    flags = tiny_flags(graph, tmp_path, **fields, train__average=20)[1:]
    # In a save, while dev is scored, and anywhere.
    kills, wrong = kill.drill(3, 4, tmp_path, flags, epochs=18, weights=(0, 1, 2, 2, 0))
    assert sum(kills.values()) >= 3
    assert not wrong, wrong


def test_a_difference_is_a_difference():
    one = {"metrics": [{"epoch": 1}], "results": {}, "last": {"number": 1}, "best": {"x": b"ab"}}
    assert kill.differences(one, dict(one)) == []
    assert kill.differences(one, one | {"best": {"x": b"ac"}, "metrics": []}) == ["metrics", "best"]
