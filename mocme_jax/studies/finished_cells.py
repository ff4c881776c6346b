"""The finished cells of a study, on the disk.

A row is written once its cell is finished, after its ranks; whatever else a kill leaves is made again.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mocme_jax.config import flat
from mocme_jax.data.readers.json_file import read_json
from mocme_jax.data.readers.json_shape import misfit
from mocme_jax.data.readers.numpy_file import read_npy
from mocme_jax.data.whole_files import make_folder, write_atomically
from mocme_jax.errors import UserError
from mocme_jax.studies.seed_training import Trained
from mocme_jax.studies.study_folder import IDENTITY, RANKS, ROWS, STUDY, read_rows
from mocme_jax.training.checkpoints.run_folder import append, write_json, write_whole, writing
from mocme_jax.training.checkpoints.run_position import as_json, check_format, check_same_run, differing


class Rows:
    """The finished cells of a study.

    Args:
      folder: the study's, made where missing.
      identity: what the study is, for ``study.json``; among it ``config``, ``parts`` and ``fingerprint``; and of a
        search ``search``, which says how points are drawn.

    Raises:
      UserError: the folder holds a study of another graph or config, or another search.
    """

    def __init__(self, folder: Path, identity: dict):
        self.folder = folder
        path = self.folder / STUDY
        if os.path.lexists(path):
            saved = read_json(path)
            wrong = misfit(saved, {str: object})
            if wrong is None:
                check_format(folder, saved)
            if wrong := wrong or misfit(saved, IDENTITY):
                raise UserError(f"{path}: does not describe a study: {wrong}; name another folder with --workdir=DIR")
            check_same_run(folder, saved, identity)
            _check_same_search(folder, saved.get("search"), identity.get("search"))
        # Read before anything is written: what can't be read leaves the folder as it was.
        self._rows = read_rows(self.folder)
        with writing(self.folder):
            make_folder(self.folder / RANKS)
        write_json(path, identity)
        if os.path.lexists(self.folder / ROWS):
            # Without half a line at its end, to which the next row would be added.
            write_whole(self.folder / ROWS, "".join(json.dumps(row) + "\n" for row in self._rows))

    def of(self, cell: str, changes: Mapping) -> dict[int, dict]:
        """The finished rows of a cell, by seed; rows of the same name with other changes do not count."""
        wanted = as_json(dict(changes))
        return {row["seed"]: row for row in self._rows if row["cell"] == cell and row["changes"] == wanted}

    def add(self, cell: str, changes: Mapping, trained: list[Trained], seconds: float) -> None:
        """Adds a finished cell's seeds, which are on the disk when this returns.

        ``seconds`` is what they took together; a row gets its share.

        Raises:
          UserError: they cannot be written.
        """
        rows = []
        for one in trained:
            row = {"cell": cell, "changes": as_json(dict(changes)), **one.row, "seconds": seconds / len(trained)}
            rows.append(row)
            if one.ranks is not None:
                path = self.ranks_path(cell, row["seed"])
                ranks = one.ranks.astype(np.float32)
                with writing(path):
                    write_atomically(path, lambda file, ranks=ranks: np.save(file, ranks))
        append(self.folder / ROWS, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))
        self._rows += rows

    @property
    def all(self) -> list[dict]:
        """Every finished row, oldest first."""
        return list(self._rows)

    def ranks(self, cell: str, seeds: list[int], queries: int) -> np.ndarray | None:
        """Test ranks ``[S, 2T]`` of a cell; None where a file is not there. ``queries`` is 2T."""
        paths = [self.ranks_path(cell, seed) for seed in seeds]
        if not all(path.is_file() for path in paths):
            return None
        try:
            ranks = [read_npy(path) for path in paths]
        except UserError as error:
            raise UserError(f"{paths[0].parent}: cannot read the ranks of {cell} ({error}); delete it") from error
        for path, one in zip(paths, ranks, strict=True):
            if one.dtype != np.float32 or one.shape != (queries,) or not (np.isfinite(one) & (one >= 1)).all():
                raise UserError(f"{path}: expected the ranks of {queries:,} queries; delete the folder {path.parent}")
        return np.stack(ranks)

    def ranks_path(self, cell: str, seed: int) -> Path:
        """Where a seed's ranks are."""
        return self.folder / RANKS / f"{re.sub(r'[^A-Za-z0-9.=-]+', '_', cell)}.{seed}.npy"


def _check_same_search(folder: Path, saved: dict | None, search: dict | None) -> None:
    elsewhere = "give another folder with --workdir=DIR"
    if (saved is None) != (search is None):
        held, wanted = ("study", "search") if saved is None else ("search", "study")
        raise UserError(f"{folder}: contains a {held}, not a {wanted}; {elsewhere}")
    then, now = flat(saved or {}), flat(search or {})
    if changed := [f"{name} ({then.get(name)} there, {now.get(name)} now)"[:100] for name in differing(then, now)]:
        told = ", ".join(changed[:5])
        raise UserError(f"{folder}: the search there has another {told}; undo the change, or {elsewhere}")
