"""What an entity's name says to a reader, and which entity a user means by a name or an id."""

import re
from collections.abc import Callable, Sequence
from urllib.parse import unquote

from mocme_jax.data.readers.text_lines import read_whole_number

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


def entity_finder(entities: Sequence[str], keys: Sequence[str] = ()) -> Callable[[str], int | None]:
    """A function from what a user writes to an entity id, or None where nothing fits.

    Args:
      entities: names by id.
      keys: all that the user writes in this place. If every one is a whole number below N and not all are
        names, they are taken as ids; otherwise each is looked up as a name, then as a readable name
        (ambiguous ones excepted).
    """
    by_name = {name: index for index, name in enumerate(entities)}
    distinct = set(keys)

    def is_id(key: str) -> bool:
        number = read_whole_number(key)
        return number is not None and number < len(entities)

    if distinct and not distinct <= by_name.keys() and all(map(is_id, distinct)):
        return lambda key: int(key) if is_id(key) else None
    by_readable: dict[str, int | None] = {}
    for index, name in enumerate(entities):
        text = readable_name(name)
        by_readable[text] = None if text in by_readable else index

    def find(key: str) -> int | None:
        index = by_name.get(key)
        return by_readable.get(readable_name(key)) if index is None else index

    return find
