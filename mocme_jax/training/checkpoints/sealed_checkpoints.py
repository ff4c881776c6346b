"""Checkpoints with checksums, which are checked when read; a corrupt checkpoint is replaced by the previous one."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax

from mocme_jax.data.readers.json_shape import misfit
from mocme_jax.errors import UserError
from mocme_jax.parallel.processes import everyone
from mocme_jax.training.checkpoints.checkpoint_files import Unreadable
from mocme_jax.training.checkpoints.checksums import checksums
from mocme_jax.training.checkpoints.orbax_store import Checkpoints, Which
from mocme_jax.training.checkpoints.run_position import FORMAT, Position

# Steps and checkpoint numbers are int32 in the state.
_MOST_STEPS = 1 << 30
# The longest path that Linux takes.
_LONGEST = 4096

_VALUE = (None, bool, float, str, [(None, bool, float, str)])
_POSITION = {field.name: type(field.default) for field in dataclasses.fields(Position)}
META = {
    "config": {str: (*_VALUE, {str: _VALUE})},
    "parts": {str: str},
    "fingerprint": str,
    "version": str,
    "position": _POSITION,
    "checksums": {str: int},
    # Earlier versions have neither.
    "places?": {str: str},
    "lanes?": (None, [_POSITION]),
}
"""The shape of the metadata; see ``json_shape``. The values of the config are checked where they are used."""


class Saved(NamedTuple):
    """A checkpoint that was read and is intact.

    Attributes:
      number: the number of the checkpoint.
      meta: the run's identity, and ``position``.
      arrays: the state, placed as the target said; None if only ``meta`` was requested.
    """

    number: int
    meta: dict
    arrays: Any


class Saves:
    """The checkpoints of one run, with checksums.

    Args:
      checkpoints: the folder's checkpoints.
      identity: see ``identity_of``; None for reading only.
      entities: the number of entities N. Tables may be saved with more rows, which are padding. None: arrays have no
        padding.
      notify: called with one line for every corrupt checkpoint.
    """

    def __init__(
        self, checkpoints: Checkpoints, identity: dict | None, entities: int | None, notify: Callable[[str], None]
    ):
        self.checkpoints, self.identity, self.notify = checkpoints, identity or {}, notify
        self.table = None if entities is None else ("structure", entities)

    def save(self, which: Which, position: Position, arrays: Any, lanes: list[dict] | None = None) -> None:
        """Save a checkpoint in the background, with a checksum of each array and a digest of the rest.

        A checkpoint of ``best`` starts when all earlier ones are on disk, and so does a checkpoint of ``last`` that
        does not belong to it. So a kill never leaves a ``last`` whose best checkpoint is neither on disk nor its own
        state.

        Args:
          which: ``last`` or ``best``.
          position: the position of the run.
          arrays: the state.
          lanes: the positions of several seeds, of which one may have diverged while the others continue; None for one
            seed.

        Raises:
          FloatingPointError: an array is not finite. Nothing has been saved.
          UserError: a save cannot be written.
        """
        together = which == "last" and position.evaluated and position.best_step == position.step
        # Two concurrent saves would confuse the barriers of several processes.
        if not together or jax.process_count() > 1:
            self.checkpoints.wait()
        sums, finite = checksums(arrays, self.table)
        if not finite and lanes is None:
            raise FloatingPointError(
                f"step {position.step}: a parameter or an optimizer's state is not finite and is not saved; lower "
                "train.learning_rate or train.table_learning_rate and use another --workdir"
            )
        meta = self.identity | {"position": dataclasses.asdict(position), "lanes": lanes, "checksums": sums}
        self.checkpoints.save(which, position.number, arrays, sealed(meta))

    def newest(
        self,
        which: Which,
        target: Any = None,
        *,
        accept: Callable[[dict], None] | None = None,
        up_to: int | None = None,
        needed: bool = True,
    ) -> Saved | None:
        """Return the newest intact checkpoint, and report every newer one that is corrupt in one line.

        Args:
          which: ``last`` or ``best``.
          target: the arrays, see ``Checkpoints.restore``; None to read only ``meta``.
          accept: called with the metadata before arrays are read. It may raise an error to end the search.
          up_to: the highest number to consider; None for all.
          needed: whether it is an error if all existing checkpoints are corrupt.

        Returns:
          The checkpoint; None if there is none.

        Raises:
          UserError: ``needed``, and all checkpoints are corrupt.
        """
        numbers = [n for n in self.checkpoints.numbers(which) if up_to is None or n <= up_to]
        for number in reversed(numbers):
            saved, reason = self._read(which, number, target, accept)
            if saved is not None:
                return saved
            told = f"{self.checkpoints.folder / which / str(number)}: is damaged ({reason})"
            if number != numbers[0]:
                self.notify(f"{told}; the previous one is used")
            elif needed:
                raise UserError(
                    f"{told}, and no earlier one exists; nothing was changed; name another folder with "
                    "--workdir=DIR, or delete this one to start again"
                )
            else:
                self.notify(f"{told}, and no earlier one exists")
        return None

    def _read(self, which: Which, number: int, target: Any, accept: Callable | None) -> tuple[Saved | None, str]:
        """Return a checkpoint that every process can read, or None and the reason."""
        meta: dict = {}
        arrays = None
        reason = "another process cannot read it"
        try:
            meta = checked(opened(self.checkpoints.read_meta(which, number)), number)
        except Unreadable as error:
            reason = str(error)
        if not everyone([bool(meta)]).all():
            return None, reason
        if accept is not None:
            accept(meta)
        if target is None:
            return Saved(number, meta, None), ""
        if meta["format"] != FORMAT:
            return None, f"it is of format {meta['format']}, and this version reads format {FORMAT}"
        try:
            arrays = self.checkpoints.restore(which, number, target, self.table)
            found, expected = checksums(arrays, self.table)[0], meta["checksums"]
            if other := [path for path, value in found.items() if expected.get(path) != value]:
                arrays, reason = None, f"{other[0]} has a different checksum than when it was saved"
        except Unreadable as error:
            reason = str(error)
        return (Saved(number, meta, arrays), "") if everyone([arrays is not None]).all() else (None, reason)

    def forget_after(self, which: Which, number: int) -> None:
        """Delete checkpoints with a higher number: corrupt ones, or those of steps that will be taken again."""
        for later in self.checkpoints.numbers(which):
            if later > number:
                self.checkpoints.delete(which, later)


def sealed(meta: dict) -> dict:
    """Return the metadata with a digest of its content."""
    return {"content": meta, "digest": digest_of(meta)}


def opened(meta: dict) -> dict:
    """Return the content of sealed metadata.

    Raises:
      Unreadable: the content does not match its digest.
    """
    if "digest" not in meta and "config" in meta and meta.get("format") != FORMAT:
        # From a version without digests. It is reported by `check_format` and not resumed.
        return meta
    try:
        whole = set(meta) == {"content", "digest"} and digest_of(meta["content"]) == meta["digest"]
    except (ValueError, RecursionError):
        # JSON may be read with NaN, but not written.
        whole = False
    if not whole:
        raise Unreadable("meta has a different digest than when it was saved")
    return meta["content"]


def digest_of(meta: dict) -> str:
    """Compute the SHA-256 (hex) of a value for JSON."""
    text = json.dumps(meta, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def checked(meta: Any, number: int) -> dict:
    """Validate the metadata of a checkpoint; for another format, return only its format and version.

    It is validated whenever it is read, because a digest may be forged as well.

    Args:
      meta: the metadata.
      number: the number of the checkpoint's folder.

    Raises:
      Unreadable: a part is missing or not possible for a run. The message names the part.
    """
    if not isinstance(meta, dict):
        raise Unreadable(f"meta is a {type(meta).__name__}, expected a mapping")
    if meta.get("format") != FORMAT or isinstance(meta["format"], bool):
        return {"format": _short(meta.get("format")), "version": _short(meta.get("version"))}
    if wrong := misfit(meta, META):
        raise Unreadable(f"its meta is not valid: {wrong}")
    for name in META:
        part = name.removesuffix("?")
        if any(len(text) > _LONGEST or "\0" in text for text in _texts(meta.get(part))):
            raise Unreadable(f"its meta is not valid: {part} has a text too long or with a zero byte")
    positions = {"position": [meta["position"]], "lanes": meta.get("lanes") or []}
    wrong = next((part for part, found in positions.items() if not all(map(_is_possible, found))), None)
    if not wrong and Position(**meta["position"]).number != number:
        wrong = "position"
    if not wrong and not all(0 <= one < 1 << 32 for one in meta["checksums"].values()):
        wrong = "checksums"
    if wrong:
        raise Unreadable(f"its meta is not valid: {wrong} is not possible")
    return meta


def _short(value: Any) -> str | int | None:
    return value if value is None or isinstance(value, int) else str(value)[:40]


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts of a value and of all values in it, with the names."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from _texts(part)


def _is_possible(position: Mapping[str, Any]) -> bool:
    steps = [value for name, value in position.items() if _POSITION.get(name) is int]
    return (
        position.keys() == _POSITION.keys()
        and all(0 <= one < _MOST_STEPS for one in steps)
        and -1 <= position["best_mrr"] <= 1
        and 0 <= position["minutes"] < 1e12
        and position["best_step"] <= position["step"]
        and position["best_epoch"] <= position["epoch"]
        and position["diverged"] <= position["step"]
    )
