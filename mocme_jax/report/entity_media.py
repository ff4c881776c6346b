"""Pictures, sounds and films of entities, made small and written into the page."""

from __future__ import annotations

import base64
import io
import wave
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup

from mocme_jax.data.features.entity_files import entity_files
from mocme_jax.data.media.clips import read_frames
from mocme_jax.data.media.file_encoders import MEDIA, read_any_sound
from mocme_jax.data.media.pictures import read_image, small_png
from mocme_jax.data.media.sounds import RATE
from mocme_jax.errors import MissingPackage

SECONDS = 5
"""Of a sound, from its beginning."""

MOST_BYTES = 4 << 20
"""Of all files in a page, before they are written as text, which takes a third more."""

_SIDE = 128
"""Pixels of a picture's longer side in the page."""
_MOST_FILES = {"image": 2, "audio": 1, "video": 1}
"""Of an entity."""


class EntityMedia:
    """Files of entities, by folders of them.

    Args:
      folders: by modality (``image``, ``audio``, ``video``), see ``entity_files``, also for its errors.
      names: of the entities, in the order of their ids.
    """

    def __init__(self, folders: Mapping[str, Path], names: Sequence[str]):
        self._files = {kind: entity_files(folder, names, kind)[0] for kind, folder in folders.items()}
        self._missing: dict[str, str] = {}
        self._bytes = 0
        self._too_many = 0

    def kinds(self) -> Counter[int]:
        """How many kinds of files each entity has, by its id."""
        return Counter(index for files in self._files.values() for index in files)

    @property
    def asked(self) -> set[str]:
        """The modalities that have a folder."""
        return set(self._files)

    @property
    def shown(self) -> set[str]:
        """The modalities that have a folder and can be read."""
        return self.asked - self._missing.keys()

    @property
    def left_out(self) -> list[str]:
        """What is not in the page, a line each, once the files were asked for."""
        lines = [f"{MEDIA[kind].plural} are left out: {why}" for kind, why in self._missing.items()]
        if self._too_many:
            lines.append(f"{self._too_many:,} files are left out: a page holds {MOST_BYTES >> 20} MB of files at most")
        return lines

    def of(self, index: int) -> dict[str, list[Markup]]:
        """What is shown of an entity by modality, as ``data:`` addresses: pictures, a sound, a frame of a film.

        Raises:
          UserError: a file can't be read.
        """
        return {kind: self._some(kind, index) for kind in _MOST_FILES}

    def _some(self, kind: str, index: int) -> list[Markup]:
        found = []
        for path in self._files.get(kind, {}).get(index, [])[: _MOST_FILES[kind]] if kind in self.shown else ():
            mime, made = _MADE[kind]
            try:
                content = made(path)
            except MissingPackage as error:
                self._missing[kind] = str(error)
                return []
            if self._bytes + len(content) > MOST_BYTES:
                self._too_many += 1
                continue
            self._bytes += len(content)
            found.append(Markup(f"data:{mime};base64,") + base64.b64encode(content).decode("ascii"))
        return found


def _start_of_sound(path: Path) -> bytes:
    """The first seconds of a sound as a WAV file, which every browser plays: mono, 16 bits, RATE samples per second."""
    samples = np.clip(read_any_sound(path)[: SECONDS * RATE], -1, 1)
    written = io.BytesIO()
    with wave.open(written, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((samples * 32767).round().astype("<i2").tobytes())
    return written.getvalue()


_MADE: dict[str, tuple[str, Callable[[Path], bytes]]] = {
    "image": ("image/png", lambda path: read_image(path, lambda image: small_png(image, _SIDE))),
    "audio": ("audio/wav", _start_of_sound),
    # One frame is the one in the middle.
    "video": ("image/png", lambda path: small_png(read_frames(path, 1)[0], _SIDE)),
}
"""What of a modality's file is in the page, and its type."""
