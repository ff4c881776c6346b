"""Image vectors: known colours, stripes where they are, and files that are no image."""

import os

import numpy as np
import pytest
from fuzz.bombs import image_bombs

from mocme_jax.data.features.entity_files import files_modality
from mocme_jax.data.media.file_encoders import encode_files, file_encoder
from mocme_jax.data.media.image_layout import IMAGE_WIDTH, image_vector
from mocme_jax.errors import UserError

Image = pytest.importorskip("PIL.Image")


def image_vectors(paths, *bad, encoder="layout"):
    return encode_files(file_encoder("image", encoder), paths, *bad)


def _parts(vector):
    colour, edges, palette = np.split(vector, [144, 240])
    return colour.reshape(6, 8, 3), edges.reshape(2, 6, 8), palette


@pytest.mark.parametrize(
    ("rgb", "lab"),
    # CIE L*a*b* under D65, from published tables of the sRGB primaries.
    [
        ((255, 255, 255), (100, 0, 0)),
        ((0, 0, 0), (0, 0, 0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 255, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
    ],
)
def test_plain_colours(rgb, lab):
    vector = image_vector(Image.new("RGB", (31, 17), rgb))
    assert vector.shape == (IMAGE_WIDTH,)
    assert vector.dtype == np.float32
    colour, edges, palette = _parts(vector)
    np.testing.assert_allclose(colour, np.broadcast_to(np.array(lab) / 100, (6, 8, 3)), atol=2e-3)
    assert not edges.any()
    assert palette.max() == 1
    assert palette.sum() == 1


def test_stripes_show_along_one_axis():
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:, 20:40] = 255
    colour, edges, palette = _parts(image_vector(Image.fromarray(pixels)))
    assert not edges[1].any()
    np.testing.assert_allclose(edges[0].sum(axis=1) * 8, 2, atol=1e-3)
    assert set(np.flatnonzero(edges[0][0])) == {2, 5}
    np.testing.assert_allclose((palette**2).sum(), 1, atol=1e-5)
    turned_colour, turned, _ = _parts(image_vector(Image.fromarray(pixels.transpose(1, 0, 2))))
    assert not turned[0].any()
    assert turned[1].any()
    assert np.ptp(colour[:, 0]) == 0
    assert np.ptp(turned_colour[0]) == 0


def test_transparent_margins_and_size_do_not_matter():
    flag = Image.new("RGBA", (32, 24), (200, 30, 60, 255))
    framed = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    framed.paste(flag, (9, 20))
    np.testing.assert_array_equal(image_vector(flag), image_vector(framed))
    np.testing.assert_allclose(image_vector(flag), image_vector(flag.resize((320, 100))), atol=1e-6)
    assert np.isfinite(image_vector(Image.new("RGBA", (5, 5), (9, 9, 9, 0)))).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_mode_of_file(mode, tmp_path):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.new(mode, (10, 10)).save(path)
    rows = image_vectors([path, path])
    assert rows.shape == (2, IMAGE_WIDTH)
    assert np.isfinite(rows).all()
    np.testing.assert_array_equal(rows[0], rows[1])


def test_bad_files_are_named_in_one_line(tmp_path):
    text, cut = tmp_path / "text.png", tmp_path / "cut.png"
    text.write_text("no image")
    Image.effect_noise((64, 64), 50).save(cut)
    cut.write_bytes(cut.read_bytes()[:500])
    for path in (text, cut, tmp_path / "absent.png"):
        with pytest.raises(UserError) as caught:
            image_vectors([path])
        assert path.name in str(caught.value)
        assert "\n" not in str(caught.value)


BOMBS = {
    "50,000 pixels square": "cannot read the image .*decompression bomb",
    "12,000 pixels square": "12000 x 12000 pixels; at most 33,554,432 are read: scale it down",
    "header alone": "cannot read the image",
    "text": "cannot read the image .*too large",
    "profile": "cannot read the image .*too large",
    "scans": "more than 200 scans",
    "PostScript": "not a readable image",
    "SVG": "not a readable image",
}


@pytest.mark.parametrize("name", BOMBS)
def test_pictures_that_are_larger_than_their_file_or_programs(name, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(image_bombs(tmp_path / "ran")[name]())
    with pytest.raises(UserError, match=BOMBS[name]) as caught:
        image_vectors([path])
    assert str(path) in str(caught.value)
    assert str(caught.value).isprintable()
    assert not (tmp_path / "ran").exists()


def test_a_damaged_tiff_says_one_line_alone(tmp_path, capfd):
    path = tmp_path / "a.tif"
    Image.effect_noise((64, 64), 50).save(path, compression="tiff_lzw")
    data = bytearray(path.read_bytes())
    data[200:3000] = bytes(2800)
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"a\.tif: cannot read the image"):
        image_vectors([path])
    assert capfd.readouterr().err == ""


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(UserError, match="found a folder, a pipe or a device"):
        image_vectors([tmp_path / "a.png"])


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_exif_data_say(tmp_path, suffix, orientation):
    """The picture as it is meant, stored as a camera held otherwise stores it, by the table of the EXIF standard."""
    meant = np.zeros((48, 64, 3), np.uint8)
    meant[:24, :32], meant[:24, 32:], meant[24:, :32] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    stored = {
        1: meant,
        2: meant[:, ::-1],
        3: meant[::-1, ::-1],
        4: meant[::-1],
        5: meant.transpose(1, 0, 2),
        6: meant.transpose(1, 0, 2)[::-1],
        7: meant.transpose(1, 0, 2)[::-1, ::-1],
        8: meant.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    path, data = tmp_path / f"a.{suffix}", Image.Exif()
    data[0x0112] = orientation
    options = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}.get(suffix, {})
    Image.fromarray(stored).save(path, exif=data, **options)
    np.testing.assert_allclose(image_vectors([path])[0], image_vector(Image.fromarray(meant)), atol=0.02)


@pytest.mark.parametrize("data", [b"II*\0\xff\xff\xff\x7f" + b"\xff" * 40, b"no header of TIFF"])
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_damaged_exif_data_turn_nothing(tmp_path, suffix, data):
    plain, damaged = tmp_path / f"plain.{suffix}", tmp_path / f"damaged.{suffix}"
    picture = Image.effect_noise((64, 48), 50)
    picture.save(plain)
    picture.save(damaged, exif=b"Exif\0\0" + data)
    np.testing.assert_array_equal(*image_vectors([plain, damaged]))


def test_a_bad_picture_is_told_and_the_others_are_read(tmp_path):
    good, bad, told = tmp_path / "good.png", tmp_path / "bad.png", []
    Image.new("RGB", (9, 9), "red").save(good)
    bad.write_bytes(b"no image")
    rows = image_vectors([bad, good], told.append)
    assert np.isnan(rows[0]).all()
    np.testing.assert_array_equal(rows[1], image_vectors([good])[0])
    assert [line.partition(":")[0] for line in told] == [str(bad)]
    modality = files_modality("image", {2: [good, bad], 0: [bad]}, 3, bad=told.append)
    assert modality.present.tolist() == [False, False, True]
    np.testing.assert_array_equal(modality.features[2], rows[1])
