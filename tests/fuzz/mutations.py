"""Changes of files: of any bytes, of lines of text, of JSON. Each takes a generator, which decides all of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

Mutate = Callable[[Random, bytes], bytes]

EXTREMES = (0, 1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 65536)
EXTREMES += tuple((1 << bits) + step for bits in (31, 32, 40, 62, 63, 64) for step in (-1, 0, 1))
NUMBERS = (
    *(str(number).encode() for number in EXTREMES),
    *(b"-1", b"+1", b"1_0", b"007", b"0x10", b"1.5", b"1e309", b"-1e309", b"1e-400", b"nan", b"inf", b"-Infinity"),
    *(
        "\u0663".encode(),
        "\u00b2".encode(),
        "\uff11".encode(),
        "1\u00a0".encode(),
        b"9" * 400,
        b"9" * 5000,
        b"-" * 9,
        b"",
    ),
)
WORDS = (
    *(
        b"\0",
        b"\xff",
        b"\xc3",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        b"\r",
        b"\r\n",
        b"\t",
        b" ",
        b"\x1b[2J",
        b"[/b]",
        b"%s",
    ),
    *("\u2028".encode(), "\u0130".encode(), b"../../x", b"/etc/passwd", b"\\ud800", b"%1B", b"#", b'"', b"<a>", b"."),
)


def change_bytes(rng: Random, data: bytes) -> bytes:
    """Flips, cuts, copies and inserts, with no eye for what the bytes mean."""
    size = len(data)
    start = rng.randrange(size + 1)
    stop = min(size, start + rng.choice((1, 2, 4, 8, 60, 1000)))
    kind = rng.randrange(9)
    if kind == 0:
        return data[:start]
    if kind == 1:
        return data[start:]
    if kind == 2:
        return data[:start] + data[stop:]
    if kind == 3:
        return data[:start] + data[start:stop] * rng.choice((2, 3, 50)) + data[stop:]
    if kind == 4:
        other = rng.randrange(size + 1)
        return data[:start] + data[other : other + stop - start] + data[stop:]
    if kind == 5:
        return data[:start] + rng.randbytes(rng.choice((1, 4, 30))) + data[start:]
    if kind == 6:
        return data[:start] + rng.choice(NUMBERS + WORDS) + data[stop:]
    if kind == 7:
        return set_number(rng, data, start)
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        if changed:
            changed[rng.randrange(size)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def change_in_place(rng: Random, data: bytes) -> bytes:
    """Flips bits or writes a number and moves nothing, for formats that hold places; or changes bytes."""
    if not data or rng.random() < 0.2:
        return change_bytes(rng, data)
    changed = bytearray(set_number(rng, data, rng.randrange(len(data))) if rng.random() < 0.5 else data)
    for _ in range(rng.choice((0, 1, 1, 2, 8))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def set_number(rng: Random, data: bytes, place: int, width: int = 0) -> bytes:
    """Writes an extreme whole number at a place, of 1 to 8 bytes."""
    width = width or rng.choice((1, 2, 4, 8))
    number = rng.choice((*EXTREMES, len(data), len(data) - place)) % (1 << 8 * width)
    return data[:place] + number.to_bytes(width, rng.choice(("little", "big"))) + data[place + width :]


def change_lines(rng: Random, data: bytes) -> bytes:
    """Changes lines and fields of a text, and mends its count of lines, where it has one, more often than not."""
    lines = data.split(b"\n")
    counted = lines[0].strip().isdigit()
    place = rng.randrange(len(lines))
    kind = rng.randrange(11)
    if kind == 0:
        del lines[place]
    elif kind == 1:
        lines.insert(place, rng.choice(lines))
    elif kind == 2:
        other = rng.randrange(len(lines))
        lines[place], lines[other] = lines[other], lines[place]
    elif kind in (3, 4, 5):
        separator = next((mark for mark in (b"\t", b",") if mark in lines[place]), b" ")
        fields = lines[place].split(separator)
        fields[rng.randrange(len(fields))] = rng.choice(NUMBERS + WORDS)
        lines[place] = separator.join(fields)
    elif kind == 6:
        lines[place] = lines[place].replace(*rng.choice(((b"\t", b" "), (b" ", b"\t"), (b"\t", b"\t\t"))))
    elif kind == 7:
        end = rng.choice((b"\r\n", b"\r", b"\n\n", "\u2028".encode(), b"\n\x0b"))
        return end.join(lines)
    elif kind == 8:
        codec = rng.choice(("utf-16", "utf-32", "utf-8-sig", "utf-7"))
        return data.decode("utf-8", "replace").encode(codec)
    elif kind == 9:
        lines[place] += rng.choice((b"_", b'"', b"/wiki/", b"(", b"\\ud83d", b"%f0", b"1")) * rng.choice((9, 20_000))
    else:
        lines[place] = rng.choice(WORDS) * rng.choice((1, 3)) + lines[place]
    if counted and lines and rng.random() < 0.7:
        lines[0] = str(sum(bool(line.strip()) for line in lines[1:])).encode()
    return b"\n".join(lines)


VALUES: Sequence[Any] = (
    *EXTREMES,
    -1,
    1.5,
    -0.0,
    1e300,
    float("nan"),
    float("inf"),
    10**400,
    True,
    None,
    "",
    "F32",
    "F99",
    "[/b]",
    "\ud800",
    "\x1b[2J",
    "a" * 2000,
    [],
    {},
    [[]],
    {"": {}},
    [0, 0],
    [1 << 62, 1 << 62],
    [3] * 100,
    "../x",
    "__metadata__",
    "train",
)


def change_json(rng: Random, data: bytes) -> bytes:
    """Changes a value, a name or the structure of a JSON text; other bytes are changed as bytes."""
    try:
        root = json.loads(data)
    except (ValueError, RecursionError):
        return change_bytes(rng, data)
    places = [(None, None)]
    waiting = [root]
    while waiting:
        node = waiting.pop()
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, value in items:
            places.append((node, key))
            waiting.append(value)
    parent, key = rng.choice(places)
    kind = rng.randrange(8)
    if parent is None:
        root = rng.choice((root, [root], {"a": root}, rng.choice(VALUES)))
    elif kind < 4:
        parent[key] = rng.choice(VALUES)
    elif kind == 4:
        del parent[key]
    elif kind == 5 and isinstance(parent, dict):
        parent[rng.choice(("", "rows", "\ud800", "__metadata__", "epoch"))] = parent[key]
    elif kind == 6:
        parent[key] = [parent[key]] * rng.choice((0, 1, 2, 500))
    text = json.dumps(root)
    if kind == 7:
        # What no writer of JSON can be made to write.
        deep = rng.choice((50, 2000, 100_000))
        new = rng.choice((b"9" * 5000, b"[" * deep + b"]" * deep, b'{"a":' * deep + b"1" + b"}" * deep, b'"\\ud800"'))
        old = rng.choice((b"1", b"2", b"0", b'"', b"[", b"}"))
        return text.encode("utf-8", "surrogatepass").replace(old, new, 1)
    if isinstance(root, dict) and root and rng.random() < 0.1:
        name = rng.choice(list(root))
        text = text[:-1] + f", {json.dumps(name)}: {json.dumps(rng.choice(VALUES))}}}"
    return text.encode(rng.choice(("utf-8", "utf-8", "utf-8", "utf-16")), "surrogatepass")
