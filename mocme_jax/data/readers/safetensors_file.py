"""Arrays from ``.safetensors`` files, whose library checks sizes and places."""

import os
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, deserialize

from mocme_jax.data.readers.bounded_files import Damaged, open_file
from mocme_jax.data.readers.json_file import parse_json
from mocme_jax.errors import UserError

_TYPES = {
    **{"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "BOOL": "?"},
    **{"I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1"},
    **{"U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1"},
}

_LONGEST_HEADER = 1 << 20
"""Bytes; enough for some 10,000 tensors. The library takes 100 times as many."""


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a file by name; bfloat16 becomes float32.

    Raises:
      UserError: the file is missing, truncated, holds a type NumPy has not, or its tensors overlap or leave gaps.
    """
    with open_file(path) as file:
        length, held = int.from_bytes(file.read(8), "little"), os.fstat(file.fileno()).st_size
        try:
            if length > min(_LONGEST_HEADER, held):
                raise Damaged(f"the header is {length:,} bytes long; at most {_LONGEST_HEADER:,} are read")
            file.seek(0)
            data = file.read()
            parse_json(data[8 : 8 + length])  # refuses a name that is given twice, of which the library takes the last
            return {name: _array(name, **tensor) for name, tensor in deserialize(data)}
        except (Damaged, SafetensorError) as error:
            reason = str(error)[:120]
            raise UserError(
                f"{path}: truncated or not a safetensors file ({reason}); fetch or write it again"
            ) from None


def _array(name: str, dtype: str, shape: list[int], data: bytearray) -> np.ndarray:
    if dtype not in _TYPES:
        raise Damaged(f"tensor {name[:60]!r} has the unknown type {dtype[:20]!r}")
    array = np.frombuffer(data, _TYPES[dtype]).reshape(shape)
    # bfloat16 is the upper half of a float32.
    return (array.astype(np.uint32) << 16).view(np.float32) if dtype == "BF16" else array
