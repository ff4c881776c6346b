"""Sounds and clips: what is read of files, what is refused, and vectors against sums done another way."""

import sys

import numpy as np
import pytest
from media_files import plain, tone, write_clip, write_wave

from mocme_jax.data.media import clips, sounds
from mocme_jax.data.media.sound_spectrum import BANDS, WIDTH, sound_vector
from mocme_jax.errors import UserError

RATE = sounds.RATE


class TestSounds:
    def test_channels_are_averaged_and_rates_made_one(self, tmp_path):
        pytest.importorskip("soundfile")
        both = np.stack([tone(440, rate=44_100), np.zeros(44_100)], axis=1)
        samples = sounds.read_sound(write_wave(tmp_path / "a.wav", both, 44_100))
        assert samples.dtype == np.float32
        assert samples.shape == (RATE,)
        # Away from the ends, where the filter of the resampling reaches past the sound.
        np.testing.assert_allclose(samples[500:-500], 0.5 * tone(440)[500:-500], atol=2e-3)

    def test_formats(self, tmp_path):
        soundfile = pytest.importorskip("soundfile")
        for suffix in (".wav", ".flac", ".ogg", ".mp3", ".aiff"):
            soundfile.write(tmp_path / f"a{suffix}", tone(440), RATE)
            samples = sounds.read_sound(tmp_path / f"a{suffix}")
            loudest = np.abs(np.fft.rfft(samples[:RATE])).argmax()
            assert loudest == 440, suffix

    def test_a_long_sound_is_cut(self, tmp_path, monkeypatch):
        pytest.importorskip("soundfile")
        monkeypatch.setattr(sounds, "MOST_SECONDS", 2)
        assert len(sounds.read_sound(write_wave(tmp_path / "a.wav", tone(50, 5.0)))) == 2 * RATE

    def test_what_is_no_sound(self, tmp_path):
        soundfile = pytest.importorskip("soundfile")
        whole = write_wave(tmp_path / "whole.wav", tone(440)).read_bytes()
        files = {
            "empty.wav": b"",
            "text.mp3": b"no sound at all\n" * 50,
            "header.wav": whole[:44],
            "short.flac": b"fLaC\0\0\0\x22",
        }
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
            with pytest.raises(UserError, match=f"{name}: (cannot read the sound|contains no sound)"):
                sounds.read_sound(tmp_path / name)
        soundfile.write(tmp_path / "raw.au", tone(440), RATE)
        with pytest.raises(UserError, match="a sound file of type AU; convert it to WAV"):
            sounds.read_sound(tmp_path / "raw.au")
        with pytest.raises(UserError, match="no such file"):
            sounds.read_sound(tmp_path / "none.wav")
        with pytest.raises(UserError, match="a folder, a pipe or a device"):
            sounds.read_sound(tmp_path)

    def test_infinite_samples_are_silence(self, tmp_path):
        soundfile = pytest.importorskip("soundfile")
        samples = tone(440).astype(np.float32)
        samples[100:200] = np.nan
        samples[300] = np.inf
        soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
        found = sounds.read_sound(tmp_path / "a.wav")
        assert np.isfinite(found).all()
        assert (found[100:200] == 0).all()


class TestSpectrum:
    def test_a_tone_lies_in_the_band_of_its_pitch(self):
        for hertz in (200, 1_000, 5_000):
            vector = sound_vector(tone(hertz))
            assert vector.shape == (WIDTH,)
            edges = np.linspace(*(2595 * np.log10(1 + np.array([60, 7_800]) / 700)), BANDS + 2)
            near = np.abs(edges[1:-1] - 2595 * np.log10(1 + hertz / 700)).argmin()
            assert abs(int(vector[:BANDS].argmax()) - near) <= 1
            # A full-scale tone would be 0; this one has half the amplitude, and may lie between two bands' middles.
            assert -1.3 < vector[:BANDS].max() < 0.3

    def test_against_a_loop(self):
        rng = np.random.default_rng(0)
        samples = rng.normal(size=3_000)
        logs = []
        for start in range(0, len(samples) - 400 + 1, 160):
            part = [samples[start + n] * (0.5 - 0.5 * np.cos(2 * np.pi * n / 400)) for n in range(400)]
            angle = -2j * np.pi / 512
            power = [abs(sum(np.array(part) * np.exp(angle * k * np.arange(400)))) ** 2 / 100**2 for k in range(257)]
            top = [2595 * np.log10(1 + k * RATE / 512 / 700) for k in range(257)]
            edges = np.linspace(2595 * np.log10(1 + 60 / 700), 2595 * np.log10(1 + 7_800 / 700), 66)
            bands = []
            for low, middle, high in zip(edges, edges[1:], edges[2:], strict=False):
                inside = [
                    p * ((m - low) / (middle - low) if m <= middle else (high - m) / (high - middle))
                    for p, m in zip(power, top, strict=True)
                    if low < m < high
                ]
                bands.append(np.log10(max(sum(inside), 1e-10)))
            logs.append(bands)
        logs = np.array(logs)
        wanted = [*logs.mean(0), *logs.std(0), *np.abs(logs[1:] - logs[:-1]).mean(0), np.log10(3_000 / RATE)]
        np.testing.assert_allclose(sound_vector(samples), wanted, atol=1e-5)

    def test_silence_and_very_short_sounds_are_finite(self):
        for samples in (np.zeros(RATE), np.zeros(1), tone(300)[:10]):
            assert np.isfinite(sound_vector(samples)).all()


class TestClips:
    def test_frames_are_spread_evenly(self, tmp_path):
        frames = [plain(6 * place) for place in range(40)]
        for name, options in {"a.mp4": {}, "a.avi": {}, "a.mkv": {}}.items():
            found = clips.read_frames(write_clip(tmp_path / name, frames, **options), 4)
            levels = [np.asarray(picture.convert("L")).mean() for picture in found]
            np.testing.assert_allclose(levels, [6 * place for place in (5, 15, 25, 35)], atol=4, err_msg=name)

    def test_a_long_clip_is_searched(self, tmp_path, monkeypatch):
        path = write_clip(tmp_path / "a.mp4", [plain(6 * place) for place in range(40)])
        monkeypatch.setattr(clips, "_DECODED_WHOLE", 10)
        levels = [np.asarray(picture.convert("L")).mean() for picture in clips.read_frames(path, 4)]
        np.testing.assert_allclose(levels, [6 * place for place in (5, 15, 25, 35)], atol=4)

    def test_gifs_and_short_clips(self, tmp_path):
        image = pytest.importorskip("PIL.Image")
        pictures = [image.fromarray(plain(80 * place)) for place in range(3)]
        pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=100)
        levels = [np.asarray(picture.convert("L")).mean() for picture in clips.read_frames(tmp_path / "a.gif", 8)]
        np.testing.assert_allclose(levels, [0, 80, 160], atol=2)

    def test_sound_track(self, tmp_path):
        path = write_clip(tmp_path / "a.mp4", [plain(0)] * 10, sound=tone(440))
        samples = clips.read_sound_track(path)
        assert abs(len(samples) - RATE) < 0.1 * RATE
        spectrum = np.abs(np.fft.rfft(samples))
        assert abs(spectrum.argmax() * RATE / len(samples) - 440) < 2
        with pytest.raises(UserError, match="has no sound track"):
            clips.read_sound_track(write_clip(tmp_path / "b.mp4", [plain(0)] * 3))

    def test_what_is_no_clip(self, tmp_path):
        whole = write_clip(tmp_path / "whole.mp4", [plain(9)] * 20).read_bytes()
        files = {
            "empty.mp4": b"",
            "text.mp4": b"no clip\n" * 99,
            "cut.mp4": whole[: len(whole) // 2],
            "a.gif": b"GIF89a",
        }
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
            with pytest.raises(UserError, match=rf"{name}: (cannot read the clip|contains no)"):
                clips.read_frames(tmp_path / name)

    def test_a_list_of_other_files_is_not_followed(self, tmp_path):
        other = write_clip(tmp_path / "other.mp4", [plain(9)] * 5)
        lists = {
            "hls": "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXTINF:10.0,\n{}\n#EXT-X-ENDLIST\n",
            "concat": "ffconcat version 1.0\nfile '{}'\n",
        }
        for name, text in lists.items():
            path = tmp_path / f"{name}.mp4"
            path.write_text(text.format(other))
            with pytest.raises(UserError, match="cannot read the clip"):
                clips.read_frames(path)

    def test_too_large_a_frame(self, tmp_path, monkeypatch):
        path = write_clip(tmp_path / "a.mp4", [plain(9)] * 3)
        monkeypatch.setattr(clips, "MOST_PIXELS", 1_000)
        with pytest.raises(UserError, match="frames of 3,072 pixels; at most 1,000"):
            clips.read_frames(path)


def test_missing_packages_name_their_extra(monkeypatch, tmp_path):
    for module, call, extra in (("soundfile", sounds.read_sound, "audio"), ("av", clips.read_frames, "video")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(UserError, match=rf'run: .*pip install -e ".*\[{extra}\]"'):
            call(tmp_path / "a")
