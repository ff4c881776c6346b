"""A folder of pictures, sounds or clips named for entities, as a modality."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from mocme_jax.data.features.encoded_rows import EncodedRows
from mocme_jax.data.graph.entity_names import entity_finder
from mocme_jax.data.graph.knowledge_graph import Modality, make_modality
from mocme_jax.data.media.file_encoders import MEDIA, encode_files, encoders_of, file_encoder
from mocme_jax.errors import UserError, refuse

FOLDERS = {"images": "image", "audio": "audio", "video": "video"}
"""Modalities by the flag that names the folder of their files."""


def entity_files(folder: Path, entities: Sequence[str], modality: str) -> tuple[dict[int, list[Path]], list[Path]]:
    """Files by entity id, ascending, and those that belong to no entity.

    A file is ``<entity>.png`` (or another suffix of the modality), or any such file in a folder ``<entity>/``, named by
    id or by name, percent-encoded where a name holds a slash.

    Args:
      modality: a word of MEDIA.

    Raises:
      UserError: there is no such folder, or no file in it belongs to an entity.
    """
    folder, media = Path(folder), MEDIA[modality]
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of {media.plural}")
    named: list[tuple[str, Path]] = []
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            named += [(entry.name, path) for path in sorted(entry.iterdir()) if path.suffix.lower() in media.suffixes]
        elif entry.suffix.lower() in media.suffixes:
            named.append((entry.stem, entry))
    find = entity_finder(entities)
    found: dict[int, list[Path]] = {}
    unmatched = []
    for key, path in named:
        index = find(key)
        index = find(unquote(key)) if index is None else index
        if index is None:
            unmatched.append(path)
        else:
            found.setdefault(index, []).append(path)
    if not found:
        raise UserError(
            f"{folder}: none of its {len(named)} {media.plural} is named after an entity; name each file after its "
            f"entity, such as 12{media.suffixes[0]} or {entities[0][:40]}{media.suffixes[0]}"
        )
    return {index: found[index] for index in sorted(found)}, unmatched


def files_modality(
    modality: str,
    files: Mapping[int, Sequence[Path]],
    entities: int,
    encoder: str = "",
    bad: Callable[[str], None] = refuse,
    told: Callable[[int, int], None] = lambda done, total: None,
    kept: EncodedRows | None = None,
) -> Modality:
    """A modality of N ``entities``: the mean vector of each one's files.

    Args:
      modality: one that has encoders of files.
      files: by entity id, see entity_files.
      entities: N.
      encoder: see file_encoder, also for its errors; empty for the default.
      bad, told: see encode_files.
      kept: rows of files that were encoded before, by this encoder; None encodes all files.
    """
    encoder = encoder or encoders_of(modality)[0]
    owners = np.repeat(list(files), [len(paths) for paths in files.values()])
    paths = [path for some in files.values() for path in some]
    if kept is None:
        vectors = encode_files(file_encoder(modality, encoder), paths, bad, told)
    else:
        vectors = kept.encode(lambda: file_encoder(modality, encoder), paths, bad, told)
    read = ~np.isnan(vectors).any(axis=1)
    counts = np.bincount(owners[read], minlength=entities)
    rows = np.zeros((entities, vectors.shape[1]), np.float32)
    np.add.at(rows, owners[read], vectors[read])
    return make_modality(modality, rows / np.maximum(counts, 1)[:, None], counts > 0, encoder)
