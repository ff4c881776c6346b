"""Plain lines in a pipe, a bar on a terminal, and the table of results."""

import io
import re
import threading
import time

import pytest
from rich.console import Console

from mocme_jax.countdown import Countdown
from mocme_jax.training.logs import progress as progress_module
from mocme_jax.training.logs.progress import Progress, format_metrics, make_console, results_table


def test_plain_output_is_one_line_an_evaluation():
    file = io.StringIO()
    with Progress(40, console=make_console(file)) as progress:
        progress.note("graph [r1] has 2 triples")
        for epoch in (1, 2):
            for step in (5, 10):
                progress.update(epoch, step, 10)
            progress.update(epoch, 10, 10, {"loss": 1.25, "dev MRR": 0.3512, "triples/s": 1523.4})
    assert file.getvalue() == (
        "graph [r1] has 2 triples\n"
        "epoch  1/40  loss 1.2500  dev MRR 0.3512  1,523 triples/s\n"
        "epoch  2/40  loss 1.2500  dev MRR 0.3512  1,523 triples/s\n"
    )


def test_long_lines_are_not_folded():
    file = io.StringIO()
    Progress(1, console=make_console(file)).note("word " * 100 + "end")
    assert file.getvalue() == "word " * 100 + "end\n"


def test_a_terminal_gets_a_bar_and_the_same_lines():
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=100, highlight=False)
    with Progress(3, console=console) as progress:
        progress.update(2, 5, 10)
        assert progress._bar.tasks[0].completed == 1.5
        progress.update(2, 10, 10, {"dev MRR": 0.5})
        assert progress._bar.tasks[0].completed == 2
    assert "epoch 2/3  dev MRR 0.5000" in file.getvalue()
    assert "\x1b[" in file.getvalue()


def test_a_log_never_falls_silent(monkeypatch):
    """Whatever the main thread is at, and only if nothing else was printed."""
    monkeypatch.setattr(progress_module, "_TELL_SECONDS", 0.2)
    file, others = io.StringIO(), set(threading.enumerate())
    with Progress(3, console=make_console(file)) as progress:
        for change, line in (
            (lambda: None, "compiling the first step"),
            (lambda: progress.update(2, 5, 1000), "epoch 2/3, step 5 of 1,000"),
            (lambda: progress.evaluating(2), "epoch 2/3, scoring dev"),
            (lambda: progress.evaluating(3, "dev and test"), "epoch 3/3, scoring dev and test"),
        ):
            change()
            told, end = len(file.getvalue()), time.monotonic() + 60
            while f"{line}; 0 min since training began\n" not in file.getvalue()[told:]:
                assert time.monotonic() < end, file.getvalue()
                time.sleep(0.01)
        for _ in range(20):
            progress.note("busy")
            time.sleep(0.02)
    # Lines that come at once all come, and with the end of the run there is nothing left that would print.
    assert file.getvalue().count("busy") == 20
    for thread in set(threading.enumerate()) - others:
        thread.join(60)
        assert not thread.is_alive()
    terminal = io.StringIO()
    with Progress(3, console=Console(file=terminal, force_terminal=True, width=100)):
        time.sleep(0.4)
    assert "since training began" not in terminal.getvalue()


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    "error", [BrokenPipeError(32, "Broken pipe"), OSError(28, "No space left"), ValueError("closed")]
)
def test_output_that_is_gone_ends_the_minute_lines_and_the_next_line_reports_it(error, monkeypatch):
    monkeypatch.setattr(progress_module, "_TELL_SECONDS", 0.02)
    monkeypatch.setattr("os.dup2", lambda *_: None)
    refused = threading.Event()

    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            refused.set()
            raise error

    with Progress(3, console=make_console(Gone())) as progress:
        assert refused.wait(20)
        time.sleep(0.1)
        with pytest.raises((SystemExit, type(error))):
            progress.note("the next line")


def test_a_countdown_tells_the_rate_of_its_pass_and_what_is_left(monkeypatch):
    clock, lines = iter([0.0, 2.0, 4.0, 8.0, 128.0, 140.0, 150.0]), []
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    told = Countdown("texts", lines.append)
    for done in (100, 120, 700, 2_000):  # The first part compiles.
        told(done, 9_000)
    told(10, 50)  # Another pass.
    told(30, 50)
    assert lines == [
        "700 of 9,000 texts, 100 per second, about 83 s left",
        "2,000 of 9,000 texts, 15 per second, about 8 min left",
        "30 of 50 texts, 2.0 per second, about 10 s left",
    ]


def test_metrics_read_well():
    assert format_metrics({"loss": 0.12345, "entities": 12842, "MR": 1234.56, "dev MRR": None, "queries/s": None}) == (
        "loss 0.1235  entities 12,842  MR 1,234.6  dev MRR -  - queries/s"
    )


def test_the_table_holds_every_cell_uncut():
    file = io.StringIO()
    rows = [
        {"rows": "test [released]", "MRR": 0.38512, "MR": 1502, "hits@1": None},
        {"rows": "test, clean part, " + "x" * 40, "MRR": 0.25, "triples": 334},
    ]
    results_table(rows, title="MKG-Y", console=make_console(file))
    output = file.getvalue()
    for cell in ("MKG-Y", "test [released]", "x" * 40, "0.3851", "1,502", "hits@1", "334"):
        assert cell in output
    assert "\x1b" not in output
    assert "\r" not in output


def test_no_width_breaks_a_word_or_loses_a_cell():
    rows = [{"cell": "full", "dev MRR": "0.8312 ± 0.0021", "Hits@10": 0.952, "minutes": 10}]
    rows += [{"cell": "without complementarity", "dev MRR": "0.7605 ± 0.0042", "difference": "-0.0671", "p": "<.001"}]
    words = {word for row in rows for name, value in row.items() for word in f"{name} {value}".split()}
    words = words - {"0.952", "10"} | {"0.9520", "10"}
    for width in (20, 40, 60, 80, 120):
        file = io.StringIO()
        results_table(rows, title="atlas", console=Console(file=file, width=width, color_system=None))
        printed = file.getvalue()
        assert words <= set(re.findall(r"[^\s│┃,]+", printed)), width
        assert all(len(line) <= width for line in printed.splitlines())
        assert ("┃" in printed) == (width >= 80)
