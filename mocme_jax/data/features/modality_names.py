"""What a modality is called, and which one a file's name means.

Any name is a modality's except the model's own words. Other words for image, text, numeric and audio mean these, in a
file's name and where a modality is asked for.
"""

import re

_OTHER_WORDS = {
    "image": ("img", "imgs", "images", "visual", "vision", "picture", "pictures", "photo", "photos"),
    "text": ("texts", "textual", "txt", "description", "descriptions"),
    "numeric": ("num", "numerical", "number", "numbers", "attributes"),
    "audio": ("sound",),
    "video": (),
}
_ALIASES = {word: name for name, words in _OTHER_WORDS.items() for word in words}

USUAL = tuple(_OTHER_WORDS)
"""The modalities that published graphs have."""

TAKEN = ("structure", "joint expert")
"""Words of the model's own, in every table beside the modalities."""


def modality_name(stem: str) -> str:
    """The modality that a file's stem or a user's word means: ``img_features`` and ``Visual`` mean ``image``."""
    name = re.sub(r"[_-](features?|embeddings?)$", "", stem.strip().lower())
    return _ALIASES.get(name, name)
