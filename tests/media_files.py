"""Sounds and clips for tests, written by the standard library and by PyAV."""

import wave

import numpy as np
import pytest

from mocme_jax.data.media.sounds import RATE


def write_wave(path, samples, rate=RATE):
    """16-bit PCM of samples ``[T]`` or ``[T, channels]`` in -1..1, by the standard library."""
    samples = np.atleast_2d(np.asarray(samples).T).T
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).round().astype("<i2").tobytes())
    return path


def tone(hertz, seconds=1.0, rate=RATE):
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


def write_clip(path, frames, *, rate=10, codec="mpeg4", pixels="yuv420p", sound=None):
    """A clip of frames uint8 ``[n, rows, columns, 3]``, with a mono sound track of samples or without."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        if codec == "mpeg4":
            stream.bit_rate = 4_000_000
        track = container.add_stream("aac", rate=RATE, layout="mono") if sound is not None else None
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
        if track is not None:
            for start in range(0, len(sound), 1024):
                part = np.asarray(sound[start : start + 1024], np.float32)[None]
                frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
                frame.sample_rate, frame.pts = RATE, start
                container.mux(track.encode(frame))
            container.mux(track.encode())
    return path


def plain(value, rows=48, columns=64):
    return np.full((rows, columns, 3), value, np.uint8)
