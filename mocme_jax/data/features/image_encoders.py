"""Image encoders by name."""

import difflib
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mocme_jax.data.features import image_layout, transformers_encoder
from mocme_jax.errors import UserError

DEFAULT_ENCODER = "layout"
ENCODERS = (DEFAULT_ENCODER, "efficientnet-lite0")
_TRANSFORMERS = "transformers"


def image_encoder(name: str) -> Callable[[Sequence[Path], Callable[[str], None]], np.ndarray]:
    """A function from n image files to float32 ``[n, d]``; it raises a UserError where its package is missing.

    What it is given besides is told of each picture that can't be read, whose row is NaN then.

    Args:
      name: ``layout`` (304 wide: colours and shapes, see image_layout), ``efficientnet-lite0`` (1,280 wide, see
        efficientnet) or ``transformers:MODEL`` (see transformers_encoder); a UserError for any other.
    """
    kind, _, model = name.partition(":")
    if kind == _TRANSFORMERS and model:
        return functools.partial(transformers_encoder.image_vectors, model)
    if name == "efficientnet-lite0":
        # Not above: the rest of this package's preparation needs no JAX, which takes a second to start.
        from mocme_jax.data.features import efficientnet

        return efficientnet.image_vectors
    if name == DEFAULT_ENCODER:
        return image_layout.image_vectors
    near = difflib.get_close_matches(kind, (*ENCODERS, _TRANSFORMERS), 1)
    meant = f"{_TRANSFORMERS}:MODEL" if near == [_TRANSFORMERS] else "".join(near)
    hint = f"did you mean {meant}?" if near else f"use {', '.join(ENCODERS)} or {_TRANSFORMERS}:MODEL"
    raise UserError(f"image encoder {name!r} is unknown; {hint}")
