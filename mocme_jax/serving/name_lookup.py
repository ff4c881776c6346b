"""The class ``Lookup``, which converts names, readable names and ids of entities or relations to ids."""

import difflib
from collections.abc import Iterable, Sequence

import numpy as np

from mocme_jax.data.graph.entity_names import numbers_are_names, readable_name
from mocme_jax.data.readers.text_lines import read_whole_number
from mocme_jax.errors import UserError

Key = str | int
# An error lists all names if there are at most this many.
_FEW = 20


class Lookup:
    """The names of the entities or of the relations, and the way back to their ids.

    Args:
      kind: ``entity`` or ``relation``, for messages.
      names: names by id.
      labels: readable names by id, if known. Otherwise a readable form of the name is used.
    """

    def __init__(self, kind: str, names: Sequence[str], labels: dict[int, str] | None = None):
        labels = labels or {}
        self.kind, self.names = kind, list(names)
        self.readable = [labels.get(index) or readable_name(name) for index, name in enumerate(names)]
        self._take_ids = not numbers_are_names(names)
        self._by_name = {name: index for index, name in enumerate(names)}
        self._by_readable: dict[str, list[int]] = {}
        for index, text in enumerate(self.readable):
            self._by_readable.setdefault(text, []).append(index)

    def __len__(self) -> int:
        return len(self.names)

    def extended(self, names: Sequence[str]) -> "Lookup":
        """Return a lookup with more names at the end.

        Raises:
          UserError: a name exists already, or occurs twice among the new ones.
        """
        for position, name in enumerate(names):
            if name in self._by_name or name in names[:position]:
                raise UserError(f"{self.kind} {name!r}: already exists; give the new {self.kind} another name")
        labels = dict(enumerate(self.readable))
        return Lookup(self.kind, [*self.names, *names], labels)

    def id(self, key: Key) -> int:
        """Return the id of a name, a readable name or an id.

        A whole number, also as text, is an id, unless ``numbers_are_names`` says that names are numbers.

        Raises:
          UserError: nothing matches (the message suggests similar names), or several names match.
        """
        if isinstance(key, int | np.integer) and not self._take_ids:
            key = str(int(key))
        if isinstance(key, int | np.integer):
            if not 0 <= key < len(self.names):
                raise UserError(f"{self.kind} id {key}: expected 0 to {len(self.names) - 1}")
            return int(key)
        if key in self._by_name:
            return self._by_name[key]
        found = self._by_readable.get(key) or self._by_readable.get(readable_name(key), [])
        if len(found) > 1:
            some = ", ".join(f"{self.names[index]} (id {index})" for index in found[:3])
            raise UserError(f"{self.kind} {key!r}: matches several names, such as {some}; give the full name or the id")
        if found:
            return found[0]
        number = read_whole_number(key)
        if number is not None and self._take_ids:
            return self.id(number)
        why = " (the names are whole numbers, so a number is a name and not an id)" if number is not None else ""
        raise UserError(f"{self.kind} {key!r}: no such name{why}{self._nearest(key)}")

    def ids(self, keys: Key | Iterable[Key]) -> np.ndarray:
        """Return the ids int32 ``[n]`` of one key or several.

        Raises:
          UserError: see ``id``.
        """
        keys = [keys] if isinstance(keys, str | int | np.integer) else keys
        return np.array([self.id(key) for key in keys], np.int32)

    def _nearest(self, key: str) -> str:
        folded: dict[str, str] = {}
        for text in [*self.readable, *self.names]:
            folded.setdefault(text.casefold(), text)
        near = difflib.get_close_matches(key.casefold(), folded, 3, 0.7)
        if near:
            return "; did you mean " + ", ".join(folded[text] for text in near) + "?"
        if len(self.names) <= _FEW:
            return "; expected one of " + ", ".join(self.names)
        return "; names are written as in the files of the graph"
