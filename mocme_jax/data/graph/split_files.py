"""What the files of a graph's splits may be called in the plain layout."""

from pathlib import Path

from mocme_jax.errors import UserError

STEMS = {"train": ("train",), "valid": ("valid", "dev", "val", "validation"), "test": ("test",)}
# LibKGE keeps the files of names that it read beside the same triples as ids, which count.
CODED = ".del"
ENDINGS = tuple(ending + packed for ending in (".txt", ".tsv", ".nt", "") for packed in ("", ".gz"))


def split_file(folder: Path, split: str) -> Path | None:
    """The file of a split, such as ``dev.tsv.gz`` for ``valid``; None where there is none.

    Raises:
      UserError: there are several.
    """
    coded = folder / f"{split}{CODED}"
    if coded.exists():
        return coded
    paths = [folder / f"{stem}{ending}" for stem in STEMS[split] for ending in ENDINGS]
    # A folder may well be called train; anything else of such a name is read, or refused when it is opened.
    found = [path for path in paths if path.exists() and (path.suffix or path.is_file())]
    if len(found) > 1:
        raise UserError(f"{found[1]}: gives the {split} split, and so does {found[0].name}; remove one of the two")
    return found[0] if found else None
