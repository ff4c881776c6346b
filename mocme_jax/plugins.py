"""Registration of your own score functions, fusions and file encoders by name.

A plug-in is known in the process that adds it. Add it again before you load the run in another process. To make it
known to the commands, add it in a config file of your own.
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
    """Register a score function under its name, for ``model.score``.

    Args:
      score: the score function; see ``Score`` for its parts.

    Raises:
      UserError: a built-in score function has this name.
    """
    from mocme_jax.method.scoring import SCORES

    _name("model.score", score.name)
    SCORES[score.name] = score


def add_fusion(name: str, fusion: type[Fusion]) -> None:
    """Register a fusion under a name, for ``model.fusion``.

    Args:
      name: the name of the fusion.
      fusion: a subclass of ``Fusion``.

    Raises:
      UserError: a built-in fusion has this name, or the fusion is fitted on unknown triples.
    """
    from mocme_jax.method.complementarity import FITTED_ON, FUSIONS

    if fusion.fitted_on not in FITTED_ON:
        raise UserError(
            f"add_fusion: {name}: fitted_on is {fusion.fitted_on!r}; it must be one of {', '.join(FITTED_ON)}"
        )
    _name("model.fusion", name)
    FUSIONS[name] = fusion


def add_encoder(modality: str, name: str, encoder: Encode) -> None:
    """Register a file encoder under a name, for ``KnowledgeGraph.from_triples(..., encoders={modality: name})``.

    ``TrainedModel.add_entities`` encodes the files of new entities with it, in any process that has registered it.

    Args:
      modality: ``image``, ``audio``, ``video``, or a name of your own for another kind of file.
      name: the name of the encoder, which is saved with the features. It may not contain a colon.
      encoder: a function from the paths of n files to vectors ``[n, d]``, with a row of NaN for a file that cannot be
        read.

    Raises:
      UserError: a built-in encoder has this name, the name contains a colon, or the modality does not consist of files.
    """
    from mocme_jax.data.features.modality_names import TAKEN
    from mocme_jax.data.media.file_encoders import ADDED, MEDIA

    if modality in (*TAKEN, "text", "numeric"):
        raise UserError(f"add_encoder: {modality} is not made from files; give its vectors as features")
    if ":" in name or (modality in MEDIA and name in MEDIA[modality].encoders):
        raise UserError(f"add_encoder: {name} is already in use or contains a colon; choose another name")
    ADDED[modality, name] = encoder


# Added names may be added again, because the cells of a notebook may run more than once.
_added: set[tuple[str, str]] = set()


def _name(path: str, name: str) -> None:
    field = FIELDS[path]
    choices = field.choices or ()
    if name in choices and (path, name) not in _added:
        raise UserError(f"{path}: {name} is already in use; choose another name")
    _added.add((path, name))
    FIELDS[path] = dataclasses.replace(field, choices=tuple(dict.fromkeys([*choices, name])))
