"""Score functions and fusions of one's own, which a config then names as those of the program.

They are known in the process that adds them: a program that loads the run adds them first, and a config file that adds
them makes them known to the commands that read it.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from mocme_jax.config_fields import FIELDS
from mocme_jax.errors import UserError

if TYPE_CHECKING:
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


# Names that were added here may be added again: a notebook runs its cells more than once.
_added: set[tuple[str, str]] = set()


def _name(path: str, name: str) -> None:
    field = FIELDS[path]
    choices = field.choices or ()
    if name in choices and (path, name) not in _added:
        raise UserError(f"{path}: the program has {name} already; give yours another name")
    _added.add((path, name))
    FIELDS[path] = dataclasses.replace(field, choices=tuple(dict.fromkeys([*choices, name])))
