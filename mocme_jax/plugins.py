"""Score functions, fusions and encoders of one's own, called by a name as those of the program are.

They are known in the process that adds them: a program that loads the run adds them first, and a config file that adds
them makes them known to the commands that read it.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from mocme_jax.config_fields import FIELDS
from mocme_jax.errors import UserError

if TYPE_CHECKING:
    from mocme_jax.data.media.file_encoders import Encode
    from mocme_jax.method.complementarity import Fusion
    from mocme_jax.method.scoring import Score


def add_score(score: Score) -> None:
    """Makes a score function known by its name, for ``model.score``; see ``Score`` for what it consists of.

    Raises:
      UserError: the program has one of this name.
    """
    from mocme_jax.method.scoring import SCORES

    _name("model.score", score.name)
    SCORES[score.name] = score


def add_fusion(name: str, fusion: type[Fusion]) -> None:
    """Makes a fusion known by a name, for ``model.fusion``; see ``Fusion`` for what a subclass says.

    Raises:
      UserError: the program has one of this name.
    """
    from mocme_jax.method.complementarity import FUSIONS

    _name("model.fusion", name)
    FUSIONS[name] = fusion


def add_encoder(modality: str, name: str, encoder: Encode) -> None:
    """Makes an encoder of files known by a name, for ``KnowledgeGraph.from_triples(..., encoders={modality: name})``.

    ``add_entities`` encodes files of new entities by it, wherever it was added under this name.

    Args:
      modality: ``image``, ``audio``, ``video``, or any other that is made of files.
      name: of the encoder; it is kept with the features.
      encoder: from the paths of n files to vectors ``[n, d]``, a row of NaN for a file that can't be read.

    Raises:
      UserError: the program has one of this name, or the modality is not made of files.
    """
    from mocme_jax.data.features.modality_names import TAKEN
    from mocme_jax.data.media.file_encoders import ADDED, MEDIA

    if modality in (*TAKEN, "text", "numeric"):
        raise UserError(f"add_encoder: {modality} is not made of files; give its vectors as features")
    if ":" in name or (modality in MEDIA and name in MEDIA[modality].encoders):
        raise UserError(f"add_encoder: the program has {name} already, or it holds a colon; give yours another name")
    ADDED[modality, name] = encoder


# Names that were added here may be added again: a notebook runs its cells more than once.
_added: set[tuple[str, str]] = set()


def _name(path: str, name: str) -> None:
    field = FIELDS[path]
    choices = field.choices or ()
    if name in choices and (path, name) not in _added:
        raise UserError(f"{path}: the program has {name} already; give yours another name")
    _added.add((path, name))
    FIELDS[path] = dataclasses.replace(field, choices=tuple(dict.fromkeys([*choices, name])))
