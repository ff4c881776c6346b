"""Files of answers that can be resumed after the last complete row: TSV, JSONL, and Parquet made from JSONL at the end.

``FILE.settings.json`` next to it describes what the rows answer. A file with other settings is never resumed.
"""

import contextlib
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, BinaryIO

from mocme_jax.data.readers.json_file import read_json
from mocme_jax.data.whole_files import flush_folder, make_folder, taken, write_atomically
from mocme_jax.errors import UserError
from mocme_jax.printed_commands import to_install

COLUMNS = ("query", "head", "relation", "tail", "rank", "score", "probability", "known")
# The columns of new triples, whose query number is the rank.
NEW_COLUMNS = (*COLUMNS[:-1], "chance", "known")
_PARQUET_ROWS = 65_536
# The maximum length of a query's answers in JSON. A longer line counts as left by an interrupted write.
_LONGEST_LINE = 1 << 28

# One value per column; query numbers start at 1.
Row = tuple[int | str | float, ...]


class RowFile:
    """A file of rows that is opened to be resumed; a context manager.

    Args:
      path: the file; its suffix is the format: ``.tsv``, ``.jsonl`` or ``.parquet``.
      settings: what the rows answer, ready for JSON.
      columns: column names; the first is the number of the query.

    Attributes:
      done: the number of queries whose rows are in the file; the next to write is ``done + 1``.

    Raises:
      UserError: the suffix is unknown, the file has rows of other settings, the folder cannot be written, or pyarrow is
        not installed.
    """

    def __init__(self, path: Path, settings: dict, columns: Sequence[str] = COLUMNS):
        check_format(path)
        self.path, self._columns = Path(path), columns
        kind = self.path.suffix
        self._plain = self.path.with_name(self.path.name + ".part.jsonl") if kind == ".parquet" else self.path
        self._settings = self.path.with_name(self.path.name + ".settings.json")
        self.finished = kind == ".parquet" and self.path.exists() and not self._plain.exists()
        self.done = 0
        try:
            make_folder(self.path.parent)
            self._check(settings)
            self._file: IO[bytes] = _opened(self._plain)
        except OSError as error:
            raise UserError(f"{error.filename}: cannot be written ({error.strerror})") from None
        if taken(self._file.fileno()):
            self._file.close()
            raise UserError(
                f"{self.path}: another process is writing it; wait until it ends, or give another --out=FILE"
            )
        self._cut()

    def _check(self, settings: dict) -> None:
        if not (self._plain.exists() or self.finished):
            told = json.dumps(settings, indent=1) + "\n"
            write_atomically(self._settings, lambda file: file.write(told.encode()))
            return
        try:
            before = read_json(self._settings)
        except UserError:
            before = None
        if before != settings:
            before = before if isinstance(before, dict) else {}
            changed = [name for name in settings if before and before.get(name) != settings[name]]
            reason = (
                f"was written with other settings ({', '.join(changed)})"
                if changed
                else "was not written by this command"
            )
            raise UserError(f"{self.path}: {reason}; delete it, or give another file with --out=FILE")

    def _cut(self) -> None:
        """Remove what an interrupted write may have left: a partial row, and the last query's rows if incomplete."""
        end = last_start = offset = 0
        last = None
        while line := self._file.readline(_LONGEST_LINE):
            if not line.endswith(b"\n"):
                break
            try:
                number = self._number(line)
            except (ValueError, KeyError, TypeError, RecursionError):
                # A power cut may leave anything after the last row that was on disk.
                break
            if number is not None and number != last:
                last, last_start = number, offset
            offset += len(line)
            end = offset
        if last is not None:
            # A row of JSON is a complete query.
            whole = self._plain.suffix == ".jsonl"
            self.done, end = (last, end) if whole else (last - 1, last_start)
        self._file.seek(end)
        self._file.truncate()
        if not end and self._plain.suffix == ".tsv":
            self._file.write(("\t".join(self._columns) + "\n").encode())

    def _number(self, line: bytes) -> int | None:
        if self._plain.suffix == ".jsonl":
            number = json.loads(line)["query"]
            if type(number) is not int:
                raise ValueError(number)
            return number
        first = line.split(b"\t", 1)[0]
        return int(first) if first.isdigit() else None

    def write(self, queries: Iterable[Sequence[Row]]) -> None:
        """Append the rows of complete queries, and flush them to the operating system."""
        if self._plain.suffix == ".tsv":
            lines = ["\t".join(map(_short, row)) + "\n" for rows in queries for row in rows]
        else:
            found = (
                {"query": rows[0][0], "answers": [dict(zip(self._columns[1:], row[1:], strict=True)) for row in rows]}
                for rows in queries
                if rows
            )
            lines = [json.dumps(one, ensure_ascii=False) + "\n" for one in found]
        with self._told_if_full():
            self._file.write("".join(lines).encode("utf-8", "surrogatepass"))
            self._file.flush()

    def finish(self) -> None:
        """Close a complete file, and make the Parquet file. The file is on disk when this returns."""
        with self._told_if_full():
            self._file.flush()
            os.fsync(self._file.fileno())
            flush_folder(self.path.parent)
            self._file.close()
        if self._plain == self.path:
            return
        arrow, parquet = _pyarrow()
        kinds = {"query": arrow.int64(), "rank": arrow.int32()}
        kinds |= dict.fromkeys(("score", "probability", "chance"), arrow.float64())
        schema = arrow.schema([(name, kinds.get(name, arrow.string())) for name in self._columns])

        def write(file: BinaryIO) -> None:
            with open(self._plain, encoding="utf-8") as lines, parquet.ParquetWriter(file, schema) as writer:
                rows: list[dict] = []
                for line in lines:
                    one = json.loads(line)
                    rows += [{"query": one["query"]} | row for row in one["answers"]]
                    if len(rows) >= _PARQUET_ROWS:
                        writer.write_table(arrow.Table.from_pylist(rows, schema))
                        rows = []
                writer.write_table(arrow.Table.from_pylist(rows, schema))

        with self._told_if_full():
            try:
                write_atomically(self.path, write)
            except (ValueError, KeyError, TypeError, RecursionError, arrow.ArrowException) as error:
                raise UserError(f"{self._plain}: contains rows that this command does not write; delete it") from error
        self._plain.unlink()

    @contextlib.contextmanager
    def _told_if_full(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot be written ({error.strerror or error}); free space there and rerun the same "
                "command, which continues after the last whole row"
            ) from error

    def __enter__(self) -> "RowFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        # After a full disk, writing the rest of the buffer fails again.
        with contextlib.suppress(OSError) if kind else contextlib.nullcontext():
            self._file.close()


def _opened(path: Path) -> IO[bytes]:
    """Open a regular file for reading and writing, and create it if it does not exist."""
    # Without O_NONBLOCK, reading a pipe would wait for someone to write to it.
    place = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    if not stat.S_ISREG(os.fstat(place).st_mode):
        os.close(place)
        raise UserError(f"{path}: expected a file, found a pipe or a device; give another --out=FILE")
    return os.fdopen(place, "r+b")


def check_format(path: Path) -> None:
    """Check the suffix of a file of answers.

    Raises:
      UserError: the suffix is unknown, or the package to write it is not installed.
    """
    if Path(path).suffix not in (".tsv", ".jsonl", ".parquet"):
        raise UserError(f"--out={path}: expected a file that ends in .tsv, .jsonl or .parquet")
    if Path(path).suffix == ".parquet":
        _pyarrow()


# Characters of names that would end a cell or a row, or move the cursor of a terminal.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def _short(value: int | str | float) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], str(value))


def _pyarrow():
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError(f"Parquet needs a package; run: {to_install(extra='parquet')}") from None
    return pyarrow, pyarrow.parquet
