"""Parquet tables of entities and their vectors, by pyarrow where it is installed."""

from pathlib import Path
from typing import Any

import numpy as np

from mocme_jax.data.readers.bounded_files import Damaged, map_file
from mocme_jax.data.readers.zip_archive import INFLATED, RATIO
from mocme_jax.errors import UserError
from mocme_jax.printed_commands import needed_package


def read_parquet(path: Path) -> dict[str, list[str] | np.ndarray]:
    """The entities of a table as ``ids``, and as ``rows`` its numbers, ``[n, d]``; NaN for an empty row.

    The one column of text, or else the first column, of whole numbers, holds the entities. Each other column holds
    numbers, or lists of numbers of one length.

    Raises:
      UserError: the file is missing or malformed, holds other columns or far more than its length, or pyarrow is not
        installed.
    """
    parquet = needed_package("pyarrow.parquet", f"{path}: reading Parquet needs a package", extra="parquet")
    import pyarrow

    data = map_file(path)
    try:
        file = parquet.ParquetFile(pyarrow.BufferReader(pyarrow.py_buffer(data)))
        _check_size(file, len(data))
        schema = file.schema_arrow
        texts = [name for name, kind in zip(schema.names, schema.types, strict=True) if _is_text(kind)]
        if len(set(schema.names)) < len(schema.names) or len(schema.names) < 2:
            raise Damaged(f"columns {', '.join(schema.names)[:200]}; expected one of entities and others of numbers")
        # Columns of text as a dictionary: a long text that all rows share is held once.
        file = parquet.ParquetFile(pyarrow.BufferReader(pyarrow.py_buffer(data)), read_dictionary=texts)
        table = file.read(use_threads=False)
        first = texts[0] if len(texts) == 1 else schema.names[0]
        ids = _ids(table.column(first), first)
        parts = [_numbers(table.column(name), name) for name in schema.names if name != first]
        return {"ids": ids, "rows": np.concatenate(parts, axis=1)}
    except Damaged as error:
        raise UserError(f"{path}: {error}") from None
    # What is no Parquet file may raise anything inside of pyarrow, and all of it means this.
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path}: truncated or not a Parquet file ({reason[:120]}); write it again") from None


def _check_size(file: Any, held: int) -> None:
    metadata, most = file.metadata, max(INFLATED, RATIO * held)
    cells = max(metadata.num_rows, metadata.num_row_groups) * metadata.num_columns
    if cells * 8 > most:
        raise Damaged(f"{metadata.num_rows:,} rows of {metadata.num_columns:,} columns in {held:,} bytes")
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    size = sum(group.total_byte_size for group in groups)
    if size <= most:
        # A malformed column raises here; asked for its length below, it would end the process.
        file.scan_contents()
        # A value that is repeated takes hardly a byte in the file, and eight of them once it is read.
        size = 8 * sum(group.column(index).num_values for group in groups for index in range(group.num_columns))
    if size > most:
        raise Damaged(f"contains more than {most:,} bytes from {held:,} compressed bytes; write it uncompressed")


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    return types.is_string(kind) or types.is_large_string(kind)


def _ids(column: Any, name: str) -> list[str]:
    from pyarrow import types

    if column.null_count:
        raise Damaged(f"column {name[:40]!r} has empty cells; fill in the entities")
    if types.is_integer(column.type):
        return list(map(str, column.to_pylist()))
    if not types.is_dictionary(column.type):
        raise Damaged(f"column {name[:40]!r} is of type {column.type}; expected one column of text: the entities")
    ids: list[str] = []
    for chunk in column.chunks:
        words = chunk.dictionary.to_pylist()
        ids += [words[index] for index in chunk.indices.to_pylist()]
    return ids


def _numbers(column: Any, name: str) -> np.ndarray:
    """A column as ``[n, d]``, NaN where there is no value."""
    from pyarrow import types

    kind = column.type
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    inner = kind.value_type if is_list else kind
    if not (types.is_integer(inner) or types.is_floating(inner) or types.is_boolean(inner)):
        found = "text" if types.is_dictionary(kind) else f"of type {kind}"
        raise Damaged(f"column {name[:40]!r} is {found}; expected numbers, or lists of numbers")
    if not is_list:
        return column.to_numpy().astype(np.float64)[:, None]
    there = np.concatenate([chunk.is_valid().to_numpy(zero_copy_only=False) for chunk in column.chunks] or [[]]) > 0
    values = [chunk.flatten() for chunk in column.chunks]
    lengths = np.concatenate([chunk.value_lengths().to_numpy(zero_copy_only=False) for chunk in column.chunks] or [[]])
    width = int(lengths[there][0]) if there.any() else 0
    if (lengths[there] != width).any() or not width:
        raise Damaged(f"column {name[:40]!r} contains lists of different lengths, or empty ones")
    rows = np.full((len(there), width), np.nan)
    rows[there] = np.concatenate([part.to_numpy(zero_copy_only=False) for part in values]).reshape(-1, width)
    return rows
