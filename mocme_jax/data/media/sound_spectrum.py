"""Sounds as vectors: how loud each band of pitch is, how much that varies, and how fast."""

import functools

import numpy as np

from mocme_jax.data.media.sounds import RATE

BANDS = 64
WIDTH = 3 * BANDS + 1
"""Length of a sound's vector: 193."""

# 25 ms every 10 ms, as is usual for speech and for AudioSet (Hershey et al., ICASSP 2017).
_WINDOW, _STEP = RATE // 40, RATE // 100
_TRANSFORM = 512
_LOWEST, _HIGHEST = 60.0, 7_800.0
# Silence is 100 dB below a full-scale tone, not infinitely far.
_FLOOR = 1e-10
# Frames at a time: a sound of ten minutes has 60,000.
_FRAMES = 4_096


def sound_vector(samples: np.ndarray) -> np.ndarray:
    """A fixed-length description of a sound by its mel spectrum.

    The power of 64 triangular bands, spaced evenly on the mel scale 2595 log10(1 + f / 700) from 60 to 7,800 Hz, every
    10 ms over a Hann window of 25 ms, as log10. The parts, in order:

    * 64 values: the mean over time;
    * 64 values: the standard deviation over time;
    * 64 values: the mean absolute change from one frame to the next;
    * 1 value: log10 of the length in seconds.

    Args:
      samples: float ``[T]``, T at least 1, at RATE.

    Returns:
      float32 ``[193]``, finite.
    """
    seconds = len(samples) / RATE
    samples = np.pad(np.asarray(samples, np.float64), (0, max(_WINDOW - len(samples), 0)))
    frames = np.lib.stride_tricks.sliding_window_view(samples, _WINDOW)[::_STEP]
    logs = np.concatenate([_log_mel(frames[start : start + _FRAMES]) for start in range(0, len(frames), _FRAMES)])
    change = np.abs(np.diff(logs, axis=0)).mean(axis=0) if len(logs) > 1 else np.zeros(BANDS)
    return np.concatenate([logs.mean(axis=0), logs.std(axis=0), change, [np.log10(seconds)]]).astype(np.float32)


def _log_mel(frames: np.ndarray) -> np.ndarray:
    """log10 of the power in each band, ``[n, 64]``, of frames ``[n, 400]``."""
    window = np.hanning(_WINDOW + 1)[:-1]
    power = np.abs(np.fft.rfft(frames * window, _TRANSFORM)) ** 2 / (window.sum() / 2) ** 2
    return np.log10(np.maximum(power @ _bands(), _FLOOR))


@functools.cache
def _bands() -> np.ndarray:
    """Triangular weights ``[257, 64]`` of the transform's frequencies."""

    def mel(hertz: np.ndarray) -> np.ndarray:
        return 2595 * np.log10(1 + hertz / 700)

    edges = np.linspace(*mel(np.array([_LOWEST, _HIGHEST])), BANDS + 2)
    place = mel(np.fft.rfftfreq(_TRANSFORM, 1 / RATE))[:, None]
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    return np.clip(np.minimum((place - low) / (middle - low), (high - place) / (high - middle)), 0, None)
