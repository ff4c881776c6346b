"""Feature files made from names, descriptions, numeric attributes and pictures."""

from collections.abc import Callable
from pathlib import Path

from mocme_jax.countdown import Countdown
from mocme_jax.data.audit.graph_audit import audit
from mocme_jax.data.features import image_encoders
from mocme_jax.data.features.feature_files import feature_paths
from mocme_jax.data.features.feature_writer import write_atomically, write_features
from mocme_jax.data.features.image_folder import image_files, image_modality
from mocme_jax.data.features.numeric_features import numeric_modality
from mocme_jax.data.features.text_features import DEFAULT_ENCODER, entity_texts, read_descriptions, text_modality
from mocme_jax.data.graph.graph_folder import NUMERIC_FILE, is_readable, read_triples
from mocme_jax.data.graph.knowledge_graph import Modality
from mocme_jax.data.graph.mapped_triples import SUFFIX, write_mapped
from mocme_jax.data.graph.splits import carve_dev
from mocme_jax.errors import UserError

NAMES = "names"
FILES = {"text": "text.npz", "numeric": "numeric.npz", "image": "image.npz"}


def prepare(
    data: Path,
    out: Path,
    *,
    text: str | None = None,
    encoder: str = DEFAULT_ENCODER,
    numeric: Path | None = None,
    min_rows: int = 5,
    images: Path | None = None,
    image_encoder: str = image_encoders.DEFAULT_ENCODER,
    overwrite: bool = False,
    notify: Callable[[str], None] = print,
) -> list[Path]:
    """Makes the modalities asked for and writes ``text.npz``, ``numeric.npz`` and ``image.npz`` into ``out``.

    Asked for nothing, it makes text from names, and numeric if the graph's folder has
    ``numeric_triples.tsv``.

    Args:
      data: the graph's folder.
      text: ``names`` (or labels and descriptions beside the graph), or a file ``name<TAB>text``; entities
        that the file leaves out get their name.
      encoder: see encode_texts.
      numeric, min_rows: see numeric_modality.
      images: see image_files.
      image_encoder: see image_encoders.image_encoder.
      overwrite: replace what is there; otherwise nothing is written if a file is in the way.
      notify: told in one line of each step, and how far long ones are.

    Returns:
      The files written.

    Raises:
      UserError: bad input, or a modality that has a file in ``out`` already.
    """
    graph = read_triples(data, notify)
    if text is None and numeric is None and images is None:
        text = NAMES
        if (Path(data) / NUMERIC_FILE).exists():
            numeric = Path(data) / NUMERIC_FILE
    asked = [kind for kind, source in (("text", text), ("numeric", numeric), ("image", images)) if source is not None]
    targets = {kind: Path(out) / FILES[kind] for kind in asked}
    _keep_what_is_there(Path(out), graph.name, targets, overwrite)

    made: dict[str, Modality] = {}
    if numeric is not None:
        made["numeric"] = numeric_modality(numeric, graph.entities, min_rows=min_rows, notify=notify)
    if images is not None:
        pictures, unmatched = image_files(images, graph.entities)
        if unmatched:
            some = ", ".join(path.name for path in unmatched[:5])
            notify(f"{images}: {len(unmatched)} images are named for no entity and left out: {some}")
        notify(f"encoding {sum(map(len, pictures.values())):,} images with {image_encoder}")
        made["image"] = image_modality(pictures, len(graph.entities), image_encoder, Countdown("images", notify))
    if text is not None:
        texts = entity_texts(graph, Path(data), notify=notify)
        if text != NAMES:
            for index, description in read_descriptions(Path(text), graph.entities, notify).items():
                texts[index] = description
        if not is_readable(texts):
            raise UserError(
                f"{data}: the entities' names are numbers or ids, no text; give --text=FILE with rows name<TAB>text"
            )
        notify(f"encoding {len(texts):,} texts with {encoder}")
        made["text"] = text_modality(texts, encoder, Countdown("texts", notify))

    for kind in asked:
        modality = made[kind]
        try:
            write_features(targets[kind], modality, graph.entities)
        except OSError as error:
            raise UserError(f"{targets[kind]}: cannot be written ({error.strerror or error})") from None
        notify(
            f"{targets[kind]}: {modality.features.shape[1]} wide, {modality.present.sum():,} of "
            f"{len(graph.entities):,} entities ({modality.coverage:.1%})"
        )
    return list(targets.values())


def prepare_triples(
    data: Path,
    out: Path,
    *,
    dev_fraction: float | None = None,
    seed: int = 0,
    overwrite: bool = False,
    notify: Callable[[str], None] = print,
) -> list[Path]:
    """Audits a graph and writes its names and triples so that processes can map them (see ``mapped``).

    Args:
      data: the graph's folder.
      out: the folder to write into.
      dev_fraction: share of train that becomes the valid split, in place of the released one; None keeps that.
      seed: of the carving.
      overwrite: replace what is there.
      notify: told in one line of each warning and each file.

    Raises:
      UserError: bad input, a file is in the way, or no triple can leave train.
    """
    graph = read_triples(data, notify)
    for line in audit(graph).warnings():
        notify(f"warning: {line}")
    if dev_fraction is not None:
        if not 0 < dev_fraction < 1:
            raise UserError(f"--dev-fraction={dev_fraction:g}: expected a share between 0 and 1")
        train, valid = carve_dev(graph.train, dev_fraction, seed, avoid=graph.test)
        graph = graph.replace(train=train, valid=valid)
    there = Path(out) / f"train{SUFFIX}"
    if there.exists() and not overwrite:
        raise UserError(f"{there}: is there already; give --overwrite or another --out")
    try:
        written = write_mapped(Path(out), graph)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror or error})") from None
    counts = " / ".join(f"{len(triples):,} {split}" for split, triples in graph.splits.items())
    notify(f"{out}: {len(graph.entities):,} entities, {len(graph.relations):,} relations, {counts} triples")
    return written


def list_entities(data: Path, out: Path, *, overwrite: bool = False, notify: Callable[[str], None] = print) -> Path:
    """Writes ``entities.txt``, a name per line in the order of ids, which is the order of a feature matrix's rows.

    Args:
      data: the graph's folder.
      out: the folder to write into.
      overwrite: replace what is there.
      notify: told in one line of the file.

    Raises:
      UserError: bad input, or a file is in the way.
    """
    entities, path = read_triples(data, notify).entities, Path(out) / "entities.txt"
    if path.exists() and not overwrite:
        raise UserError(f"{path}: is there already; give --overwrite or another --out")
    text = "".join(f"{name}\n" for name in entities)
    try:
        write_atomically(path, lambda file: file.write(text.encode("utf-8", "surrogatepass")))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from None
    notify(f"{path}: {len(entities):,} entities in the order of their ids")
    return path


def _keep_what_is_there(out: Path, graph_name: str, targets: dict[str, Path], overwrite: bool) -> None:
    there = feature_paths(out, graph_name)
    for kind, target in targets.items():
        if kind in there and not (overwrite and there[kind] == target):
            cure = "give --overwrite or another --out" if there[kind] == target else "remove it or give another --out"
            raise UserError(f"{there[kind]}: is there already and gives the modality {kind}; {cure}")
