"""Sound files as samples, read with soundfile (libsndfile)."""

import math
from pathlib import Path

import numpy as np

from mocme_jax.data.media.quiet_libraries import quiet
from mocme_jax.data.readers.bounded_files import open_file
from mocme_jax.errors import UserError
from mocme_jax.printed_commands import needed_package

RATE = 16_000
"""Samples per second of what is returned."""

MOST_SECONDS = 600
"""Of a sound; what comes later is not read."""

SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff")
FORMATS = ("WAV", "WAVEX", "RF64", "FLAC", "OGG", "MP3", "AIFF")
"""What is read, in libsndfile's words. It knows more, of which some are raw samples that anything can be taken for."""

_MOST_CHANNELS = 32
_RATES = range(1_000, 768_001)


def read_sound(path: Path) -> np.ndarray:
    """The sound of a file, its channels averaged.

    Returns:
      float32 ``[T]``, T at least 1, RATE samples per second, in about -1..1; of at most MOST_SECONDS.

    Raises:
      UserError: the file is missing, is no sound or holds nothing; MissingPackage: soundfile is not installed.
    """
    soundfile = needed_package("soundfile", "reading sounds needs soundfile", extra="audio")
    with open_file(path) as file:
        try:
            with quiet(), soundfile.SoundFile(file) as sound:
                if sound.format not in FORMATS:
                    raise UserError(f"{path}: is a sound file of type {sound.format}; convert it to WAV or FLAC")
                rate, channels = sound.samplerate, sound.channels
                if rate not in _RATES or channels > _MOST_CHANNELS:
                    raise UserError(f"{path}: has {channels} channels at {rate} Hz; convert it to one at {RATE} Hz")
                blocks = [
                    finite(block).mean(axis=1)
                    for block in sound.blocks(rate, frames=rate * MOST_SECONDS, dtype="float32", always_2d=True)
                ]
        except (soundfile.SoundFileError, RuntimeError, ValueError) as error:
            raise UserError(f"{path}: cannot read the sound ({str(error)[:200]}); replace or remove it") from error
    samples = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    if not len(samples):
        raise UserError(f"{path}: contains no sound; replace or remove it")
    return resampled(samples, rate, RATE)


def finite(samples: np.ndarray) -> np.ndarray:
    """Samples as float32, not far outside of -1..1; what is no number is silence."""
    return np.clip(np.nan_to_num(np.asarray(samples, np.float32), posinf=0, neginf=0), -4, 4)


def resampled(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Samples ``[T]`` of one rate as float32 samples of another, filtered so that no pitch is mistaken for a lower."""
    from scipy.signal import resample_poly

    common = math.gcd(rate, wanted)
    if rate == wanted:
        return samples
    return resample_poly(samples, wanted // common, rate // common).astype(np.float32)
