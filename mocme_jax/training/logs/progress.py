"""The display of a run: a progress bar on a terminal, plain lines in a file or a pipe, and tables of results."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

from mocme_jax.errors import one_line, printable

# Wide enough for tables in a log file.
PLAIN_WIDTH = 160
_LONGEST_CELL = 120
# Longest time between two lines in a file or a pipe.
_TELL_SECONDS = 60.0


def make_console(file: IO[str] | None = None, *, quiet: bool = False) -> Console:
    """Make a console on a file, or on standard output.

    Colours and the terminal's width are used only on a terminal. No line is folded.

    Args:
      file: the file; None for standard output.
      quiet: print nothing.
    """
    # No markup, because names of graphs and relations may contain square brackets.
    plain: dict[str, Any] = {"highlight": False, "markup": False, "quiet": quiet, "soft_wrap": True}
    console = _Console(file=file, **plain)
    return console if console.is_terminal else _Console(file=file, width=PLAIN_WIDTH, **plain)


class _Console(Console):
    """A console for text of unknown origin, which shows characters that are not printable as escapes."""

    def print(self, *objects: Any, **how: Any) -> None:
        """Print as ``Console.print`` does."""
        super().print(*(printable(one) if isinstance(one, str) else one for one in objects), **how)

    def on_broken_pipe(self) -> None:
        """End the command as rich does, but only from the main thread; in others, raise the ``BrokenPipeError``."""
        if threading.current_thread() is not threading.main_thread():
            raise
        super().on_broken_pipe()


def print_json(value: Any) -> None:
    """Print JSON for a terminal: letters of any language, and escapes for characters that are not printable."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    print("".join(char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text))


class Progress:
    """Progress through epochs, which early stopping may cut short; a context manager.

    In a file or a pipe, a line at least every minute says where the run is, also while a program is compiled or dev is
    scored. A thread prints it, because the main thread may be in one of these calls.

    Args:
      total_epochs: the number of epochs.
      console: a console from ``make_console``; None for standard output.
    """

    def __init__(self, total_epochs: int, *, console: Console | None = None):
        self.total_epochs = total_epochs
        self.console = console or make_console()
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[latest]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )

    def __enter__(self) -> Progress:
        self._where = "compiling the first step"
        self._began = self._told = time.monotonic()
        self._ended = threading.Event()
        self._bar.start()
        self._task = self._bar.add_task(f"epoch 0/{self.total_epochs}", total=self.total_epochs, latest="")
        if self._bar.disable:
            threading.Thread(target=self._tell, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._ended.set()
        # Some versions of rich print an empty line when a disabled bar stops.
        if not self._bar.disable:
            self._bar.stop()

    def update(self, epoch: int, steps_done: int, steps_total: int, metrics: Mapping[str, Any] | None = None) -> None:
        """Show how far training has come.

        Args:
          epoch: the current epoch, from 1.
          steps_done: steps taken in this epoch.
          steps_total: steps of this epoch.
          metrics: names and values to show, in order, such as loss, dev MRR, triples/s. With metrics, one line is
            printed, so pass them once per evaluation. Without, only the bar moves.
        """
        shown = format_metrics(metrics or {})
        completed = epoch - 1 + (steps_done / steps_total if steps_total else 1.0)
        changes: dict[str, Any] = {"latest": shown} if shown else {}
        epochs = f"epoch {epoch}/{self.total_epochs}"
        self._where = f"{epochs}, step {steps_done:,} of {steps_total:,}"
        self._bar.update(self._task, completed=completed, description=epochs, **changes)
        if shown:
            width = len(str(self.total_epochs))
            self.note(f"epoch {epoch:>{width}}/{self.total_epochs}  {shown}")

    def evaluating(self, epoch: int, what: str = "dev") -> None:
        """Show what is being scored after an epoch."""
        self._where = f"epoch {epoch}/{self.total_epochs}, scoring {what}"
        self._bar.update(self._task, description=self._where, refresh=True)

    def note(self, line: str) -> None:
        """Print a line unchanged, above the bar if there is one."""
        self._told = time.monotonic()
        # Text instead of a string, for consoles with markup.
        self.console.print(Text(line), soft_wrap=True)

    def _tell(self) -> None:
        while not self._ended.wait(max(0.0, self._told + _TELL_SECONDS - time.monotonic())):
            if time.monotonic() - self._told >= _TELL_SECONDS:
                minutes = (time.monotonic() - self._began) / 60
                try:
                    self.note(f"{self._where}; {minutes:.0f} min since training began")
                # The output is full or closed, which the main thread finds with its next line.
                except (OSError, ValueError):
                    return


def format_metrics(metrics: Mapping[str, Any]) -> str:
    """Format names and values on one line: rates as ``1,523 triples/s``, other fractions with four digits."""
    words = []
    for name, value in metrics.items():
        if name.endswith("/s"):
            words.append(f"{_format(value) if value is None else format(round(float(value)), ',')} {name}")
        else:
            words.append(f"{name} {_format(value)}")
    return "  ".join(words)


def results_table(rows: Sequence[Mapping[str, Any]], *, title: str = "", console: Console | None = None) -> None:
    """Print rows of results as a table, or as lines if the console is too narrow for whole words.

    Args:
      rows: values by column name. The columns are those of all rows in order of appearance; missing values are left
        empty. Numbers are right-aligned.
      title: the title.
      console: the console; None for standard output.
    """
    console = console or make_console()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    texts = [[_shown(_format(row[name])) if name in row else "" for name in columns] for row in rows]
    title, heads = _shown(title), list(map(_shown, columns))
    cells = list(zip(heads, *texts, strict=True))
    words = [max(cell_len(word) for cell in column for word in ["", *cell.split()]) for column in cells]
    spare = console.width - sum(words) - 3 * len(columns) - 1
    if spare < 0:
        lines = (", ".join(f"{name} {text}" for name, text in zip(heads, row, strict=True) if text) for row in texts)
        console.print(Text(title), *map(Text, lines), sep="\n", soft_wrap=False)
        return
    table = Table(title=title or None, title_justify="left")
    for name, column, word in zip(columns, cells, words, strict=True):
        numeric = all(isinstance(row[name], int | float) for row in rows if row.get(name) is not None)
        # The first columns get the remaining width.
        width = min(max(map(cell_len, column)), word + spare)
        spare -= width - word
        table.add_column(Text(_shown(name)), justify="right" if numeric else "left", width=width)
    for row in texts:
        table.add_row(*map(Text, row))
    console.print(table, soft_wrap=False)


def _shown(text: str) -> str:
    """Make a cell printable, and cut it if it is very long."""
    text = one_line(text)
    return text if len(text) <= _LONGEST_CELL else f"{text[: _LONGEST_CELL - 1]}…"


def _format(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        return " ".join(map(_format, value))
    try:
        value = float(value)
    except (TypeError, ValueError):
        return str(value)
    return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4f}"
