"""Image encoders by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mocme_jax.data.media import image_layout, transformers_models
from mocme_jax.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

LAYOUT, LITE = "layout", "efficientnet-lite0"
TRANSFORMERS = "transformers"


class ImageEncoder(NamedTuple):
    """From pictures to vectors, in two steps: pictures are large, and what an encoder sees of one is small.

    Attributes:
      see: a picture as an array.
      vectors: n such arrays as float32 ``[n, d]``.
    """

    see: Callable[[Image.Image], np.ndarray]
    vectors: Callable[[Sequence[np.ndarray]], np.ndarray]


def image_encoder(name: str) -> ImageEncoder:
    """The image encoder of a name.

    Args:
      name: ``layout`` (304 wide: colours and shapes, see image_layout), ``efficientnet-lite0`` (1,280 wide, see
        efficientnet) or ``transformers:MODEL`` (see transformers_models).

    Raises:
      UserError: the name is unknown, a package is missing, or a model can't be loaded.
    """
    model = transformers_model("image", name, (LAYOUT, LITE))
    if model:
        return ImageEncoder(*transformers_models.of_images(model))
    if name == LITE:
        # Not above: the rest of this package's preparation needs no JAX, which takes a second to start.
        from mocme_jax.data.media import efficientnet

        return ImageEncoder(efficientnet.picture, efficientnet.vectors(efficientnet.load()))
    return ImageEncoder(image_layout.image_vector, np.stack)


def transformers_model(kind: str, name: str, names: Collection[str]) -> str:
    """``MODEL`` of a name ``transformers:MODEL``, or nothing if the name is one of ``names``.

    Raises:
      UserError: it is neither, with the nearest name; ``kind`` says what it was to encode.
    """
    word, _, model = name.partition(":")
    if word == TRANSFORMERS and model:
        return model
    if name in names:
        return ""
    near = difflib.get_close_matches(word, (*names, TRANSFORMERS), 1)
    meant = f"{TRANSFORMERS}:MODEL" if near == [TRANSFORMERS] else "".join(near)
    hint = f"did you mean {meant}?" if near else f"use {', '.join(names)} or {TRANSFORMERS}:MODEL"
    raise UserError(f"{kind} encoder {name!r} is unknown; {hint}")
