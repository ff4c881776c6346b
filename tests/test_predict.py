"""The command predict: tables, files that go on, what it refuses."""

import json
import re
import sys

import numpy as np
import pytest
from command_runner import assert_one_error, run_here

from mocme_jax.errors import UserError
from mocme_jax.serving import run_loading
from mocme_jax.serving.answer_files import RowFile
from mocme_jax.serving.explanation import masked_scores


@pytest.fixture(scope="module")
def loaded():
    """Models by where they were read from, so that their programs are compiled once."""
    return {}


@pytest.fixture
def predict(tiny_run, loaded, monkeypatch, capsys):
    """Runs the command on the tiny run; returns its status and what it printed."""
    read = run_loading.load

    def load(workdir, *, notify, check=None, **folders):
        place = (workdir, *folders.items())
        if place not in loaded:
            loaded[place] = read(workdir, notify=notify, check=check, **folders)
        return loaded[place]

    monkeypatch.setattr(run_loading, "load", load)

    def start(*argv):
        status = run_here("predict", f"--workdir={tiny_run}", *map(str, argv), monkeypatch=monkeypatch)
        return status, *capsys.readouterr()

    return start


@pytest.fixture(scope="module")
def queries(tmp_path_factory):
    rows = [f"place {i}\tnext\t?" for i in range(20)] + [f"?\tmember of\tplace {6 * i}" for i in range(4)]
    path = tmp_path_factory.mktemp("queries") / "queries.tsv"
    path.write_text("\n".join([*rows, "place 3\t\tplace 4"]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("k", ["3", 2.0, True, None, 0, -1])
def test_a_number_of_answers_that_is_none_is_refused(model, k):
    for ask in (
        lambda: model.complete("place 4", "next", k=k),
        lambda: model.complete(head="place 4", tail="place 5", k=k),
        lambda: model.neighbours("place 4", k=k),
    ):
        with pytest.raises(UserError, match=f"k is {re.escape(repr(k))}, expected a whole number, at least 1"):
            ask()


def test_a_question_is_answered_with_a_table_or_json(predict, model):
    status, out, _ = predict("--head=place 4", "--relation=next", "--k=3")
    answers = model.complete("place 4", "next", k=3)
    assert status == 0
    assert all(word in out for word in ("rank", "probability", "known", "adds to score", answers[0].label))
    # The probability of a known answer is not one of those that stand beside it.
    assert {answer.known for answer in answers} >= {"train", "new"}
    for answer in answers:
        (line,) = (line for line in out.splitlines() if f" {answer.label} " in line and "?" not in line)
        assert (f" {answer.known} *" in line) == (answer.known != "new")
    assert "* already known" in out
    status, out, _ = predict("--head=place 4", "--relation=next", "--k=3", "--json")
    rows = json.loads(out)
    assert [row["name"] for row in rows] == [answer.name for answer in answers]
    for row in rows:
        scores = masked_scores(model.served, model.triples([("place 4", "next", row["name"])]))[0, :, 0]
        for name, value in row["adds_to_score"].items():
            without = scores[1 + ["structure", *(m.name for m in model.graph.modalities)].index(name)]
            assert value == pytest.approx(scores[0] - without, abs=1e-4)
    status, out, _ = predict("--head=place 4", "--relation=next", "--exclude-known=train,valid,test", "--json")
    assert {row["known"] for row in json.loads(out)} == {"new"}
    assert "*" not in predict("--head=place 4", "--relation=next", "--exclude-known=train,valid,test")[1]


def test_an_explanation_is_a_table_or_json(predict, model):
    triple = ("--head=place 4", "--relation=next", "--tail=place 5")
    status, out, _ = predict("--explain", *triple, "--json")
    why = model.explain(("place 4", "next", "place 5")).to_dict()
    assert status == 0
    assert json.loads(out) == json.loads(json.dumps(why))
    status, out, _ = predict("--explain", *triple)
    assert status == 0
    assert "score without" in out
    assert "nearest training triples" in out
    assert "do not measure what a modality adds" in out
    # Signed as in the table of answers: what is there, less what is left without the modality.
    line = next(line for line in out.splitlines() if line.startswith("│ numeric "))
    without, adds = map(float, re.findall(r"-?\d+\.\d+", line)[:2])
    assert adds == pytest.approx(why["score"] - without, abs=2e-4)


def read_tsv(path):
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_file_of_questions_is_answered(predict, model, queries, tmp_path):
    for suffix in ("tsv", "jsonl"):
        assert predict(f"--queries={queries}", f"--out={tmp_path / 'out'}.{suffix}", "--k=3")[0] == 0
    head, *rows = read_tsv(tmp_path / "out.tsv")
    assert head == ["query", "head", "relation", "tail", "rank", "score", "probability", "known"]
    assert [row[0] for row in rows] == [str(number) for number in range(1, 26) for _ in range(3)]
    expected = model.complete(relation="member of", tail="place 6", k=3)
    assert [row[1] for row in rows if row[0] == "22"] == [answer.name for answer in expected]
    assert [row[2] for row in rows if row[0] == "25"] == [a.name for a in model.complete("place 3", tail="place 4")]
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    flat = [[str(line["query"]), *map(str, row.values())] for line in lines for row in line["answers"]]
    assert [row[:5] + row[7:] for row in flat] == [row[:5] + row[7:] for row in rows]
    np.testing.assert_allclose([float(row[6]) for row in flat], [float(row[6]) for row in rows], rtol=1e-5)


@pytest.mark.parametrize("suffix", ["tsv", "jsonl"])
def test_a_file_that_was_cut_off_goes_on_after_its_last_whole_row(predict, queries, tmp_path, suffix, monkeypatch):
    whole, cut = tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
    monkeypatch.setattr("mocme_jax.serving.query_files.CHUNK", 4)
    for path in (whole, cut):
        predict(f"--queries={queries}", f"--out={path}", "--k=3")
    text = whole.read_bytes()
    assert cut.read_bytes() == text
    for length in (0, 30, len(text) // 3, len(text) // 2 + 7, len(text) - 1):
        cut.write_bytes(text[:length])
        status, _, notes = predict(f"--queries={queries}", f"--out={cut}", "--k=3")
        assert status == 0, length
        assert cut.read_bytes() == text, length
        assert ("resuming after query" in notes) == (length > len(text) // 4)
    status, _, err = predict(f"--queries={queries}", f"--out={cut}", "--k=4")
    assert_one_error(status, err, "other settings (k)", "--out=FILE")
    assert cut.read_bytes() == text


def test_a_parquet_file_holds_the_same_rows(predict, queries, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    for suffix in ("tsv", "parquet"):
        assert predict(f"--queries={queries}", f"--out={tmp_path / 'out'}.{suffix}", "--k=3")[0] == 0
    rows = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    _, *expected = read_tsv(tmp_path / "out.tsv")
    assert [[str(row[name]) for name in ("query", "head", "relation", "tail", "rank")] for row in rows] == [
        row[:5] for row in expected
    ]
    assert not (tmp_path / "out.parquet.part.jsonl").exists()
    assert "already complete" in predict(f"--queries={queries}", f"--out={tmp_path}/out.parquet", "--k=3")[2]


def test_new_triples_are_listed(predict, tmp_path):
    status, out, _ = predict("--all-new", "--k=5", "--json")
    rows = json.loads(out)
    assert status == 0
    assert len(rows) == 5
    assert {row["known"] for row in rows} == {"new"}
    assert predict("--all-new", "--k=5", f"--out={tmp_path / 'new.tsv'}")[0] == 0
    head, *listed = read_tsv(tmp_path / "new.tsv")
    assert [row[1:4] for row in listed] == [[row["head"], row["relation"], row["tail"]] for row in rows]
    # What they are sorted by is written.
    chance = [float(row[head.index("chance")]) for row in listed]
    assert chance == pytest.approx([row["chance"] for row in rows], rel=1e-5)
    assert chance == sorted(chance, reverse=True)
    status, out, _ = predict("--all-new", "--relations=next", "--k=4", "--exclude-known=train", "--json")
    assert {row["relation"] for row in json.loads(out)} == {"next"}


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--head=place 1"], ["two of --head, --relation and --tail"]),
        (["--head=place 1", "--relation=nextt"], ["relation 'nextt'", "did you mean next"]),
        (["--queries=absent.tsv", "--out=a.tsv"], ["absent.tsv", "cannot be read"]),
        (["--queries=a.tsv"], ["--queries needs --out=FILE"]),
        (["--queries=a.tsv", "--all-new"], ["--queries and --all-new"]),
        (["--all-new", "--head=place 1"], ["--all-new takes no --head"]),
        (["--all-new", "--out=a.csv"], [".tsv, .jsonl or .parquet"]),
        (["--explain", "--head=place 1"], ["--explain needs"]),
        (["--head=place 1", "--relation=next", "--exclude-known=tset"], ["exclude-known", "did you mean test"]),
        (["--head=place 1", "--relation=next", "--k=0"], ["--k", "at least 1"]),
    ],
)
def test_what_a_user_gets_wrong_is_said_in_a_line(predict, argv, words):
    status, out, err = predict(*argv)
    assert out == ""
    assert_one_error(status, err, *words)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--all-new", "--out=a.csv"], ["--out=a.csv", ".tsv, .jsonl or .parquet"]),
        (["--queries=absent.tsv", "--out=a.tsv"], ["absent.tsv", "cannot be read"]),
        (["--all-new", "--out=a.parquet"], ["Parquet", "pip install"]),
    ],
)
def test_what_needs_no_model_is_said_before_one_is_loaded(predict, monkeypatch, argv, words):
    def load(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(run_loading, "load", load)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    status, _, err = predict(*argv)
    assert_one_error(status, err, *words)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--head=place 1", "--relation=nextt"], ["relation 'nextt'", "did you mean next"]),
        (["--explain", "--head=nowhere", "--relation=next", "--tail=place 1"], ["entity 'nowhere'"]),
        (["--all-new", "--relations=next,nextt", "--k=2"], ["relation 'nextt'"]),
        (["--queries=q.tsv", "--out=a.tsv"], ["q.tsv:2", "entity 'place x'"]),
    ],
)
def test_a_name_that_is_not_there_is_said_before_the_model_is_read(
    tiny_run, tmp_path, monkeypatch, capsys, argv, words
):
    def build_model(*_):
        raise AssertionError("a model was built")

    monkeypatch.setattr("mocme_jax.training.best_model.builders.build_model", build_model)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "q.tsv").write_text("place 1\tnext\t?\nplace x\tnext\t?\n", encoding="utf-8")
    status = run_here("predict", f"--workdir={tiny_run}", *argv, monkeypatch=monkeypatch)
    assert_one_error(status, capsys.readouterr().err, *words)


def test_long_work_tells_its_rate_and_what_is_left(predict, queries, tmp_path, monkeypatch):
    monkeypatch.setattr("mocme_jax.countdown.TOLD_SECONDS", 0.0)
    monkeypatch.setattr("mocme_jax.serving.query_files.CHUNK", 10)
    line = r"{} of {} {}, [\d,.]+ per second, about \d+ (s|min|h) left\n"
    _, _, notes = predict(f"--queries={queries}", f"--out={tmp_path / 'a.tsv'}", "--k=3")
    assert re.search(line.format(20, 25, "queries"), notes)
    monkeypatch.setattr("mocme_jax.serving.new_triples.BATCHES", (1, 16, 32))
    _, _, notes = predict("--all-new", "--k=5", f"--out={tmp_path / 'new.tsv'}")
    assert re.search(line.format(256, 288, "queries asked"), notes)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("place 1\tnext", []),
        ("place 1\t?\t?", ["one of them ?"]),
        ("place x\tnext\t?", ["place x"]),
        ("a\tb\tc\t?", ["tabs"]),
    ],
)
def test_a_bad_row_is_named_with_its_line(predict, tmp_path, row, words):
    path = tmp_path / "q.tsv"
    path.write_text(f"place 2\tnext\t?\n{row}\n", encoding="utf-8")
    status, _, err = predict(f"--queries={path}", f"--out={tmp_path / 'a.tsv'}")
    if words:
        assert_one_error(status, err, "q.tsv:2", *words)
        # Before anything is answered.
        assert not (tmp_path / "a.tsv").exists()
    else:
        assert status == 0  # an empty third column is a question too


def test_rows_of_nobody_are_not_gone_on_with(tmp_path):
    (tmp_path / "a.tsv").write_text("1\tx\n", encoding="utf-8")
    with pytest.raises(UserError, match="not written by this command"):
        RowFile(tmp_path / "a.tsv", {"k": 1})
    assert (tmp_path / "a.tsv").read_text(encoding="utf-8") == "1\tx\n"
