"""Arrays from ``.safetensors`` files: a JSON header, then plain bytes.

Source of the format: https://github.com/huggingface/safetensors (README, "Format").
"""

from pathlib import Path

import numpy as np

from mocme_jax.data.readers.bounded_files import Damaged, claimed_count, map_file, whole_number
from mocme_jax.data.readers.json_file import parse_json
from mocme_jax.errors import UserError

_TYPES = {
    **{"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "BOOL": "?"},
    **{"I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1"},
    **{"U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1"},
}


_LONGEST_HEADER = 1 << 20
"""Bytes; enough for some 10,000 tensors."""


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a file by name, read-only views of the mapped file; bfloat16 becomes float32.

    Raises:
      UserError: the file is missing, truncated, holds a type NumPy has not, or its tensors overlap or leave gaps.
    """
    try:
        data = map_file(path)
        length = int.from_bytes(data[:8], "little")
        if len(data) < 8 or length > len(data) - 8:
            raise Damaged("the header is longer than the file")
        if length > _LONGEST_HEADER:
            raise Damaged(f"the header is {length:,} bytes long, and such a file's has at most {_LONGEST_HEADER:,}")
        header = parse_json(data[8 : 8 + length])
        if not isinstance(header, dict):
            raise Damaged("the header is no object")
        header.pop("__metadata__", None)
        body = memoryview(data)[8 + length :]
        _check_places(header, len(body))
        return {name: _array(name, entry, body) for name, entry in header.items()}
    except Damaged as error:
        raise UserError(f"{path}: truncated or no safetensors file ({error}); fetch or write it again") from None


def _check_places(header: dict, length: int) -> None:
    """Raises Damaged unless the tensors fill the body one after the other, as the format has it.

    Tensors that overlap would make much of little.
    """
    places = []
    for name, entry in header.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("shape"), list):
            raise Damaged(f"tensor {name[:60]!r} has no type, shape and place")
        place = entry.get("data_offsets")
        if not isinstance(place, list) or len(place) != 2:
            raise Damaged(f"tensor {name[:60]!r} has no type, shape and place")
        places.append(tuple(whole_number(offset, "a place") for offset in place))
    end = 0
    for start, stop in sorted(places):
        if start != end or stop < start:
            raise Damaged("its tensors overlap or leave a gap")
        end = stop
    if end != length:
        raise Damaged(f"its tensors end at byte {end:,} of {length:,}")


def _array(name: str, entry: dict, body: memoryview) -> np.ndarray:
    kind, shape, (start, end) = entry.get("dtype"), entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in _TYPES:
        raise Damaged(f"tensor {name[:60]!r} has the unknown type {str(kind)[:20]!r}")
    dtype = np.dtype(_TYPES[kind])
    count = claimed_count(shape, dtype.itemsize, end - start)
    if count * dtype.itemsize != end - start:
        raise Damaged(f"tensor {name[:60]!r} is smaller than its place")
    array = np.frombuffer(body[start:end], dtype).reshape(shape)
    # bfloat16 is the upper half of a float32.
    return (array.astype(np.uint32) << 16).view(np.float32) if kind == "BF16" else array
