"""Arrays from ``.safetensors`` files: a JSON header, then plain bytes.

Source of the format: https://github.com/huggingface/safetensors (README, "Format").
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from mocme_jax.errors import UserError

_TYPES = {
    **{"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "BOOL": "?"},
    **{"I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1"},
    **{"U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1"},
}


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a file by name, read-only views of the mapped file; bfloat16 becomes float32.

    Raises:
      UserError: the file is missing, truncated, or holds a type NumPy has not.
    """
    try:
        data = np.memmap(path, np.uint8, mode="r")
        length = int.from_bytes(data[:8].tobytes(), "little")
        if len(data) < 8 or length > len(data) - 8:
            raise ValueError("the header is longer than the file")
        header = json.loads(data[8 : 8 + length].tobytes())
        body = data[8 + length :]
        return {name: _array(name, entry, body) for name, entry in header.items() if name != "__metadata__"}
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path}: truncated or no safetensors file ({error}); fetch or write it again"
        ) from None


def _array(name: str, entry: dict, body: np.ndarray) -> np.ndarray:
    kind, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if kind not in _TYPES:
        raise ValueError(f"tensor {name} has the unknown type {kind}")
    dtype = np.dtype(_TYPES[kind])
    if any(type(size) is not int or size < 0 for size in (*shape, start, end)):
        raise ValueError(f"tensor {name} has a malformed shape or place")
    if not start <= end <= len(body) or end - start != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"tensor {name} does not fit into the file")
    array = np.frombuffer(body[start:end], dtype).reshape(shape)
    # bfloat16 is the upper half of a float32.
    return (array.astype(np.uint32) << 16).view(np.float32) if kind == "BF16" else array
