"""Names that would move a terminal's cursor, break a table or be read as markup, in everything that is printed."""

import json
import re

import pytest
from command_runner import run_here

from mocme_jax.serving.answer_files import RowFile
from mocme_jax.serving.model_card import plain
from mocme_jax.training.logs.progress import make_console, print_json, results_table

HOSTILE = {
    "colour": "\x1b[31mred",
    "title": "\x1b]0;owned\x07",
    "C1 control": "\x9b5m",
    "turned": "abc\u202edef",
    "invisible": "a\u200bb",
    "line": "one\u2028two",
    "backspace": "safe\x08\x08\x08\x08evil",
}


def allowed(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_printed_is_printable_and_tells_names_apart(name, capsys):
    hostile = HOSTILE[name]
    results_table([{"entity": hostile, hostile: 1}, {"entity": "ab"}], title=hostile)
    console = make_console()
    console.print(f"{hostile}: already complete")
    print_json([{"label": hostile}])
    printed = capsys.readouterr().out
    assert allowed(printed)
    # Shown as its escape, and not left out.
    special = next(char for char in hostile if not char.isprintable())
    if name != "line":
        assert printed.count(f"\\x{ord(special):02x}" if ord(special) < 256 else f"\\u{ord(special):04x}") >= 3


def test_json_is_read_back_as_it_was(capsys):
    value = [*HOSTILE.values(), "Ελλάδα مصر 東京 😀", "\U000e0041", "\ud800"]
    print_json(value)
    printed = capsys.readouterr().out
    assert json.loads(printed) == value
    assert "Ελλάδα" in printed
    assert allowed(printed)


def test_a_long_name_takes_one_line(capsys):
    results_table([{"entity": "x" * 20_000, "p": 1.0}])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert "…" in lines[3]


def test_letters_of_any_language_stay(capsys):
    results_table([{"entity": "Ελλάδα"}, {"entity": "東京"}])
    printed = capsys.readouterr().out
    assert "Ελλάδα" in printed
    assert "東京" in printed


def test_files_have_a_row_a_line(tmp_path):
    names = [*HOSTILE.values(), "a\tb", "a\nb", "Ελλάδα", "a\u200bb"]
    with RowFile(tmp_path / "a.tsv", {}, ("query", "name")) as file:
        file.write([[(number, name)] for number, name in enumerate(names, 1)])
    lines = (tmp_path / "a.tsv").read_text(encoding="utf-8").split("\n")
    assert len(lines) == len(names) + 2
    assert all(line.count("\t") == 1 for line in lines[:-1])
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "".join(lines))
    assert lines[-2].split("\t")[1] == "a\u200bb"


def test_names_that_a_spreadsheet_takes_for_formulas_are_read_back_as_they_are(tmp_path):
    """Whoever reads the file by a program must find the graph's own names; docs/use.md tells of spreadsheets."""
    names = ["=1+1", "+1", "-1", "@sum", "'=1"]
    with RowFile(tmp_path / "a.tsv", {}, ("query", "name")) as file:
        file.write([[(number, name)] for number, name in enumerate(names, 1)])
    lines = (tmp_path / "a.tsv").read_text(encoding="utf-8").splitlines()
    assert [line.split("\t")[1] for line in lines[1:]] == names


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a|b", r"a\|b"),
        ("<script>", r"\<script\>"),
        ("[x](http://a)", r"\[x\](http://a)"),
        ("`code`", r"\`code\`"),
        ("one\ntwo", "one two"),
        ("&lt;", r"\&lt;"),
        ("\x1b[31m", r"\\x1b\[31m"),
        ("mkg_w", "mkg_w"),
    ],
)
def test_names_in_the_card_are_no_markup(text, shown):
    assert plain(text) == shown
    assert len(plain("x" * 20_000)) == 120


def test_the_card_and_the_commands_of_a_strange_graph(strange_run, monkeypatch, capsys):
    for flags in (["--head=place 1", "--relation=next&amp;" + "x" * 300], ["--all-new", "--k=5"]):
        status = run_here("predict", f"--workdir={strange_run}", *flags, monkeypatch=monkeypatch)
        printed = capsys.readouterr()
        assert status == 0, printed.err
        assert allowed(printed.out)
    assert allowed((strange_run / "MODEL_CARD.md").read_text(encoding="utf-8"))
