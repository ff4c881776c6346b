"""Tensors from ``torch.save`` files, without torch and without running a pickle's code.

Two layouts: the zip of torch 1.6 and later (``data.pkl`` and one uncompressed member per storage), and the older one
(five pickles, then the storages). Source: torch/serialization.py and torch/_utils.py of PyTorch 2.
"""

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
_DEEPEST = 8
_CURE = "save one with torch.save(tensor.contiguous(), path)"
_STATE_DICT = "save one with torch.save(model.state_dict(), path)"
_Fetch = Callable[[Storage], bytes]
_Choose = Callable[[Path, Any], dict[str, Tensor]]


def read_torch(path: Path) -> np.ndarray:
    """The one tensor in a ``torch.save`` file.

    The file holds a tensor or a parameter, or a nest of dicts, lists and tuples with exactly one in it. Types are
    kept, except that bfloat16 becomes float32. The array may be read-only.

    Raises:
      UserError: the file is missing, truncated or no torch file, holds no tensor or several, or asks for
        anything but the rebuilding of tensors.
    """
    (array,) = _read(path, _only_tensor, _CURE).values()
    return array


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a ``torch.save`` file of a state dict, by name; see read_torch.

    Raises:
      UserError: see read_torch; or it holds anything but tensors by name, or two of them share a storage.
    """
    return _read(path, _named_tensors, _STATE_DICT)


def _read(path: Path, choose: _Choose, cure: str) -> dict[str, np.ndarray]:
    path = Path(path)
    with open_file(path) as file:
        start = file.read(4)
    try:
        if start.startswith(b"PK"):
            return _read_zip(path, choose, cure)
        if start.startswith(b"\x80"):
            return _read_legacy(path, choose, cure)
    except Refused as error:
        raise UserError(f"{path}: refused, its pickle asks for {error}; only plain tensors are read: {cure}") from None
    except Damaged as error:
        raise UserError(f"{path}: truncated or damaged ({error}); fetch it again") from None
    raise UserError(f"{path}: no file of torch.save; {cure}")


def _read_zip(path: Path, choose: _Choose, cure: str) -> dict[str, np.ndarray]:
    with Archive(path) as archive:
        roots = [
            name.removesuffix("data.pkl")
            for name in archive.names
            if name.count("/") == 1 and name.endswith("/data.pkl")
        ]
        if len(roots) != 1:
            raise UserError(f"{path}: a zip archive, but none of torch.save (no data.pkl); {cure}")
        root = roots[0]
        there = root + "byteorder" in archive.names
        order = archive.read(root + "byteorder", largest=16) if there else b"little"
        if order not in (b"little", b"big"):
            raise Damaged(f"unknown byte order {order!r}")
        pickle = archive.read(root + "data.pkl", largest=inert_pickle.LARGEST)
        tensors = choose(path, inert_pickle.load(io.BytesIO(pickle)))

        def fetch(storage: Storage) -> bytes:
            return archive.read(f"{root}data/{storage.key}")

        code = ">" if order == b"big" else "<"
        return {name: _to_array(tensor, fetch, code) for name, tensor in tensors.items()}


def _read_legacy(path: Path, choose: _Choose, cure: str) -> dict[str, np.ndarray]:
    with map_file(path) as stream:
        if inert_pickle.load(stream) != _LEGACY_MAGIC:
            raise UserError(f"{path}: a pickle, but none of torch.save; {cure}")
        version, system = inert_pickle.load(stream), inert_pickle.load(stream)
        if version != _LEGACY_VERSION or not isinstance(system, dict) or system.get("little_endian") is not True:
            raise UserError(f"{path}: written by an unknown torch version or on a big-endian machine; {cure}")
        tensors = choose(path, inert_pickle.load(stream))
        keys = inert_pickle.load(stream)
        waiting = {tensor.storage.key: name for name, tensor in tensors.items()}
        if not isinstance(keys, list) or len(keys) != len(waiting):
            raise UserError(f"{path}: its storages are not those of {len(waiting)} tensors; {cure}")
        # The storages follow in the order of these keys, each after its count of elements.
        arrays = {}
        for key in keys:
            name = waiting.pop(key, None) if isinstance(key, str) else None
            if name is None:
                raise Damaged("a storage of no tensor, or one that is there twice")
            arrays[name] = _to_array(tensors[name], functools.partial(_next_storage, stream), "<")
        return {name: arrays[name] for name in tensors}


def _next_storage(stream: mmap.mmap, storage: Storage) -> bytes:
    count = int.from_bytes(stream.read(8), "little")
    if count != storage.count:
        raise Damaged(f"storage of {count} elements, {storage.count} announced")
    left = len(stream) - stream.tell()
    return stream.read(min(count * _width(storage), left))


def _only_tensor(path: Path, root: Any) -> dict[str, Tensor]:
    found: dict[int, tuple[str, Tensor]] = {}
    seen: set[int] = set()
    waiting: list[tuple[tuple[str, ...], Any]] = [((), root)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, Tensor):
            found.setdefault(id(value), (".".join(place), value))
        elif isinstance(value, (dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            if len(place) == _DEEPEST:
                raise UserError(f"{path}: containers nested more than {_DEEPEST} deep; {_CURE}")
            items = value.items() if isinstance(value, dict) else enumerate(value)
            waiting += [((*place, str(key)[:40]), item) for key, item in reversed(list(items))]
    tensors = list(found.values())
    if not tensors:
        raise UserError(f"{path}: holds no tensor; {_CURE}")
    if len(tensors) > 1:
        names = ", ".join(name for name, _ in tensors[:8]) + (", ..." if len(tensors) > 8 else "")
        raise UserError(f"{path}: holds {len(tensors)} tensors ({names}); save the one that is wanted alone")
    return dict(tensors)


def _named_tensors(path: Path, root: Any) -> dict[str, Tensor]:
    named = isinstance(root, dict) and all(isinstance(name, str) for name in root)
    if not named or not root or not all(isinstance(tensor, Tensor) for tensor in root.values()):
        raise UserError(f"{path}: no tensors by name; {_STATE_DICT}")
    # A thousand of one storage would take a thousand times the memory of the file.
    if len({tensor.storage.key for tensor in root.values()}) < len(root):
        raise UserError(f"{path}: two of its tensors share a storage; {_STATE_DICT}, each tensor cloned")
    if sum(tensor.storage.count * _width(tensor.storage) for tensor in root.values()) > path.stat().st_size:
        raise Damaged("its tensors are larger than the file")
    return root


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
        raise Damaged(f"storage {storage.key[:60]} has {len(data)} bytes, {storage.count * width} announced")
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
