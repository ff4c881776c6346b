"""Picture files of unknown origin, read with Pillow."""

from __future__ import annotations

import contextlib
import io
import mmap
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from mocme_jax.data.media.quiet_libraries import quiet
from mocme_jax.data.readers.bounded_files import Damaged, open_file
from mocme_jax.errors import UserError
from mocme_jax.printed_commands import needed_package

if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""What is read. Pillow knows more, among them PostScript, for which it starts another program."""

MOST_PIXELS = 1 << 25
"""Of a picture, 34 million; with transparency they take 400 MB, however small the file."""

# A progressive JPEG has about ten; a picture may come with smaller ones of itself.
_MOST_SCANS = 200

_OPAQUE = ("1", "L", "RGB", "CMYK", "YCbCr", "I", "F", "I;16")


def read_image(path: Path, use: Callable[[Image.Image], T]) -> T:
    """What ``use`` makes of the picture in a file, which a stranger may have made, turned as its EXIF data say.

    Raises:
      UserError: the file is missing, is no image or has more than MOST_PIXELS; MissingPackage: Pillow is not installed.
    """
    pillow = needed_package("PIL", "reading images needs Pillow", extra="images")
    with open_file(path) as file:
        try:
            return _of_file(file, use)
        except pillow.UnidentifiedImageError:
            raise UserError(f"{path}: not a readable image; convert it to PNG or JPEG") from None
        # A damaged image may raise anything inside of Pillow, and all of it means this.
        except Exception as error:
            reason = (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
            raise UserError(f"{path}: cannot read the image ({reason[:200]}); replace or remove it") from error


def small_png(image: Image.Image, side: int) -> bytes:
    """A copy as PNG, at most ``side`` pixels wide and high, without what else the file holds, such as a place."""
    small = image.convert("RGBA")
    small.thumbnail((side, side))
    written = io.BytesIO()
    small.save(written, format="PNG", optimize=True)
    return written.getvalue()


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
            with quiet() if image.format == "TIFF" else contextlib.nullcontext():
                image.load()
                # A camera held upright may store the picture as it lay. Damaged EXIF data turn nothing.
                with contextlib.suppress(Exception):
                    ImageOps.exif_transpose(image, in_place=True)
                return use(image)


def _scans(file: BinaryIO) -> int:
    """How often a JPEG goes over its picture; each time takes as long, however few bytes it has."""
    count = -1
    place = 0
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        while place >= 0 and count <= _MOST_SCANS:
            count, place = count + 1, data.find(b"\xff\xda", place + 2 * (count >= 0))
    return count


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
