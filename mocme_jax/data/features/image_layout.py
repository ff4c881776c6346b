"""Images as vectors: colour layout, edges and palette, with NumPy and Pillow alone."""

from __future__ import annotations

import contextlib
import mmap
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

import numpy as np

from mocme_jax.data.readers.bounded_files import Damaged, open_file
from mocme_jax.errors import UserError, refuse
from mocme_jax.printed_commands import to_install

if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""What is read. Pillow knows more, among them PostScript, for which it starts another program."""

MOST_PIXELS = 1 << 25
"""Of a picture, 34 million; with transparency they take 400 MB, however small the file."""

# A progressive JPEG has about ten; a picture may come with smaller ones of itself.
_MOST_SCANS = 200

_OPAQUE = ("1", "L", "RGB", "CMYK", "YCbCr", "I", "F", "I;16")

GRID_COLUMNS, GRID_ROWS = 8, 6
_CELL = 8
_BINS = 4
IMAGE_WIDTH = GRID_ROWS * GRID_COLUMNS * (3 + 2) + _BINS**3
"""Length of an image vector: 304."""

_SRGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_D65 = np.array([0.95047, 1.0, 1.08883])


def image_vector(image: Image.Image) -> np.ndarray:
    """A fixed-length description of a picture: what colour lies where, and where it changes.

    Transparent margins are cut off and what is still transparent is laid on mid grey; the rest is scaled to
    64 by 48 pixels, so that the proportions of the picture do not matter. The parts, in order:

    * 144 values: mean CIE L*a*b* colour (D65, IEC 61966-2-1 transfer curve), divided by 100, of each cell of
      a grid of 6 rows by 8 columns, row by row;
    * 96 values: mean absolute change of L* / 100 between neighbouring pixels of each cell, along x for all
      cells, then along y: stripes, crosses and emblems show here;
    * 64 values: square root of the share of pixels in each of 4 x 4 x 4 equal boxes of sRGB.

    Args:
      image: any mode; converted to RGBA.

    Returns:
      float32 ``[304]``, finite.
    """
    from PIL import Image

    size = (GRID_COLUMNS * _CELL, GRID_ROWS * _CELL)
    flat = opaque(image).resize(size, Image.Resampling.BOX)
    pixels = np.asarray(flat, np.float64) / 255.0
    lab = _srgb_to_lab(pixels) / 100.0
    across, down = np.zeros(lab.shape[:2]), np.zeros(lab.shape[:2])
    across[:, 1:] = np.abs(np.diff(lab[..., 0], axis=1))
    down[1:] = np.abs(np.diff(lab[..., 0], axis=0))
    box_of = np.minimum((pixels * _BINS).astype(int), _BINS - 1) @ np.array([_BINS * _BINS, _BINS, 1])
    palette = np.bincount(box_of.ravel(), minlength=_BINS**3) / box_of.size
    edges = np.stack([_cell_means(across), _cell_means(down)])
    return np.concatenate([_cell_means(lab).ravel(), edges.ravel(), np.sqrt(palette)]).astype(np.float32)


def opaque(image: Image.Image) -> Image.Image:
    """The picture in RGB, its transparent margins cut off, what is still transparent laid on mid grey."""
    from PIL import Image

    # What has no transparency is spared three more copies of its pixels.
    if "transparency" in image.info or image.mode not in _OPAQUE:
        rgba = image.convert("RGBA")
        box = rgba.getchannel("A").getbbox()
        if box is not None:
            rgba = rgba.crop(box)
        ground = Image.new("RGBA", rgba.size, (128, 128, 128, 255))
        ground.alpha_composite(rgba)
        del rgba
        image = ground
    return image.convert("RGB")


def image_vectors(paths: Sequence[Path], bad: Callable[[str], None] = refuse) -> np.ndarray:
    """The vectors of n image files, float32 ``[n, 304]``; see read_image for errors, try_image for ``bad``."""
    rows = np.full((len(paths), IMAGE_WIDTH), np.nan, np.float32)
    for row, path in zip(rows, paths, strict=True):
        row[:] = try_image(path, image_vector, bad, np.nan)
    return rows


def try_image(path: Path, use: Callable[[Image.Image], T], bad: Callable[[str], None], instead: T) -> T:
    """As read_image; ``bad`` is told of a picture that can't be read, for which there is ``instead``."""
    try:
        return read_image(path, use)
    except UserError as error:
        bad(str(error))
        return instead


def read_image(path: Path, use: Callable[[Image.Image], T]) -> T:
    """What ``use`` makes of the picture in a file, which a stranger may have made, turned as its EXIF data say.

    Raises:
      UserError: the file is missing, is no image or has more than MOST_PIXELS, or Pillow is not installed.
    """
    try:
        from PIL import UnidentifiedImageError
    except ImportError as error:
        raise UserError(f"reading images needs Pillow; run: {to_install(extra='images')}") from error
    with open_file(path) as file:
        try:
            return _of_file(file, use)
        except UnidentifiedImageError:
            raise UserError(f"{path}: no image that can be read; convert it to PNG or JPEG") from None
        # A damaged image may raise anything inside of Pillow, and all of it means this.
        except Exception as error:
            reason = (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
            raise UserError(f"{path}: cannot read the image ({reason[:200]}); replace or remove it") from error


def _of_file(file: BinaryIO, use: Callable[[Image.Image], T]) -> T:
    from PIL import Image, ImageOps

    with warnings.catch_warnings():
        # Of odd metadata, which is not used, and of a size that is checked here.
        warnings.simplefilter("ignore")
        with Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise Damaged(f"{image.width} x {image.height} pixels; at most {MOST_PIXELS:,} are read: scale it down")
            if image.format in ("JPEG", "MPO") and _scans(file) > _MOST_SCANS:
                raise Damaged(f"more than {_MOST_SCANS} scans")
            with _silence() if image.format == "TIFF" else contextlib.nullcontext():
                image.load()
                # A camera held upright may store the picture as it lay. Damaged EXIF data turn nothing.
                with contextlib.suppress(Exception):
                    ImageOps.exif_transpose(image, in_place=True)
                return use(image)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keeps libtiff, which tells of damage by itself, from writing to the standard error of the process."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _scans(file: BinaryIO) -> int:
    """How often a JPEG goes over its picture; each time takes as long, however few bytes it has."""
    count = -1
    place = 0
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        while place >= 0 and count <= _MOST_SCANS:
            count, place = count + 1, data.find(b"\xff\xda", place + 2 * (count >= 0))
    return count


def _srgb_to_lab(pixels: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (L* in 0..100) of sRGB values in 0..1; shapes ``[..., 3]``."""
    linear = np.where(pixels <= 0.04045, pixels / 12.92, ((pixels + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _SRGB_TO_XYZ.T / _D65
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def _cell_means(values: np.ndarray) -> np.ndarray:
    """Means over the grid's cells: ``[48, 64, ...]`` to ``[6, 8, ...]``."""
    cells = values.reshape(GRID_ROWS, _CELL, GRID_COLUMNS, _CELL, *values.shape[2:])
    return cells.mean(axis=(1, 3))
