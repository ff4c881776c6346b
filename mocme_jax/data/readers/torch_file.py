"""Tensors from ``torch.save`` files, without torch and without running a pickle's code.

Two layouts: the zip of torch 1.6 and later (``data.pkl`` and one uncompressed member per storage), and the older one
(five pickles, then the storages). Source: torch/serialization.py and torch/_utils.py of PyTorch 2.
"""

import contextlib
import functools
import io
import math
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mocme_jax.data.readers import inert_pickle
from mocme_jax.data.readers.bounded_files import Damaged, claimed_count, map_file, open_file
from mocme_jax.data.readers.inert_pickle import Refused, Storage, Tensor
from mocme_jax.data.readers.zip_archive import Archive
from mocme_jax.errors import UserError

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
_LONGEST_HEAD = 1 << 12
_STATE_DICT = "save one with torch.save(model.state_dict(), path)"
_Fetch = Callable[[Storage], bytes]
_Choose = Callable[[Path, Any], dict[str, Tensor]]


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a ``torch.save`` file of a state dict, by name; see read_tensors.

    Raises:
      UserError: see read_tensors; or it holds anything but tensors by name, or two of them share a storage.
    """
    return read_tensors(path, _named_tensors, _STATE_DICT)


def read_tensors(path: Path, choose: _Choose, cure: str) -> dict[str, np.ndarray]:
    """Tensors of a ``torch.save`` file. Types are kept, except that bfloat16 becomes float32; arrays may be read-only.

    Args:
      path: the file.
      choose: picks tensors by name from what the file's pickle holds, see inert_pickle.load; given the path for errors.
      cure: what to do instead, at the end of an error.

    Raises:
      UserError: the file is missing, truncated or no torch file, or asks for anything but the rebuilding of tensors.
    """
    with open_file(path) as file:
        start = file.read(4)
    try:
        if start.startswith(b"PK"):
            return _read_zip(path, choose, cure)
        if start.startswith(b"\x80"):
            return _read_legacy(path, choose, cure)
    except Refused as error:
        raise UserError(
            f"{path}: refused, because its pickle asks for {error}; only plain tensors are read: {cure}"
        ) from None
    except Damaged as error:
        raise UserError(f"{path}: truncated or damaged ({error}); fetch it again") from None
    raise UserError(f"{path}: not a file of torch.save; {cure}")


def _read_zip(path: Path, choose: _Choose, cure: str) -> dict[str, np.ndarray]:
    with Archive(path) as archive:
        roots = [
            name.removesuffix("data.pkl")
            for name in archive.names
            if name.count("/") == 1 and name.endswith("/data.pkl")
        ]
        if len(roots) != 1:
            raise UserError(f"{path}: a zip archive, but not one of torch.save (no data.pkl); {cure}")
        root = roots[0]
        there = root + "byteorder" in archive.names
        order = archive.read(root + "byteorder", largest=16) if there else b"little"
        if order not in (b"little", b"big"):
            raise Damaged(f"unknown byte order {order!r}")
        pickle = archive.read(root + "data.pkl", largest=inert_pickle.LARGEST)
        tensors = choose(path, inert_pickle.load(io.BytesIO(pickle)))

        # Kept, for tensors may be views of one storage.
        @functools.cache
        def read(key: str) -> bytes:
            return archive.read(f"{root}data/{key}")

        def fetch(storage: Storage) -> bytes:
            return read(storage.key)

        _check_size(path, tensors)
        code = ">" if order == b"big" else "<"
        return {name: _to_array(tensor, fetch, code) for name, tensor in tensors.items()}


def _read_legacy(path: Path, choose: _Choose, cure: str) -> dict[str, np.ndarray]:
    with map_file(path) as stream:
        magic = None
        with contextlib.suppress(Damaged):
            magic = inert_pickle.load(stream, _LONGEST_HEAD)
        if magic != _LEGACY_MAGIC:
            raise UserError(f"{path}: a pickle, but not one of torch.save; {cure}")
        version, system = (inert_pickle.load(stream, _LONGEST_HEAD) for _ in range(2))
        if version != _LEGACY_VERSION or not isinstance(system, dict) or system.get("little_endian") is not True:
            raise UserError(f"{path}: written by an unknown torch version or on a big-endian machine; {cure}")
        tensors = choose(path, inert_pickle.load(stream))
        keys = inert_pickle.load(stream)
        waiting: dict[str, list[str]] = {}
        for name, tensor in tensors.items():
            waiting.setdefault(tensor.storage.key, []).append(name)
        _check_size(path, tensors)
        if not isinstance(keys, list) or len(keys) != len(waiting):
            raise UserError(f"{path}: its storages are not those of {len(tensors)} tensors; {cure}")
        # The storages follow in the order of these keys, each after its count of elements.
        arrays = {}
        for key in keys:
            names = waiting.pop(key, None) if isinstance(key, str) else None
            if names is None:
                raise Damaged("a storage that belongs to no tensor or is stored twice")
            data = _next_storage(stream, tensors[names[0]].storage)
            for name in names:
                arrays[name] = _to_array(tensors[name], lambda _, data=data: data, "<")
        return {name: arrays[name] for name in tensors}


def _next_storage(stream: mmap.mmap, storage: Storage) -> bytes:
    count = int.from_bytes(stream.read(8), "little")
    if count != storage.count:
        raise Damaged(f"storage of {count} elements, expected {storage.count}")
    left = len(stream) - stream.tell()
    return stream.read(min(count * _width(storage), left))


def _named_tensors(path: Path, root: Any) -> dict[str, Tensor]:
    named = isinstance(root, dict) and all(isinstance(name, str) for name in root)
    if not named or not root or not all(isinstance(tensor, Tensor) for tensor in root.values()):
        raise UserError(f"{path}: contains no named tensors; {_STATE_DICT}")
    # A thousand of one storage would take a thousand times the memory of the file.
    if len({tensor.storage.key for tensor in root.values()}) < len(root):
        raise UserError(f"{path}: two of its tensors share a storage; {_STATE_DICT}, each tensor cloned")
    return root


def _check_size(path: Path, tensors: dict[str, Tensor]) -> None:
    sizes = (min(math.prod(tensor.shape), tensor.storage.count) * _width(tensor.storage) for tensor in tensors.values())
    if len(tensors) > 1 and sum(sizes) > path.stat().st_size:
        raise Damaged("its tensors are larger than the file")


def _width(storage: Storage) -> int:
    return 2 if storage.kind == "bf16" else np.dtype(storage.kind).itemsize


def _to_array(tensor: Tensor, fetch: _Fetch, order: str) -> np.ndarray:
    storage, shape = tensor.storage, tensor.shape
    width = _width(storage)
    if math.prod(shape) > storage.count:
        raise Refused(f"a tensor of {math.prod(shape):,} elements over {storage.count:,} stored ones")
    elements = claimed_count(shape, width, storage.count * width)
    if elements:
        last = tensor.offset + sum((size - 1) * stride for size, stride in zip(shape, tensor.strides, strict=True))
        if last >= storage.count:
            raise Damaged(f"a tensor that ends at element {last} of a storage of {storage.count}")
    data = fetch(storage)
    if len(data) != storage.count * width:
        raise Damaged(f"storage {storage.key[:60]} has {len(data)} bytes, expected {storage.count * width}")
    is_bfloat = storage.kind == "bf16"
    flat = np.frombuffer(data, np.dtype(order + ("u2" if is_bfloat else storage.kind)))
    if not elements:
        view = np.zeros(shape, flat.dtype)
    else:
        # Along an axis of length 1 nothing is ever stepped, and the stride may be any number.
        steps = zip(shape, tensor.strides, strict=True)
        strides = tuple(stride * flat.itemsize if size > 1 else 0 for size, stride in steps)
        view = np.lib.stride_tricks.as_strided(flat[tensor.offset :], shape, strides, writeable=False)
    if is_bfloat:
        # bfloat16 is the upper half of a float32.
        return (view.astype(np.uint32) << 16).view(np.float32)
    return view.astype(flat.dtype.newbyteorder("="), order="C", copy=False)
