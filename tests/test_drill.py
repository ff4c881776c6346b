"""A small crash drill in every run of the tests; the large one is a command."""

import pytest
from drills import kill, kill_commands
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


@pytest.mark.slow
def test_a_killed_command_ends_as_if_nothing_had_been(tmp_path):
    (command,) = kill_commands.commands(tmp_path, ["prepare --triples"])
    drill = kill_commands.Drill(tmp_path, 3)
    # On a busy machine the moment of a kill may come after the end.
    for _ in range(10):
        drill.run(command, most=3)
        if drill.kills:
            break
    assert sum(drill.kills.values()) > 0
    assert not drill.wrong, drill.wrong


def test_what_a_command_left_is_compared_without_seconds(tmp_path):
    def left(seconds, mrr, name):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        (folder / "rows.jsonl").write_text(f'{{"seconds": {seconds}, "dev": {{"mrr": {mrr}}}}}\n')
        (folder / name).write_bytes(b"table")
        return kill_commands.left(folder)

    assert left(1, 0.5, "table") == left(2, 0.5, "table")
    assert left(1, 0.5, "table") != left(1, 0.6, "table")
    assert left(1, 0.5, "table") != left(1, 0.5, ".table.part")


def test_a_difference_is_a_difference():
    one = {"metrics": [{"epoch": 1}], "results": {}, "last": {"number": 1}, "best": {"x": b"ab"}}
    assert kill.differences(one, dict(one)) == []
    assert kill.differences(one, one | {"best": {"x": b"ac"}, "metrics": []}) == ["metrics", "best"]
