"""Encoders of files by modality: of pictures, of sounds and of clips."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from mocme_jax.data.media import clips, pictures, sounds, transformers_models
from mocme_jax.data.media.image_encoders import LAYOUT, LITE, ImageEncoder, image_encoder, transformers_model
from mocme_jax.data.media.sound_spectrum import sound_vector
from mocme_jax.errors import UserError, refuse

MEL = "mel"

# Without pictures that move but are silent.
_WITH_SOUND = tuple(suffix for suffix in clips.SUFFIXES if suffix != ".gif")
# Files that are read before their vectors are made, and between two words on how far the work is.
_AT_ONCE = 16


class Media(NamedTuple):
    """A modality that is made of files.

    Attributes:
      suffixes: of its files, in lower case.
      encoders: names of those that come with the program or its extras; the first is the default.
      plural: what its files are called.
    """

    suffixes: tuple[str, ...]
    encoders: tuple[str, ...]
    plural: str


MEDIA = {
    "image": Media(pictures.SUFFIXES, (LAYOUT, LITE), "images"),
    "audio": Media((*sounds.SUFFIXES, *_WITH_SOUND), (MEL,), "sounds"),
    "video": Media(clips.SUFFIXES, (LAYOUT, LITE), "clips"),
}
"""By modality."""


Encode: TypeAlias = Callable[[Sequence[Path]], np.ndarray]
"""From n files to their vectors, float ``[n, d]``; a row of NaN for a file that it can't read."""

ADDED: dict[tuple[str, str], Encode] = {}
"""Encoders that were added, by modality and name, see plugins."""


def encoders_of(modality: str) -> tuple[str, ...]:
    """Names of a modality's encoders, those of models by name aside, the default first; none if it has no files."""
    own = MEDIA[modality].encoders if modality in MEDIA else ()
    return (*own, *(name for kind, name in ADDED if kind == modality))


class FileEncoder(NamedTuple):
    """From files to vectors.

    Attributes:
      read: what the encoder takes of a file; raises a UserError that names the file.
      vectors: of n of these, float32 ``[n, d]``.
    """

    read: Callable[[Path], Any]
    vectors: Callable[[Sequence[Any]], np.ndarray]


def file_encoder(modality: str, name: str) -> FileEncoder:
    """The encoder of a modality's files.

    Args:
      modality: ``image``, ``audio`` or ``video``, or one for which an encoder was added.
      name: for ``image`` see image_encoder. For ``audio`` ``mel`` (193 wide, see sound_spectrum) or
        ``transformers:MODEL``; of a clip, its sound track is taken. For ``video`` an image encoder, of d wide vectors:
        the mean of the frames' vectors and the mean absolute change from frame to frame, 2d wide. An encoder
        that was added has its own name.

    Raises:
      UserError: the name is unknown, a package is missing, or a model can't be loaded.
    """
    if (modality, name) in ADDED:
        encode = ADDED[modality, name]
        return FileEncoder(lambda path: path, lambda paths: np.asarray(encode(paths), np.float32))
    if modality not in MEDIA:
        known = ", ".join(encoders_of(modality)) or "none"
        raise UserError(f"{modality} encoder {name!r} is unknown; known encoders: {known}")
    if modality == "audio":
        model = transformers_model(modality, name, (MEL,))
        if model:
            return FileEncoder(read_any_sound, transformers_models.of_sounds(model))
        return FileEncoder(lambda path: sound_vector(read_any_sound(path)), np.stack)
    image = image_encoder(name)
    if modality == "video":
        return _of_clips(image)
    return FileEncoder(lambda path: pictures.read_image(path, image.see), image.vectors)


def encode_files(
    encoder: FileEncoder,
    paths: Sequence[Path],
    bad: Callable[[str], None] = refuse,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> np.ndarray:
    """The vectors of n files, float32 ``[n, d]``; all NaN for a file that can't be read.

    Args:
      bad: told of a file that can't be read; by default it raises.
      told: now and then, how many files are encoded, and of how many.
    """
    found: dict[int, np.ndarray] = {}
    for start in range(0, len(paths), _AT_ONCE):
        read: dict[int, np.ndarray] = {}
        for place, path in enumerate(paths[start : start + _AT_ONCE], start):
            try:
                read[place] = encoder.read(path)
            except UserError as error:
                bad(str(error))
        if read:
            rows = encoder.vectors(list(read.values()))
            if rows.ndim != 2 or len(rows) != len(read):
                raise UserError(
                    f"an encoder gave an array {list(rows.shape)} for {len(read)} files; expected one row per file"
                )
            found |= dict(zip(read, rows, strict=True))
        told(min(start + _AT_ONCE, len(paths)), len(paths))
    width = next((len(vector) for vector in found.values()), 1)
    vectors = np.full((len(paths), width), np.nan, np.float32)
    for place, vector in found.items():
        if np.isnan(vector).any():
            bad(f"{paths[place]}: the encoder gave no vector; replace or remove it")
        vectors[place] = vector
    return vectors


def read_any_sound(path: Path) -> np.ndarray:
    """The sound of a file of sound or the sound track of a film, as ``read_sound`` gives it."""
    return clips.read_sound_track(path) if Path(path).suffix.lower() in _WITH_SOUND else sounds.read_sound(path)


def _of_clips(image: ImageEncoder) -> FileEncoder:
    def read(path: Path) -> np.ndarray:
        return np.stack([image.see(frame) for frame in clips.read_frames(path)])

    def vectors(frames: Iterable[np.ndarray]) -> np.ndarray:
        return np.stack([_over_time(np.asarray(image.vectors(list(one)))) for one in frames])

    return FileEncoder(read, vectors)


def _over_time(rows: np.ndarray) -> np.ndarray:
    """Vectors of a clip's frames ``[f, d]`` as one ``[2d]``."""
    change = np.abs(np.diff(rows, axis=0)).mean(axis=0) if len(rows) > 1 else np.zeros_like(rows[0])
    return np.concatenate([rows.mean(axis=0), change])
