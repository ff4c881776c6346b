"""What an entity's name says to a reader, and which entity a user means by a name or an id."""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from urllib.parse import unquote

from mocme_jax.data.readers.text_lines import read_whole_number
from mocme_jax.errors import UserError

# Each of these takes time in proportion to the name, which a stranger may have made a million characters long.
_LOCAL_PART = re.compile(r"^.*?/(?:resource|entity|wiki|page|ontology|property)/(.+)$", re.DOTALL)
_LITERAL = re.compile(r'^"(.*)"(?:@[A-Za-z-]+|\^\^.*)?$', re.DOTALL)
_YAGO_CLASS = re.compile(r"^(?:wikicat|wordnet|geoclass|yago)_(.+?)(?:_1\d{8})?$")
_YAGO_LANGUAGE = re.compile(r"^[a-z]{2,3}/(?=.)")
_WORDNET = re.compile(r"^_*([^_].*)_(?:NN|VB|JJ|RB)_\d+$")
_ESCAPE = re.compile(r"\\u([0-9A-Fa-f]{4})")


def readable_name(name: str) -> str:
    r"""A name as a person would write it.

    Strips angle brackets, the address of a URI (DBpedia, Wikidata, YAGO, or any other: what follows its last
    ``/`` or ``#``), quotes with their language tag, YAGO's and WordNet's affixes; decodes ``%C3%A1`` and
    ``\u00e1``; turns underscores into spaces. ``<http://dbpedia.org/resource/Franciaorsz%C3%A1g>`` becomes
    ``Franciaország``. A name of which nothing would be left stays as it is.
    """
    text = name.strip()
    bracketed = text.startswith("<") and text.endswith(">")
    if bracketed:
        text = text[1:-1]
    literal = _LITERAL.match(text)
    if literal:
        text = literal.group(1)
    if "://" in text:
        local = _LOCAL_PART.match(text)
        text = local.group(1) if local else re.split(r"[/#]", text.rstrip("/#"))[-1]
    elif bracketed:
        text = _YAGO_LANGUAGE.sub("", text)
    wordnet = _WORDNET.match(text)
    if wordnet:
        text = wordnet.group(1)
    yago = _YAGO_CLASS.match(text)
    if yago:
        text = yago.group(1)
    if "%" in text:
        decoded = unquote(text, errors="replace")
        text = text if "\ufffd" in decoded else decoded
    if "\\u" in text:
        text = _ESCAPE.sub(lambda match: chr(int(match.group(1), 16)), text)
        # Two escapes may be one character, and one alone may be half of one.
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    text = " ".join(text.replace("_", " ").split())
    return text or name.strip()


def numbers_are_names(names: Iterable[str]) -> bool:
    """Whether a whole number means what has that name, and not what has that id: some name reads as a whole number."""
    return any(read_whole_number(readable_name(name)) is not None for name in names)


def entity_finder(entities: Sequence[str]) -> Callable[[str], int | None]:
    """A function from what a user writes to an entity id, or None where nothing fits.

    What is written is a name, or else a readable name (ambiguous ones excepted). A whole number is an id only where
    ``numbers_are_names`` says no: an entity that the graph lacks must not turn into another one.

    Args:
      entities: names by id.
    """
    by_name = {name: index for index, name in enumerate(entities)}
    by_readable: dict[str, int | None] = {}
    for index, name in enumerate(entities):
        text = readable_name(name)
        by_readable[text] = None if text in by_readable else index
    # As numbers_are_names, of the readable names that are at hand.
    take_ids = all(read_whole_number(text) is None for text in by_readable)

    def find(key: str) -> int | None:
        index = by_name.get(key)
        index = by_readable.get(readable_name(key)) if index is None else index
        if index is None and take_ids:
            number = read_whole_number(key)
            index = number if number is not None and number < len(entities) else None
        return index

    return find


def tell_left_out(
    path: Path, what: str, missing: Sequence[tuple[int, str]], total: int, notify: Callable[[str], None]
) -> None:
    """Tells in one line how much of a file is left out because the graph lacks the name that it is for.

    Args:
      path: the file.
      what: is counted: ``rows`` (of a text) or ``ids`` (of an array).
      missing: line or position, and name, of what is left out, of ``total`` in all.
      notify: told the line, if there is any.

    Raises:
      UserError: nothing would be left.
    """
    if not missing:
        return
    some = ", ".join(repr(key[:60]) for key in list(dict.fromkeys(key for _, key in missing))[:5])
    first = f"{path}:{missing[0][0]}" if what == "rows" else f"{path}: {what}[{missing[0][0]}]"
    if len(missing) == total:
        raise UserError(
            f"{first}: the graph has none of the names in its {total:,} {what}, such as {some}; "
            "write names as they appear in the triples"
        )
    notify(
        f"{first}: {len(missing):,} of {total:,} {what} have names that are not in the graph and are left out: {some}"
    )
