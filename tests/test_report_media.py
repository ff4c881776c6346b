"""Pictures, sounds and films of entities in the report: what the page holds of each, and what is left out."""

import base64
import io
import sys
import wave

import numpy as np
import pytest
from browser import chromium
from command_runner import assert_one_error, run_here
from media_files import plain, tone, write_clip, write_wave
from page_reader import Reader

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
pytest.importorskip("PIL")
pytest.importorskip("soundfile")

from PIL import Image

from mocme_jax.report import entity_media
from mocme_jax.report.entity_media import EntityMedia
from mocme_jax.report.finished_run import read_finished
from mocme_jax.report.report_writer import write_report
from mocme_jax.report.run_measurements import measure
from mocme_jax.report.shown_answers import choose

NAMES = [f"place {i}" for i in range(8)]
COLOURS = ("red", "lime", "blue")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A picture of place 1, sounds of places 2 and 3, of which one is a film's, and a film of place 3."""
    root = tmp_path_factory.mktemp("files")
    for kind in ("image", "audio", "video"):
        (root / kind).mkdir()
    Image.new("RGB", (300, 100), "red").save(root / "image" / "place 1.png")
    # Seven seconds of two channels at another rate than the page's; the one channel is silent.
    samples = np.stack([tone(440, 7, 44_100), np.zeros(7 * 44_100)], axis=1)
    write_wave(root / "audio" / "place 2.wav", samples, 44_100)
    # Of 30 frames the middle ones are lime.
    frames = [np.asarray(Image.new("RGB", (256, 160), colour)) for colour in COLOURS for _ in range(10)]
    write_clip(root / "video" / "place 3.mp4", frames)
    write_clip(root / "audio" / "place 3.mp4", [plain(9)] * 5, sound=tone(880))
    return {kind: root / kind for kind in ("image", "audio", "video")}


def content(address, mime):
    start = f"data:{mime};base64,"
    assert address.startswith(start)
    return base64.b64decode(address.removeprefix(start))


def samples_of(address):
    with wave.open(io.BytesIO(content(address, "audio/wav"))) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16_000)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767


def pitch(samples):
    """In hertz, of a tone, from how often it goes through zero."""
    return np.count_nonzero(np.diff(samples > 0)) / 2 / (len(samples) / 16_000)


def test_a_sound_is_its_first_five_seconds_and_a_film_is_its_middle_frame(folders):
    media = EntityMedia(folders, NAMES)
    assert media.kinds() == {1: 1, 2: 1, 3: 2}
    (sound,) = media.of(2)["audio"]
    heard = samples_of(sound)
    assert len(heard) == 5 * 16_000
    # The mean of a tone of amplitude 1/2 and of silence.
    assert np.abs(heard).max() == pytest.approx(0.25, abs=0.02)
    assert pitch(heard) == pytest.approx(440, rel=0.01)
    third = media.of(3)
    assert pitch(samples_of(third["audio"][0])[1_600:-1_600]) == pytest.approx(880, rel=0.02)
    frame = Image.open(io.BytesIO(content(third["video"][0], "image/png")))
    assert frame.size == (128, 80)
    red, green, blue = frame.convert("RGB").getpixel((60, 40))
    assert green > 200 > 60 > max(red, blue)
    assert media.of(4) == {"image": [], "audio": [], "video": []}
    assert media.left_out == []


def test_a_page_holds_so_many_bytes_of_files(folders, monkeypatch):
    monkeypatch.setattr(entity_media, "MOST_BYTES", 200_000)
    media = EntityMedia({"audio": folders["audio"]}, NAMES)
    first, second, third = (media.of(index)["audio"] for index in (2, 2, 3))
    # 160 KB, another 160 KB, 32 KB.
    assert [len(found) for found in (first, second, third)] == [1, 0, 1]
    assert "1 files are left out" in media.left_out[0]


def test_files_come_first_where_entities_are_chosen(tiny_run):
    measured = measure(read_finished(tiny_run))
    plainly = choose(measured, ())
    asked = np.unique(np.asarray(measured.model.graph.test)[:, [0, 2]]).tolist()
    one, two = [index for index in asked if index not in plainly[:2]][-2:]
    assert choose(measured, (), {two: 2, one: 1})[:2] == [two, one]
    assert choose(measured, (), {}) == plainly


def test_the_page_has_players_and_frames_and_says_what_they_are(tiny_run, folders, tmp_path, monkeypatch, capsys):
    flags = [f"--workdir={tiny_run}", f"--out={tmp_path / 'page.html'}", "--entities=place 1,place 2,place 3,place 4"]
    flags += [
        f"--{flag}={folders[kind]}" for flag, kind in (("images", "image"), ("audio", "audio"), ("video", "video"))
    ]
    assert run_here("report.__main__", *flags, monkeypatch=monkeypatch) == 0
    assert "left out" not in capsys.readouterr().out
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    read = Reader(page)
    assert read.tags.count("audio") == 2
    player = {name: value for tag, name, value in read.attributes if tag == "audio"}
    assert "controls" in player
    assert player["src"].startswith("data:audio/wav;base64,")
    labels = {value for tag, name, value in read.attributes if tag == "audio" and name == "aria-label"}
    assert labels == {"place 2, sound", "place 3, sound"}
    told = {value for tag, name, value in read.attributes if tag == "img" and name == "alt"}
    assert told == {"place 1, picture 1", "place 3, a frame of its film"}
    assert "media-src data:" in page
    assert "Only the first 5 seconds of a sound are included." in read.text


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_can_play_and_asks_for_nothing(tiny_run, folders, tmp_path, width):
    options = dict(images=folders["image"], audio=folders["audio"], video=folders["video"])
    page = write_report([tiny_run], tmp_path / "page.html", entities=NAMES[:4], **options)
    with chromium() as browser:
        measured = browser.look(page, width=width)
        players = browser.evaluate("[...document.querySelectorAll('audio')].map(e => [e.duration, e.readyState > 0])")
        frame = browser.evaluate("document.querySelector('figure img[alt*=film]').naturalWidth")
    assert (measured["scroll"], measured["out"], measured["console"], measured["requests"]) == (0, [], [], [])
    assert sorted(players) == [[pytest.approx(1, abs=0.1), True], [5, True]]
    assert frame == 128


def test_what_no_package_reads_is_left_out_and_told(tiny_run, folders, tmp_path, monkeypatch):
    for package in ("soundfile", "av"):
        monkeypatch.setitem(sys.modules, package, None)
    told = []
    options = dict(images=folders["image"], audio=folders["audio"], video=folders["video"])
    page = write_report([tiny_run], tmp_path / "page.html", entities=NAMES, **options, notify=told.append)
    read = Reader(page.read_text(encoding="utf-8"))
    assert "audio" not in read.tags
    assert read.tags.count("img") == 1
    left_out = [line for line in told if "left out" in line]
    assert len(left_out) == 2
    assert "sounds are left out: reading sounds needs soundfile; run:" in left_out[0]
    assert "clips are left out: reading clips needs PyAV" in left_out[1]


def test_a_file_that_cannot_be_read_is_named(tiny_run, tmp_path, monkeypatch, capsys):
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "place 1.wav").write_bytes(b"RIFF, but no more")
    flags = [f"--workdir={tiny_run}", f"--audio={tmp_path / 'audio'}", "--entities=place 1"]
    status = run_here("report.__main__", *flags, monkeypatch=monkeypatch)
    assert_one_error(status, capsys.readouterr().err, "place 1.wav", "cannot read the sound")
