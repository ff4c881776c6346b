"""Arrays from HDF5 files, by h5py where it is installed.

HDF5 may keep an array in other files, or pack it by programs that it loads; neither is followed. Packed pieces and
texts are read here: the library takes as much memory as a packed piece asks for, and hangs at some malformed texts.
"""

import mmap
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from mocme_jax.data.readers.bounded_files import Damaged, claimed_count, map_file
from mocme_jax.data.readers.zip_archive import INFLATED, RATIO
from mocme_jax.errors import UserError
from mocme_jax.printed_commands import needed_package

_DEFLATE, _SHUFFLE = 1, 2


def read_hdf5(path: Path) -> dict[str, list[str] | np.ndarray]:
    """All arrays at the root of a file by name; arrays of text as lists.

    Raises:
      UserError: the file is missing or malformed, holds groups or links, has an array that is kept elsewhere, larger
        than the file allows or packed by anything but gzip, or h5py is not installed.
    """
    h5py = needed_package("h5py", f"{path}: reading HDF5 needs a package", extra="hdf5")
    data = map_file(path)
    try:
        with h5py.File(path, "r") as archive:
            most = max(INFLATED, RATIO * len(data))
            found: dict[str, list[str] | np.ndarray] = {}
            for name in archive:
                if not isinstance(archive.get(name, getlink=True), h5py.HardLink):
                    raise Damaged(f"{name[:60]!r} is a link")
                dataset = archive[name]
                if not isinstance(dataset, h5py.Dataset):
                    raise Damaged(f"{name[:60]!r} is a group; save arrays at the root: rows, with ids or present")
                found[name] = _read(dataset, f"array {name[:60]!r}", most, data)
                most -= dataset.nbytes
            return found
    except Damaged as error:
        raise UserError(f"{path}: {error}") from None
    # What is no HDF5 file may raise anything inside of h5py, and all of it means this.
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path}: truncated or not an HDF5 file ({reason[:120]}); write it again") from None


def _read(dataset: Any, what: str, most: int, data: mmap.mmap | bytes) -> list[str] | np.ndarray:
    from h5py import check_string_dtype

    if dataset.is_virtual or dataset.external:
        raise Damaged(f"{what} is stored in other files; save it in this one")
    settings = dataset.id.get_create_plist()
    filters = [settings.get_filter(index)[0] for index in range(settings.get_nfilters())]
    if filters not in ([], [_DEFLATE], [_SHUFFLE, _DEFLATE]):
        raise Damaged(f"{what} uses unsupported compression filters; save it with compression='gzip' or none")
    for shape in (dataset.shape or (), dataset.chunks or ()):
        claimed_count(shape, dataset.dtype.itemsize, most)
    if check_string_dtype(dataset.dtype):
        if filters or dataset.ndim != 1:
            raise Damaged(
                f"{what} is text of shape {list(dataset.shape)}, or compressed; save a plain list of entities"
            )
        return _texts(dataset, what, data)
    if dataset.dtype.kind not in "fiub":
        raise Damaged(f"{what} is of type {dataset.dtype}; save numbers, or entities as text")
    return _unpacked(dataset, what, most, filters) if filters else dataset[()]


def _texts(dataset: Any, what: str, data: mmap.mmap | bytes) -> list[str]:
    """Texts of one length as they lie, others by their places in heaps; see the HDF5 File Format Specification."""
    from h5py import check_string_dtype

    if check_string_dtype(dataset.dtype).length is not None:
        claimed_count(dataset.shape, dataset.dtype.itemsize, len(data))
        return [text.decode() for text in dataset[()].tolist()]
    start, file = dataset.id.get_offset(), dataset.file
    if start is None or file.userblock_size or file.id.get_create_plist().get_sizes() != (8, 8):
        raise Damaged(f"{what} is chunked text; save a plain list of entities")
    size = 16 * claimed_count(dataset.shape, 16, len(data))
    places = np.frombuffer(data[start : start + size], [("length", "<u4"), ("heap", "<u8"), ("index", "<u4")])
    heaps: dict[int, dict[int, tuple[int, int]]] = {}
    # Many rows may be one long text, which is held once.
    found: dict[tuple[int, int, int], str] = {}
    left = len(data)
    for length, heap, index in set(places.tolist()):
        if not length:
            found[length, heap, index] = ""
            continue
        if heap not in heaps:
            heaps[heap], end = _heap(data, heap, what)
            # Heaps that overlap could be as many as the file has bytes.
            left -= end - heap
        first, longest = heaps[heap].get(index, (0, 0))
        if length > longest or left < 0:
            raise Damaged(f"{what} points to a text that does not exist")
        found[length, heap, index] = data[first : first + length].decode()
    return [found[place] for place in places.tolist()]


def _heap(data: mmap.mmap | bytes, start: int, what: str) -> tuple[dict[int, tuple[int, int]], int]:
    """Where the objects of a heap begin and how long they are, by their index; and the heap's end."""
    end = start + int.from_bytes(data[start + 8 : start + 16], "little")
    if data[start : start + 4] != b"GCOL" or end > len(data):
        raise Damaged(f"{what} points to a text that does not exist")
    objects: dict[int, tuple[int, int]] = {}
    place = start + 16
    while place + 16 <= end and (index := int.from_bytes(data[place : place + 2], "little")):
        size = int.from_bytes(data[place + 8 : place + 16], "little")
        if place + 16 + size > end:
            raise Damaged(f"{what} points to a text that does not exist")
        objects[index] = place + 16, size
        place += 16 + (size + 7) // 8 * 8
    return objects, end


def _unpacked(dataset: Any, what: str, most: int, filters: list[int]) -> np.ndarray:
    array = np.full(dataset.shape, dataset.fillvalue, dataset.dtype)
    size = claimed_count(dataset.chunks, dataset.dtype.itemsize, most) * dataset.dtype.itemsize
    places: list[tuple[tuple[int, ...], int]] = []
    dataset.id.chunk_iter(lambda chunk: places.append((chunk.chunk_offset, chunk.filter_mask)))
    for start, left_out in places:
        data = dataset.id.read_direct_chunk(start)[1]
        # A bit for each filter that this piece has not gone through.
        if not left_out >> (len(filters) - 1) & 1:
            data = zlib.decompressobj().decompress(data, size + 1)
        if len(data) != size:
            raise Damaged(f"{what} has a chunk of the wrong length")
        if filters[0] == _SHUFFLE and not left_out & 1:
            data = np.frombuffer(data, np.uint8).reshape(dataset.dtype.itemsize, -1).T.tobytes()
        within = tuple(slice(at, at + length) for at, length in zip(start, dataset.chunks, strict=True))
        part = array[within]
        part[...] = np.frombuffer(data, dataset.dtype).reshape(dataset.chunks)[tuple(map(slice, part.shape))]
    return array
