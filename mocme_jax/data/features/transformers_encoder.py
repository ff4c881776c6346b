"""Images as vectors by any vision model of the package transformers, which needs torch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mocme_jax.data.features.image_layout import opaque, try_image
from mocme_jax.errors import UserError, refuse
from mocme_jax.printed_commands import to_install

if TYPE_CHECKING:
    from PIL import Image


def image_vectors(model: str, paths: Sequence[Path], bad: Callable[[str], None] = refuse) -> np.ndarray:
    """The vectors of n image files, float32 ``[n, d]``.

    A model of pictures and texts (CLIP, SigLIP) gives its embedding of the picture; any other the mean of its last
    layer over the positions, for the layer that some have on top is often untrained.

    Args:
      model: a name of the model hub, or a folder.
      paths: see image_layout.read_image, also for errors.
      bad: see image_layout.try_image.

    Raises:
      UserError: a package is missing, or the model cannot be loaded or is none of pictures.
    """
    processor, network = _load(model)

    def pixels(image: Image.Image) -> np.ndarray:
        return processor(images=opaque(image), return_tensors="np")["pixel_values"]

    vectors = []
    for path in paths:
        inputs = try_image(path, pixels, bad, None)
        vectors.append(None if inputs is None else _vector(network, inputs))
    width = next((len(vector) for vector in vectors if vector is not None), 1)
    return np.stack([np.full(width, np.nan, np.float32) if vector is None else vector for vector in vectors])


@functools.lru_cache(maxsize=1)
def _load(model: str) -> tuple[Any, Any]:
    try:
        import torch  # noqa: F401
        from transformers import AutoImageProcessor, AutoModel
    except ImportError:
        raise UserError(
            f"image encoder transformers:{model} needs packages; run: {to_install('transformers torch torchvision')}"
        ) from None
    try:
        return AutoImageProcessor.from_pretrained(model), AutoModel.from_pretrained(model).eval()
    except (ImportError, OSError, ValueError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"image encoder transformers:{model}: cannot be loaded ({reason[:200]}); give the name of a vision model, "
            "or its folder"
        ) from error


def _vector(network: Any, pixels: np.ndarray) -> np.ndarray:
    """``[1, channels, rows, columns]`` to ``[d]``."""
    import torch

    inputs = torch.from_numpy(pixels)
    with torch.inference_mode():
        if hasattr(network, "get_image_features"):
            found = network.get_image_features(pixel_values=inputs)
            vector = getattr(found, "pooler_output", found)[0]
        else:
            last = network(pixel_values=inputs).last_hidden_state[0]
            # Of a transformer [positions, d], of a convolutional network [d, rows, columns].
            vector = last.mean(0) if last.ndim == 2 else last.mean((1, 2))
    return vector.float().numpy()
