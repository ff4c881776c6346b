"""Changes of files that hold others: zip archives, pickles, ``.npy``, ``.safetensors``, PNG."""

from __future__ import annotations

import gzip
import io
import pickletools
import re
import zipfile
import zlib
from random import Random

from .mutations import EXTREMES, Mutate, change_bytes, change_in_place, change_json, set_number

DESCRIPTIONS = (
    *("'<f4'", "'>f8'", "'<f2'", "'|b1'", "'|u1'", "'<i8'", "'<U1'", "'<U0'", "'<U999999999'", "'|O'", "'O'", "'<c16'"),
    *("'<f16'", "'|V0'", "'|S0'", "'<M8[s]'", "'f4,f4'", "'(9999999,)f4'", "[('a', '<f4')]", "[('a', '|O')]", "'x'"),
    *("''", "None", "3", "'<f4", "('<f4', (3,))", "{'names': ['a']}", "__import__('os').system('true')"),
)
SHAPES = (
    *(
        "(3, 2)",
        "(2, 3)",
        "(6,)",
        "()",
        "(3, 2, 1)",
        "(0, 2)",
        "(3, 0)",
        "(0, 4611686018427387904)",
        "(-3, 2)",
        "(-1,)",
    ),
    *("(3L, 2L)", "(1000000000000, 1000000)", "(4294967296, 4294967296)", "(3.0, 2)", "(True, 2)", "[3, 2]", "3", "(3"),
    *("(" + "1, " * 100 + ")", "(" + "(" * 200 + ")" * 200 + ")", "(" + "9" * 5000 + ",)", "(3, 2" + ", 1" * 70 + ")"),
    *("(9223372036854775807, 2)", "(9223372036854775808,)", "(2, 3,)", "(,)", "None", "-" * 4000 + "1"),
)


def npy(descr: str, shape: str, order: str, body: bytes, version: int = 1) -> bytes:
    """An ``.npy`` file whose header says what it is told."""
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    length = len(header).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes((version, 0)) + length + header + body


def change_npy(rng: Random, data: bytes) -> bytes:
    """Rewrites the header, or changes bytes."""
    match = re.search(rb"\{'descr': (.+?), 'fortran_order': (\w+), 'shape': (.+?), \}\s*\n", data)
    if match is None or rng.random() < 0.3:
        return change_bytes(rng, data)
    descr, order, shape = (part.decode("latin-1") for part in match.groups())
    kind = rng.randrange(5)
    if kind in (0, 1):
        descr = rng.choice(DESCRIPTIONS)
    if kind in (1, 2, 3):
        shape = rng.choice(SHAPES)
    if kind == 4:
        order = rng.choice(("True", "False", "1", "None", "'True'"))
    return npy(descr, shape, order, data[match.end() :], rng.choice((1, 1, 2, 3, 9)))


def change_zip(inner: Mutate) -> Mutate:
    """A change of an archive: of a member by ``inner``, of names and methods, or of the archive's own records."""

    def change(rng: Random, data: bytes) -> bytes:
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                members = [(info.filename, archive.read(info)) for info in archive.infolist()]
        except Exception:
            return change_bytes(rng, data)
        kind = rng.randrange(10)
        if kind >= 8 or not members:
            return change_records(rng, data)
        place = rng.randrange(len(members))
        name, content = members[place]
        method = zipfile.ZIP_STORED
        if kind < 4:
            # Mostly the smaller members: they say what the others mean.
            content = inner(rng, content)
        elif kind == 4:
            name = rng.choice(
                (f"../{name}", f"/{name}", name.upper(), "x/data.pkl", "rows.npy", ".npy", "a" * 999, "../../x")
            )
        elif kind == 5:
            members.append((rng.choice(members)[0], content))
        elif kind == 6:
            members.append((rng.choice(("more.npy", "ids.npy", "x/data.pkl", "byteorder")), inner(rng, content)))
        else:
            method = rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
        members[place] = (name, content)
        if rng.random() < 0.05:
            del members[rng.randrange(len(members))]
        return zip_of(members, method)

    return change


def zip_of(members: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    """An archive of members, which may have one name."""
    import warnings

    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", method) as archive:
        warnings.simplefilter("ignore")
        for name, content in members:
            # Without a date of its own a member is given the time, and the same seed another input two seconds later.
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=method)
    return file.getvalue()


def change_records(rng: Random, data: bytes) -> bytes:
    """Writes an extreme number into a record that lists a member, stands before it, or ends the archive."""
    mark = rng.choice((b"PK\x01\x02", b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"))
    places = [match.start() for match in re.finditer(re.escape(mark), data)]
    if not places:
        return change_bytes(rng, data)
    return set_number(rng, data, rng.choice(places) + 4 + rng.randrange(42), rng.choice((2, 4)))


# A stack machine's instructions, well formed and not, with lengths that no file has.
INSTRUCTIONS = (
    *(
        b"(",
        b")",
        b"]",
        b"}",
        b"t",
        b"\x85",
        b"\x86",
        b"\x87",
        b"a",
        b"e",
        b"s",
        b"u",
        b"R",
        b"b",
        b"Q",
        b"0",
        b"2",
        b".",
    ),
    *(
        b"N",
        b"\x88",
        b"\x89",
        b"q\x00",
        b"h\x00",
        b"h\xff",
        b"j\xff\xff\xff\xff",
        b"r\xff\xff\xff\xff",
        b"\x94",
        b"\x93",
    ),
    *(
        b"K\x00",
        b"M\xff\xff",
        b"J\xff\xff\xff\xff",
        b"J\xff\xff\xff\x7f",
        b"\x8a\x08" + b"\xff" * 7 + b"\x3f",
        b"\x8a\x00",
    ),
    *(
        b"\x8b\xff\xff\xff\x7f",
        b"\x8b\xff\xff\xff\xff",
        b"\x8e" + b"\xff" * 8,
        b"\x8e" + b"\xff" * 7 + b"\x7f",
        b"B\xff\xff\xff\x7f",
    ),
    *(
        b"\x8d" + b"\xff" * 7 + b"\x7f",
        b"X\xff\xff\xff\x7f",
        b"X\x01\x00\x00\x00\xff",
        b"\x95" + b"\xff" * 8,
        b"G" + b"\xff" * 8,
    ),
    *(
        b"I9\n",
        b"I" + b"9" * 5000 + b"\n",
        b"L" + b"9" * 5000 + b"L\n",
        b"Fnan\n",
        b"S'\\x'\n",
        b"V\\ud800\n",
        b"p0\n",
        b"g9\n",
    ),
    *(
        b"cos\nsystem\n",
        b"c\xff\n\xff\n",
        b"ios\nsystem\n",
        b"o",
        b"\x81",
        b"\x92",
        b"P0\n",
        b"\x82\x01",
        b"\x84\xff\xff\xff\x7f",
    ),
    *(b"\x96" + b"\xff" * 8, b"\x97", b"\x98", b"\x8f", b"\x90", b"\x91", b"\x8c\x02os\x8c\x06system\x93", b"\x80\x09"),
)


def change_pickle(rng: Random, data: bytes) -> bytes:
    """Takes out, doubles, swaps and inserts instructions, or changes bytes; what follows the pickle stays."""
    steps = []
    try:
        for _, _, place in pickletools.genops(data):
            steps.append(place)
    except Exception:
        return change_bytes(rng, data)
    if rng.random() < 0.2 or len(steps) < 2:
        return change_bytes(rng, data)
    end = steps[-1] + 1
    parts = [data[start:stop] for start, stop in zip(steps, [*steps[1:], end], strict=True)]
    place = rng.randrange(len(parts))
    kind = rng.randrange(6)
    if kind == 0:
        del parts[place]
    elif kind == 1:
        parts.insert(place, rng.choice(parts))
    elif kind == 2:
        other = rng.randrange(len(parts))
        parts[place], parts[other] = parts[other], parts[place]
    elif kind == 3:
        parts.insert(place, rng.choice(INSTRUCTIONS) * rng.choice((1, 1, 1, 3, 5000)))
    elif kind == 4:
        number = rng.choice(EXTREMES)
        new = b"\x8a\x09" + number.to_bytes(9, "little", signed=True)
        numbers = [index for index, part in enumerate(parts) if part[:1] in (b"K", b"M", b"J", b"\x8a")]
        parts[rng.choice(numbers) if numbers else place] = new
    else:
        parts[place] = rng.choice(INSTRUCTIONS)
    return b"".join(parts) + data[end:]


def change_safetensors(rng: Random, data: bytes) -> bytes:
    """Changes the JSON header, its length fitting again, or bytes."""
    length = int.from_bytes(data[:8], "little")
    if length > len(data) - 8 or rng.random() < 0.25:
        return change_bytes(rng, data)
    return safetensors(change_json(rng, data[8 : 8 + length]), data[8 + length :])


def change_parquet(rng: Random, data: bytes) -> bytes:
    """Changes the description at the end of a Parquet file, its length fitting again, or bytes."""
    length = int.from_bytes(data[-8:-4], "little")
    start = len(data) - 8 - length
    if start < 4 or rng.random() < 0.25:
        return change_bytes(rng, data)
    described = change_in_place(rng, data[start:-8])
    return data[:start] + described + len(described).to_bytes(4, "little") + data[-4:]


def change_gzip(inner: Mutate) -> Mutate:
    """A change by ``inner`` of what a gzip file holds, or of its bytes."""

    def change(rng: Random, data: bytes) -> bytes:
        try:
            return gzip.compress(inner(rng, gzip.decompress(data)), mtime=0)
        except (OSError, EOFError, zlib.error):
            return change_bytes(rng, data)

    return change


def safetensors(header: bytes, body: bytes) -> bytes:
    """A file of a header and what follows it."""
    return len(header).to_bytes(8, "little") + header + body


def change_image(rng: Random, data: bytes) -> bytes:
    """Changes the numbers at the head of an image, a chunk of a PNG (its checksum fitting again), or bytes."""
    if data[:4] != b"\x89PNG" or rng.random() < 0.3:
        return (
            set_number(rng, data, rng.randrange(min(len(data), 64) + 1))
            if rng.random() < 0.5
            else change_bytes(rng, data)
        )
    chunks, place = [], 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    if not chunks:
        return change_bytes(rng, data)
    index = rng.choice((0, rng.randrange(len(chunks))))
    kind, content = chunks[index]
    if rng.random() < 0.7:
        content = set_number(rng, content, rng.randrange(len(content) + 1))
    else:
        kind = rng.choice((b"IDAT", b"PLTE", b"tRNS", b"iCCP", b"zTXt", b"acTL", b"fcTL", b"eXIf", b"IEND", b"gAMA"))
        chunks.insert(index, (kind, content))
    chunks[index] = (kind, content)
    return data[:8] + b"".join(png_chunk(*chunk) for chunk in chunks)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk with its length and checksum."""
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")
