"""Images and sounds as vectors by models of the package transformers, which needs torch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mocme_jax.data.media.pictures import opaque
from mocme_jax.data.media.sounds import RATE, resampled
from mocme_jax.errors import UserError
from mocme_jax.printed_commands import needed_package

if TYPE_CHECKING:
    from PIL import Image

# What a model hears at once; of a longer sound it hears one piece after the other.
_SECONDS = 30


def of_images(model: str) -> tuple[Callable[[Image.Image], np.ndarray], Callable[[Sequence[np.ndarray]], np.ndarray]]:
    """The two steps of an ImageEncoder: pixels ``[1, channels, rows, columns]``, and vectors float32 ``[n, d]``.

    A model of pictures and texts (CLIP, SigLIP) gives its embedding of the picture; any other the mean of its last
    layer over the positions, for the layer that some have on top is often untrained.

    Args:
      model: a name of the model hub, or a folder.

    Raises:
      UserError: a package is missing, or the model can't be loaded or is none of pictures.
    """
    processor, network = _load("image", model)

    def see(image: Image.Image) -> np.ndarray:
        return processor(images=opaque(image), return_tensors="np")["pixel_values"]

    def vectors(pixels: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack([_vector(network, "get_image_features", {"pixel_values": one}) for one in pixels])

    return see, vectors


def of_sounds(model: str) -> Callable[[Sequence[np.ndarray]], np.ndarray]:
    """From n sounds, each float32 ``[T]`` at RATE, to vectors float32 ``[n, d]``.

    A model of sounds and texts (CLAP) gives its embedding of the sound; any other the mean of its last layer, that of
    its encoder where it has a decoder (Whisper), over the positions that the sound fills. A sound of more than 30
    seconds is heard in pieces, and gets their mean.

    Args:
      model: a name of the model hub, or a folder.

    Raises:
      UserError: a package is missing, or the model can't be loaded or is none of sounds.
    """
    extractor, network = _load("audio", model)
    rate = extractor.sampling_rate
    network = network.get_encoder() if network.config.is_encoder_decoder else network
    # Whisper fills every sound up to this length.
    whole = getattr(extractor, "n_samples", 0)

    def vector(samples: np.ndarray) -> np.ndarray:
        inputs = extractor(samples, sampling_rate=rate, return_tensors="np")
        inputs = {name: value for name, value in inputs.items() if name != "attention_mask"}
        return _vector(network, "get_audio_features", inputs, len(samples) / whole if whole else 1.0)

    def vectors(sounds: Sequence[np.ndarray]) -> np.ndarray:
        rows = []
        for sound in sounds:
            samples = resampled(sound, RATE, rate)
            pieces = np.array_split(samples, -(-len(samples) // (_SECONDS * rate)))
            rows.append(np.mean([vector(piece) for piece in pieces], axis=0))
        return np.stack(rows).astype(np.float32)

    return vectors


@functools.lru_cache(maxsize=1)
def _load(kind: str, model: str) -> tuple[Any, Any]:
    packages = "transformers torch torchvision" if kind == "image" else "transformers torch"
    need = f"{kind} encoder transformers:{model} needs packages"
    _, transformers = (needed_package(name, need, packages) for name in ("torch", "transformers"))
    try:
        first = transformers.AutoImageProcessor if kind == "image" else transformers.AutoFeatureExtractor
        return first.from_pretrained(model), transformers.AutoModel.from_pretrained(model).eval()
    except (ImportError, OSError, ValueError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        what = "a vision model" if kind == "image" else "a model of sounds"
        raise UserError(
            f"{kind} encoder transformers:{model}: cannot be loaded ({reason[:200]}); give the name of {what}, "
            "or its folder"
        ) from error


def _vector(network: Any, embed: str, inputs: dict[str, np.ndarray], filled: float = 1.0) -> np.ndarray:
    """``[d]`` of one picture or sound, which fills this share of the positions."""
    import torch

    tensors = {name: torch.from_numpy(np.asarray(value)) for name, value in inputs.items()}
    with torch.inference_mode():
        if hasattr(network, embed):
            found = getattr(network, embed)(**tensors)
            vector = getattr(found, "pooler_output", found)[0]
        else:
            last = network(**tensors).last_hidden_state[0]
            # Of a transformer [positions, d], of a convolutional network [d, rows, columns].
            last = last[: max(1, round(filled * len(last)))] if last.ndim == 2 else last.flatten(1).T
            vector = last.mean(0)
    return vector.float().numpy()
