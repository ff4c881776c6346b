"""Films and animated pictures: frames spread over the clip, and its sound track, read with PyAV (FFmpeg)."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mocme_jax.data.media.sounds import MOST_SECONDS, RATE, finite
from mocme_jax.data.readers.bounded_files import open_file
from mocme_jax.errors import UserError
from mocme_jax.printed_commands import needed_package

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ogv", ".gif")
FRAMES = 8
"""Of a clip, spread evenly over it."""

MOST_PIXELS = 1 << 25
"""Of a frame, 34 million."""

# What FFmpeg may take a file for. It knows lists of other files and addresses, too, and would open these.
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegvideo,ogg,gif"
# A clip of more frames is searched by time; searching needs an index that short clips and GIFs may lack.
_DECODED_WHOLE = 2_000


def read_frames(path: Path, count: int = FRAMES) -> list[Image.Image]:
    """Frames from the middles of ``count`` equal parts of a clip, in order; all of a clip that has no more.

    Returns:
      RGB or RGBA pictures, turned as the file says.

    Raises:
      UserError: the file is missing, is no clip, has no frame or frames of more than MOST_PIXELS.
      MissingPackage: PyAV or Pillow is not installed.
    """
    with _opened(path) as container:
        if not container.streams.video:
            raise UserError(f"{path}: contains no video frames; replace or remove it")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise UserError(f"{path}: has an unknown video encoding; convert it to MP4 with H.264")
        size = stream.codec_context.width * stream.codec_context.height
        if not 0 < size <= MOST_PIXELS:
            raise UserError(f"{path}: has frames of {size:,} pixels; at most {MOST_PIXELS:,} are read: scale it down")
        stream.thread_type = "AUTO"
        length = sum(1 for packet in container.demux(stream) if packet.size)
        long = length > _DECODED_WHOLE and stream.duration
        frames = _search(container, stream, count) if long else _decode(container, stream, length, count)
        pictures = [_picture(path, frame) for frame in frames]
    if not pictures:
        raise UserError(f"{path}: contains no readable frame; replace or remove it")
    return pictures


def read_sound_track(path: Path) -> np.ndarray:
    """The first sound track of a clip, its channels averaged, see read_sound for the result.

    Raises:
      UserError: as of read_frames; or there is no sound in it.
    """
    blocks: list[np.ndarray] = []
    with _opened(path) as container:
        import av

        if not container.streams.audio:
            raise UserError(f"{path}: has no sound track")
        to_mono = av.AudioResampler(format="fltp", layout="mono", rate=RATE)
        left = RATE * MOST_SECONDS
        if container.streams.audio[0].codec_context is None:
            raise UserError(f"{path}: has an unknown sound encoding; convert it to AAC")
        # None at the end asks for what the resampler still holds.
        for frame in itertools.chain(container.decode(container.streams.audio[0]), [None]):
            for part in to_mono.resample(frame):
                blocks.append(part.to_ndarray().reshape(-1)[:left])
                left -= len(blocks[-1])
            if not left:
                break
    if not sum(map(len, blocks)):
        raise UserError(f"{path}: has an empty sound track")
    return finite(np.concatenate(blocks))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The container in a file; whatever goes wrong inside of FFmpeg is a UserError that names the file."""
    # PyAV makes pictures of frames with Pillow.
    av, _ = (needed_package(name, "reading clips needs PyAV and Pillow", extra="video") for name in ("av", "PIL"))
    av.logging.set_level(None)
    with open_file(path) as file:
        try:
            with av.open(file, options={"format_whitelist": _FORMATS}) as container:
                yield container
        except (av.FFmpegError, ValueError, RuntimeError, OverflowError, MemoryError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise UserError(f"{path}: cannot read the clip ({reason[:200]}); replace or remove it") from error


def _decode(container: Any, stream: Any, length: int, count: int) -> Iterator[Any]:
    container.seek(0)
    chosen = {int((part + 0.5) * length / count) for part in range(count)}
    yield from (frame for place, frame in enumerate(container.decode(stream)) if place in chosen)


def _search(container: Any, stream: Any, count: int) -> Iterator[Any]:
    for part in range(count):
        time = (stream.start_time or 0) + int((part + 0.5) * stream.duration / count)
        # To the last picture before it that is stored whole; from there on the others can be decoded.
        container.seek(time, stream=stream)
        later = (frame for frame in container.decode(stream) if frame.pts is not None and frame.pts >= time)
        yield from itertools.islice(later, 1)


def _picture(path: Path, frame: Any) -> Image.Image:
    # The size may change within a clip.
    if frame.width * frame.height > MOST_PIXELS:
        raise UserError(f"{path}: has frames of more than {MOST_PIXELS:,} pixels; scale it down")
    picture = frame.to_image()
    return picture.rotate(frame.rotation, expand=True) if frame.rotation else picture
