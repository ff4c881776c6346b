"""Feature files made from names, descriptions, numeric attributes and pictures."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from mocme_jax.countdown import Countdown
from mocme_jax.data.audit.graph_audit import audit
from mocme_jax.data.features.encoded_rows import FOLDER as ENCODED
from mocme_jax.data.features.encoded_rows import EncodedRows
from mocme_jax.data.features.entity_files import entity_files, files_modality
from mocme_jax.data.features.feature_files import feature_paths
from mocme_jax.data.features.feature_writer import as_feature_file
from mocme_jax.data.features.numeric_features import numeric_modality
from mocme_jax.data.features.numeric_tables import numeric_source
from mocme_jax.data.features.text_features import (
    DEFAULT_ENCODER,
    entity_texts,
    read_descriptions,
    text_encoder,
    text_modality,
)
from mocme_jax.data.graph.graph_folder import is_readable, read_triples
from mocme_jax.data.graph.knowledge_graph import Modality
from mocme_jax.data.graph.mapped_triples import SUFFIX, write_mapped
from mocme_jax.data.graph.openke_layout import SPLITS
from mocme_jax.data.graph.splits import carve_dev
from mocme_jax.data.media.file_encoders import MEDIA
from mocme_jax.data.whole_files import write_atomically
from mocme_jax.data.whole_folders import unfinished, write_together
from mocme_jax.errors import UserError

NAMES = "names"
_MOST_TOLD = 100


def prepare(
    data: Path,
    out: Path,
    *,
    text: str | None = None,
    encoder: str = DEFAULT_ENCODER,
    numeric: Path | None = None,
    min_rows: int = 5,
    files: Mapping[str, tuple[Path, str]] | None = None,
    overwrite: bool = False,
    skip_bad: bool = False,
    notify: Callable[[str], None] = print,
) -> list[Path]:
    """Makes the modalities asked for and writes each as ``text.npz``, ``numeric.npz``, ``image.npz`` ... into ``out``.

    Asked for nothing, it makes text from names, and numeric if the graph's folder has a source for it, see
    numeric_source.

    Args:
      data: the graph's folder.
      text: ``names`` (or labels and descriptions beside the graph), or a file ``name<TAB>text``; entities
        that the file leaves out get their name.
      encoder: see encode_texts.
      numeric, min_rows: see numeric_modality.
      files: for ``image``, ``audio`` and ``video`` a folder, see entity_files, and an encoder, see file_encoder; an
        empty one is the default.
      overwrite: replace what is there; otherwise nothing is written if a file is in the way.
      skip_bad: leave out rows, values and files that can't be read, and tell of each.
      notify: told in one line of each step, how far long ones are, and each problem if there are several.

    Returns:
      The files written.

    Raises:
      UserError: bad input, all of which is looked at before anything is written; or a modality that has a file in
        ``out`` already.
    """
    graph = read_triples(data, notify)
    files = dict(files or {})
    if text is None and numeric is None and not files:
        text = NAMES
        numeric = numeric_source((data,))
    asked = [kind for kind, source in (("text", text), ("numeric", numeric)) if source is not None] + list(files)
    targets = {kind: out / f"{kind}.npz" for kind in asked}
    _keep_what_is_there(out, graph.name, targets, overwrite)

    if text is not None:
        # A missing package is told before the work begins.
        text_encoder(encoder)

    made: dict[str, Modality] = {}
    bad: list[str] = []
    fatal: list[str] = []
    texts: list[str] = []
    if numeric is not None:
        with _kept_for_later(fatal):
            made["numeric"] = numeric_modality(
                numeric, graph.entities, min_rows=min_rows, notify=notify, bad=bad.append
            )
    if text is not None:
        with _kept_for_later(fatal):
            texts = entity_texts(graph, data, notify=notify, bad=bad.append)
            if text != NAMES:
                for index, description in read_descriptions(Path(text), graph.entities, notify, bad.append).items():
                    texts[index] = description
            if not is_readable(texts):
                raise UserError(
                    f"{data}: the entities' names are numbers or ids, not text; give --text=FILE with rows "
                    "name<TAB>text"
                )
    for kind, (folder, name) in files.items():
        with _kept_for_later(fatal):
            made[kind] = _of_files(kind, folder, name, graph.entities, out / ENCODED, bad.append, notify)
    _tell_problems(bad, fatal, skip_bad, notify)
    if text is not None:
        notify(f"encoding {len(texts):,} texts with {encoder}")
        made["text"] = text_modality(texts, encoder, Countdown("texts", notify))

    write_together(out, {f"{kind}.npz": as_feature_file(".npz", made[kind], graph.entities) for kind in asked})
    for kind in asked:
        modality = made[kind]
        notify(
            f"{targets[kind]}: {modality.features.shape[1]} wide, {modality.present.sum():,} of "
            f"{len(graph.entities):,} entities ({modality.coverage:.1%})"
        )
    return list(targets.values())


def _of_files(
    kind: str,
    folder: Path,
    encoder: str,
    entities: Sequence[str],
    encoded: Path,
    bad: Callable[[str], None],
    notify: Callable[[str], None],
) -> Modality:
    """A modality of a folder of files, of which ``encoded`` holds rows; a UserError if none of them can be read."""
    paths, unmatched = entity_files(folder, entities, kind)
    encoder, plural = encoder or MEDIA[kind].encoders[0], MEDIA[kind].plural
    if unmatched:
        some = ", ".join(path.name for path in unmatched[:5])
        notify(f"{folder}: {len(unmatched)} {plural} are not named after an entity and are left out: {some}")
    notify(f"encoding {sum(map(len, paths.values())):,} {plural} with {encoder}")
    kept = EncodedRows(encoded, kind, encoder, notify)
    modality = files_modality(kind, paths, len(entities), encoder, bad, Countdown(plural, notify), kept)
    if kept.reused:
        notify(f"{kept.reused:,} of these {plural} were encoded before; their vectors in {encoded} are reused")
    if not modality.present.any():
        raise UserError(f"{folder}: none of its {plural} can be read; replace them")
    return modality


@contextlib.contextmanager
def _kept_for_later(problems: list[str]) -> Iterator[None]:
    """A UserError becomes one of the problems, so that what comes after is looked at as well."""
    try:
        yield
    except UserError as error:
        problems.append(str(error))


def _tell_problems(bad: list[str], fatal: list[str], skip_bad: bool, notify: Callable[[str], None]) -> None:
    """Tells of all problems in a line each and raises, unless all may be left out and should be."""
    bad, problems = list(dict.fromkeys(bad)), fatal
    if skip_bad:
        _tell([f"left out: {line}" for line in bad], notify)
    else:
        problems = [*bad, *fatal]
    if not problems:
        return
    if len(problems) > 1:
        _tell(problems, notify)
    cure = "" if fatal else ", or leave out bad input with --skip-bad"
    raise UserError(
        f"{problems[0]}{cure}"
        if len(problems) == 1
        else f"{len(problems):,} problems, listed above; correct them{cure}"
    )


def _tell(lines: list[str], notify: Callable[[str], None]) -> None:
    for line in lines[:_MOST_TOLD]:
        notify(line)
    if len(lines) > _MOST_TOLD:
        notify(f"... and {len(lines) - _MOST_TOLD:,} more")


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
    # Of the two graphs, readers would take the names of one and the triples of the other.
    if out.resolve() == data.resolve() or any((out / f"{split}2id.txt").exists() for split in SPLITS):
        raise UserError(f"{out}: contains a graph in another layout; give another --out")
    graph = read_triples(data, notify)
    for line in audit(graph).warnings():
        notify(f"warning: {line}")
    if dev_fraction is not None:
        if not 0 < dev_fraction < 1:
            raise UserError(f"--dev-fraction={dev_fraction:g}: expected a share between 0 and 1")
        train, valid = carve_dev(graph.train, dev_fraction, seed, avoid=graph.test)
        graph = graph.replace(train=train, valid=valid)
    there = out / f"train{SUFFIX}"
    if there.exists() and not overwrite and there.name not in unfinished(out):
        raise UserError(f"{there}: already exists; give --overwrite or another --out")
    written = write_mapped(out, graph)
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
    entities, path = read_triples(data, notify).entities, out / "entities.txt"
    if path.exists() and not overwrite:
        raise UserError(f"{path}: already exists; give --overwrite or another --out")
    text = "".join(f"{name}\n" for name in entities)
    try:
        write_atomically(path, lambda file: file.write(text.encode("utf-8", "surrogatepass")))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from None
    notify(f"{path}: {len(entities):,} entities in the order of their ids")
    return path


def _keep_what_is_there(out: Path, graph_name: str, targets: dict[str, Path], overwrite: bool) -> None:
    there, broken_off = feature_paths(out, graph_name), unfinished(out)
    for kind, target in targets.items():
        if kind in there and not (there[kind] == target and (overwrite or target.name in broken_off)):
            cure = "give --overwrite or another --out" if there[kind] == target else "remove it or give another --out"
            raise UserError(f"{there[kind]}: already exists and provides the modality {kind}; {cure}")
