"""A folder of pictures named for entities, as a modality."""

from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from mocme_jax.data.features.image_encoders import DEFAULT_ENCODER, image_encoder
from mocme_jax.data.graph.entity_names import entity_finder
from mocme_jax.data.graph.knowledge_graph import Modality, make_modality
from mocme_jax.errors import UserError, refuse

# Pictures between two words on how far the work is: a network is loaded for each part, and takes a few at once.
_PART = 256
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")


def image_files(folder: Path, entities: Sequence[str]) -> tuple[dict[int, list[Path]], list[Path]]:
    """Pictures by entity id, and those that belong to no entity.

    A picture is ``<entity>.png`` (or another suffix), or any picture in a folder ``<entity>/``, named by id or by name,
    percent-encoded where a name holds a slash.

    Raises:
      UserError: there is no such folder, or no picture in it belongs to an entity.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of images")
    pictures: list[tuple[str, Path]] = []
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            pictures += [(entry.name, path) for path in sorted(entry.iterdir()) if path.suffix.lower() in SUFFIXES]
        elif entry.suffix.lower() in SUFFIXES:
            pictures.append((entry.stem, entry))
    find = entity_finder(entities)
    found: dict[int, list[Path]] = {}
    unmatched = []
    for key, path in pictures:
        index = find(key)
        index = find(unquote(key)) if index is None else index
        if index is None:
            unmatched.append(path)
        else:
            found.setdefault(index, []).append(path)
    if not found:
        raise UserError(
            f"{folder}: none of its {len(pictures)} images is named for an entity; name them by entity, as "
            f"12.png or {entities[0][:40]}.png"
        )
    return found, unmatched


def image_modality(
    files: dict[int, list[Path]],
    entities: int,
    encoder: str = DEFAULT_ENCODER,
    bad: Callable[[str], None] = refuse,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> Modality:
    """The modality ``image`` of N ``entities``: the mean vector of each one's pictures.

    Args:
      files: pictures by entity id, see image_files.
      entities: N.
      encoder: see image_encoder, also for its errors.
      bad: told of a picture that can't be read, which is then left out; by default it raises.
      told: now and then, how many pictures are encoded, and of how many.
    """
    owners = np.repeat(list(files), [len(paths) for paths in files.values()])
    paths, encode, parts = [path for some in files.values() for path in some], image_encoder(encoder), []
    for start in range(0, len(paths), _PART):
        parts.append(encode(paths[start : start + _PART], bad))
        told(min(start + _PART, len(paths)), len(paths))
    vectors = np.concatenate(parts)
    read = ~np.isnan(vectors).any(axis=1)
    counts = np.bincount(owners[read], minlength=entities)
    rows = np.zeros((entities, vectors.shape[1]), np.float32)
    np.add.at(rows, owners[read], vectors[read])
    return make_modality("image", rows / np.maximum(counts, 1)[:, None], counts > 0, encoder)
