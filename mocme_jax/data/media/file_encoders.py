"""Encoders of files by modality: of pictures, of sounds and of clips."""

import difflib
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from mocme_jax.data.media import clips, image_layout, pictures, sounds, transformers_models
from mocme_jax.data.media.sound_spectrum import sound_vector
from mocme_jax.errors import UserError, refuse

_LAYOUT, _LITE, _MEL = "layout", "efficientnet-lite0", "mel"
_TRANSFORMERS = "transformers"

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
    "image": Media(pictures.SUFFIXES, (_LAYOUT, _LITE), "images"),
    "audio": Media((*sounds.SUFFIXES, *_WITH_SOUND), (_MEL,), "sounds"),
    "video": Media(clips.SUFFIXES, (_LAYOUT, _LITE), "clips"),
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
        model = _transformers_model(modality, name, (_MEL,))
        if model:
            return FileEncoder(read_any_sound, transformers_models.of_sounds(model))
        return FileEncoder(lambda path: sound_vector(read_any_sound(path)), np.stack)
    see, vectors = image_encoder(name)
    if modality == "video":
        return _of_clips(see, vectors)
    return FileEncoder(lambda path: pictures.read_image(path, see), vectors)


def image_encoder(name: str) -> tuple[Callable[[Any], np.ndarray], Callable[[Sequence[np.ndarray]], np.ndarray]]:
    """The image encoder of a name, in two steps: pictures are large, and what an encoder sees of one is small.

    Args:
      name: ``layout`` (304 wide: colours and shapes, see image_layout), ``efficientnet-lite0`` (1,280 wide, see
        efficientnet) or ``transformers:MODEL`` (see transformers_models).

    Returns:
      A function from a picture to what the encoder sees of it, and one from n of these to float32 ``[n, d]``.

    Raises:
      UserError: the name is unknown, a package is missing, or a model can't be loaded.
    """
    model = _transformers_model("image", name, (_LAYOUT, _LITE))
    if model:
        return transformers_models.of_images(model)
    if name == _LITE:
        # Not above: the rest of this package's preparation needs no JAX, which takes a second to start.
        from mocme_jax.data.media import efficientnet

        return efficientnet.picture, efficientnet.vectors(efficientnet.load())
    return image_layout.image_vector, np.stack


def _transformers_model(kind: str, name: str, names: Collection[str]) -> str:
    """``MODEL`` of a name ``transformers:MODEL``, or nothing if the name is one of ``names``.

    Raises:
      UserError: it is neither, with the nearest name; ``kind`` says what it was to encode.
    """
    word, _, model = name.partition(":")
    if word == _TRANSFORMERS and model:
        return model
    if name in names:
        return ""
    near = difflib.get_close_matches(word, (*names, _TRANSFORMERS), 1)
    meant = f"{_TRANSFORMERS}:MODEL" if near == [_TRANSFORMERS] else "".join(near)
    hint = f"did you mean {meant}?" if near else f"use {', '.join(names)} or {_TRANSFORMERS}:MODEL"
    raise UserError(f"{kind} encoder {name!r} is unknown; {hint}")


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


def _of_clips(see: Callable, vectors: Callable) -> FileEncoder:
    def read(path: Path) -> np.ndarray:
        return np.stack([see(frame) for frame in clips.read_frames(path)])

    def of_clips(frames: Iterable[np.ndarray]) -> np.ndarray:
        return np.stack([_over_time(np.asarray(vectors(list(one)))) for one in frames])

    return FileEncoder(read, of_clips)


def _over_time(rows: np.ndarray) -> np.ndarray:
    """Vectors of a clip's frames ``[f, d]`` as one ``[2d]``."""
    change = np.abs(np.diff(rows, axis=0)).mean(axis=0) if len(rows) > 1 else np.zeros_like(rows[0])
    return np.concatenate([rows.mean(axis=0), change])
