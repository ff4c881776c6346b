"""Files made to run code, to take all memory, or to never end; small themselves. Each is made when it is asked for."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from .containers import npy, png_chunk, safetensors, zip_of

Bomb = Callable[[], bytes]


class Calls:
    """Pickled as a call of a function, in whatever protocol."""

    def __init__(self, function: Callable, *arguments: object):
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


def attacks(canary: Path) -> list[bytes]:
    """Pickles that make the canary, if anybody runs them."""
    calls = [
        Calls(os.mkdir, str(canary)),
        Calls(os.system, f"mkdir {canary}"),
        Calls(open, str(canary), "w"),
        Calls(eval, f"__import__('os').mkdir({str(canary)!r})"),
        Calls(exec, f"open({str(canary)!r}, 'w')"),
    ]
    pickles = [pickle.dumps(call, protocol) for call in calls for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    nested = pickle.dumps({"weight": [calls[0]]}, 2)
    old = f"(S'mkdir {canary}'\nios\nsystem\n.".encode()
    return [*pickles, nested, old]


def pickle_bombs() -> dict[str, Bomb]:
    """Pickles that make much of little."""
    doubling = b"".join(b"](" + 2 * (b"j" + struct.pack("<I", i)) + b"er" + struct.pack("<I", i + 1) for i in range(60))
    return {
        "lists": lambda: b"\x80\x02(" + b"]" * 260_000 + b"t.",
        "dicts": lambda: b"\x80\x02(" + b"}" * 260_000 + b"t.",
        "doubling": lambda: b"\x80\x02]r\0\0\0\0" + doubling + b".",
        "deep tuples": lambda: b"\x80\x02)" + b"\x85" * 260_000 + b".",
        "deep lists": lambda: b"\x80\x02" + b"](" * 86_000 + b"e" * 86_000 + b".",
        "marks": lambda: b"\x80\x02" + b"(" * 130_000 + b"t" * 130_000 + b".",
        "shared": lambda: b"\x80\x02]q\x00(" + b"h\x00" * 130_000 + b"e.",
        "long number": lambda: b"\x80\x02\x8b" + struct.pack("<i", 260_000) + b"\x7f" * 260_000 + b".",
        "wide text": lambda: b"\x80\x02X" + struct.pack("<I", 260_000) + b"\xf0\x9f\x98\x80" * 65_000 + b".",
        "axes": lambda: axes(60_000),
        "many strides": lambda: axes(65),
        "as long as may be": lambda: b"\x80\x02(" + b"]" * 2_097_000 + b"t.",
        "longer": lambda: b"\x80\x02(" + b"]" * 4_000_000 + b"t.",
    }


def axes(count: int) -> bytes:
    """A tensor whose shape has so many axes, each as long as a number may be."""
    longest = b"\x8a\x08" + b"\xff" * 7 + b"\x3f"
    storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0" + b"0X\x03\0\0\0cpuK\x06tQ"
    shape = b"(" + longest + b"q\x00" + b"h\x00" * (count - 1) + b"t"
    return b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\0" + shape + shape + b"\x89}tR."


def torch_zip(data: bytes) -> bytes:
    """The pickle as today's torch.save would wrap it."""
    return zip_of([("archive/data.pkl", data), ("archive/data/0", bytes(24))])


def deflated(head: bytes, zeros: int) -> bytes:
    """A raw deflate stream of some bytes and so many zeros, without the time it takes to compress them."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    # After a full flush a block knows nothing of what was before it, and may stand there any number of times.
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + block * (zeros >> 20) + packer.compress(bytes(zeros % (1 << 20))) + packer.flush()


def zip_member(name: str, packed: bytes, claimed: int) -> bytes:
    """An archive of one deflated member that says to be so long; its checksum is wrong."""
    common = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 33, 1, len(packed), claimed, len(name), 0)
    local = b"PK\x03\x04" + common + name.encode() + packed
    listed = b"PK\x01\x02" + struct.pack("<H", 20) + common + bytes(14) + name.encode()
    return local + listed + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(listed), len(local), 0)


def archive_bombs(member: str) -> dict[str, Bomb]:
    """Archives whose directory or members claim, or hold, more than their length."""

    def zeros(size: int, claimed: int | None = None) -> bytes:
        head = npy("'<f4'", f"({size // 8}, 2)", "False", b"")
        return zip_member(member, deflated(head, size), len(head) + size if claimed is None else claimed)

    def method(kind: int) -> bytes:
        return zip_of([(member, npy("'<f4'", "(131072, 2)", "False", bytes(1 << 20)))], kind)

    return {
        "inflates": lambda: zeros(3 << 30),
        "inflates a little less": lambda: zeros(200 << 20),
        "inflates secretly": lambda: zeros(3 << 30, 4096),
        "claims 4 GiB": lambda: zeros(1 << 20, 0xFFFFFFFE),
        "bzip2": lambda: method(zipfile.ZIP_BZIP2),
        "lzma": lambda: method(zipfile.ZIP_LZMA),
        "members": lambda: zip_of([(f"{index}.npy", b"") for index in range(50_000)]),
        "claims terabytes": lambda: zip_of([(member, npy("'<f4'", "(1000000000000, 2)", "False", bytes(24)))]),
        "claims exabytes": lambda: zip_of([(member, npy("'<f8'", "(4611686018427387904, 4)", "False", bytes(24)))]),
        "out of the folder": lambda: zip_of([(f"../../{member}", npy("'<f4'", "(3, 2)", "False", bytes(24)))]),
    }


def safetensors_bombs() -> dict[str, Bomb]:
    """Headers that claim more than there is, and tensors that share bytes."""

    def tensors(count: int, kind: str, shape: str, place: str) -> bytes:
        entry = f'{{"dtype":"{kind}","shape":{shape},"data_offsets":{place}}}'
        names = ",".join(f'"{index}":{entry}' for index in range(count))
        return safetensors(f"{{{names}}}".encode(), bytes(1 << 20))

    long = "[" + ",".join(["4611686018427387903"] * 40_000) + "]"
    return {
        "one place for all": lambda: tensors(5000, "BF16", "[524288]", "[0,1048576]"),
        "terabytes": lambda: tensors(1, "F32", "[1000000000000]", "[0,4000000000000]"),
        "axes": lambda: tensors(1, "F32", long, "[0,1048576]"),
        "wraps round": lambda: tensors(1, "F32", "[4294967296,4294967296,4]", "[0,0]"),
        "deep": lambda: safetensors(b'{"a":' + b"[" * 500_000 + b"]" * 500_000 + b"}", b""),
        "long header": lambda: safetensors(b'{"__metadata__":{"a":"' + b"x" * (2 << 20) + b'"}}', b""),
        "many lists": lambda: safetensors(b'{"a":[' + b"[]," * 300_000 + b"[]]}", b""),
        "header past the end": lambda: struct.pack("<Q", 1 << 62) + b"{}",
        "twice": lambda: safetensors(b'{"rows":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"rows":[]}', b""),
    }


def text_bombs() -> dict[str, Bomb]:
    """Lines that a careless pattern or sum takes for ever over."""
    many = [f"{index % 3}\tattribute {index}\t1" for index in range(30_000)]
    return {
        "underscores": lambda: b"1\n" + b"_" * 300_000 + b"\t0\n",
        "quotes": lambda: b'1\n"' + b'"@a' * 100_000 + b"!\t0\n",
        "addresses": lambda: b"1\n<://" + b"/wiki/" * 50_000 + b"\x0b>\t0\n",
        "senses": lambda: b"1\n" + b"_NN_1" * 60_000 + b"x\t0\n",
        "percents": lambda: b"1\n" + b"%f0" * 100_000 + b"\t0\n",
        "escapes": lambda: b"1\n" + b"\\ud83d" * 50_000 + b"\t0\n",
        "one entity": lambda: b"".join(b"a\tword %d\n" % index for index in range(100_000)),
        "attributes": lambda: "\n".join(many).encode(),
        "attributes by name": lambda: "\n".join(many).replace("0\t", "a\t").replace("1\t", "b\t").encode(),
        "lines": lambda: b"\n" * 3_000_000 + b"a",
        "count": lambda: b"9" * 100_000 + b"\n",
        "one line": lambda: b"a " * 1_000_000,
        "tabs": lambda: b"\t" * 1_000_000,
        "zeros": lambda: bytes(1_000_000),
    }


def json_bombs() -> dict[str, Bomb]:
    """Deep, long and doubled JSON."""
    row = {"stage": "train", "unit": "/s", "rate": 1, "share": 1}
    return {
        "deep lists": lambda: b"[" * 200_000 + b"]" * 200_000,
        "deep objects": lambda: b'{"rows":' * 100_000 + b"1" + b"}" * 100_000,
        "just not too deep": lambda: b'{"epoch":1,"a":' + b"[" * 950 + b"]" * 950 + b"}",
        "number": lambda: b'{"epoch":' + b"9" * 100_000 + b"}",
        "long": lambda: b'{"rows":[' + b"[]," * 6_000_000 + b"[]]}",
        "no number": lambda: json.dumps({"device": "x", "rows": [row | {"rate": "1"}]}).encode(),
        "a rate of nothing": lambda: json.dumps({"device": "x", "rows": [row | {"rate": 0}]}).encode(),
        "a list as a key": lambda: json.dumps({"device": "x", "rows": [row | {"mapper": []}]}).encode(),
    }


def parquet_bombs() -> dict[str, Bomb]:
    """Tables that are much longer, wider or deeper once they are read."""
    import numpy as np
    import pyarrow
    from pyarrow import parquet

    def written(**columns: object) -> bytes:
        file = io.BytesIO()
        parquet.write_table(pyarrow.table(columns), file)
        return file.getvalue()

    def deep() -> bytes:
        column = pyarrow.array([1.0])
        for _ in range(90):
            column = pyarrow.ListArray.from_arrays([0, 1], column)
        return written(e=["a"], v=column)

    same = np.zeros(20_000_000, np.int8)
    long = pyarrow.DictionaryArray.from_arrays(np.zeros(2000, np.int8), ["n" * 1_000_000])
    empty = pyarrow.array([[]] * 1_000_000, pyarrow.list_(pyarrow.int8()))
    return {
        "rows": lambda: written(e=same, x=same),
        "one list": lambda: written(e=["a"], v=[np.zeros(10_000_000)]),
        "one long name for all": lambda: written(e=long, x=np.zeros(2000)),
        "empty lists": lambda: written(e=same[:1_000_000], v=empty),
        "columns": lambda: written(**{f"c{column}": [1] for column in range(20_000)}),
        "deep": deep,
    }


def hdf5_bombs() -> dict[str, Bomb]:
    """Arrays that claim or unpack to much, lie elsewhere, or are packed by programs."""
    import h5py
    import numpy as np

    def written(fill: Callable) -> bytes:
        file = io.BytesIO()
        with h5py.File(file, "w") as archive:
            fill(archive)
        return file.getvalue()

    def rows(*shape: int, **options: object) -> Bomb:
        return lambda: written(lambda archive: archive.create_dataset("rows", shape, np.float32, **options))

    def unpacks(archive: object) -> None:
        piece = archive.create_dataset("rows", (3, 2), np.float32, chunks=(3, 2), compression="gzip")
        piece.id.write_direct_chunk((0, 0), zlib.compress(bytes(1 << 28), 1))

    def names(archive: object) -> None:
        archive["ids"] = ["n" * 60_000] * 1000
        archive["rows"] = np.zeros((1000, 2))

    def groups(archive: object) -> None:
        for index in range(5000):
            archive[f"v{index}"] = h5py.SoftLink("/rows")

    outside = h5py.ExternalLink("/etc/passwd", "rows")
    return {
        "terabytes": rows(1 << 40, 4, chunks=(64, 4)),
        "a large piece": rows(3, 2, chunks=(1 << 13, 1 << 13), maxshape=(None, None)),
        "packed zeros": rows(1 << 24, 4, chunks=(1 << 20, 4), compression="gzip"),
        "axes": rows(*[1] * 32),
        "unpacks": lambda: written(unpacks),
        "names": lambda: written(names),
        "links": lambda: written(groups),
        "elsewhere": lambda: written(lambda archive: archive.update({"rows": outside})),
        "raw file": rows(3, 2, external=[("/etc/passwd", 0, 24)]),
        "other packing": rows(3, 2, chunks=(3, 2), compression="lzf"),
    }


def image_bombs(canary: Path) -> dict[str, Bomb]:
    """Pictures larger than memory, gone over for ever, or programs."""

    def png(width: int, height: int, depth: int, colour: int, packed: bytes, *extra: tuple[bytes, bytes]) -> bytes:
        head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
        chunks = [(b"IHDR", head), *extra, (b"IDAT", packed), (b"IEND", b"")]
        return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)

    def scans() -> bytes:
        from PIL import Image

        file = io.BytesIO()
        Image.new("L", (5000, 5000), 90).save(file, "JPEG", progressive=True)
        data = file.getvalue()
        last = data.rfind(b"\xff\xda")
        return data[:last] + data[last:-2] * 1000 + data[-2:]

    def grey(side: int) -> bytes:
        return b"\x78\xda" + deflated(b"", (side // 8 + 1) * side) + bytes(4)

    def packed_text(size: int) -> bytes:
        return b"a\0\0\x78\xda" + deflated(b"", size) + bytes(4)

    run = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(%pipe%mkdir {canary}) (w) file\n%%EOF\n"
    return {
        "50,000 pixels square": lambda: png(50_000, 50_000, 1, 0, grey(50_000)),
        "12,000 pixels square": lambda: png(12_000, 12_000, 1, 0, grey(12_000)),
        "5,700 pixels square": lambda: png(5700, 5700, 1, 0, grey(5700)),
        "header alone": lambda: png(0x7FFFFFFF, 0x7FFFFFFF, 16, 6, b""),
        "text": lambda: png(9, 9, 8, 0, zlib.compress(bytes(90)), (b"zTXt", packed_text(900 << 20))),
        "profile": lambda: png(9, 9, 8, 0, zlib.compress(bytes(90)), (b"iCCP", packed_text(900 << 20))),
        "scans": scans,
        "PostScript": lambda: run.encode(),
        "SVG": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="/etc/passwd"/></svg>',
    }


def sound_bombs() -> dict[str, Bomb]:
    """Sounds that claim to be longer than any memory, or to have more channels or samples a second than there are."""

    def wave(channels: int, rate: int, claimed: int, held: bytes = bytes(64)) -> bytes:
        form = struct.pack("<HHIIHH", 1, channels, rate, (rate * channels * 2) & 0xFFFFFFFF, channels * 2 & 0xFFFF, 16)
        body = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", claimed) + held
        return b"RIFF" + struct.pack("<I", len(body)) + body

    flac = (
        struct.pack(">HH", 16, 65535)
        + bytes(6)
        + (48_000 << 44 | 7 << 41 | 15 << 36 | (1 << 36) - 1).to_bytes(8, "big")
    )
    return {
        "four gigabytes": lambda: wave(2, 44_100, 0xFFFFFFF0),
        "many channels": lambda: wave(1024, 48_000, 1 << 20, bytes(1 << 20)),
        "a sample a second": lambda: wave(1, 1, 1 << 20, bytes(1 << 20)),
        "four billion samples a second": lambda: wave(1, 0xFFFFFFFF, 64),
        "an hour of silence": lambda: wave(1, 8_000, 57_600_000, bytes(57_600_000)),
        "endless FLAC": lambda: b"fLaC\x80\0\0\x22" + flac + bytes(16) + bytes(4096),
    }


def clip_bombs(canary: Path) -> dict[str, Bomb]:
    """Lists of other files and addresses, which FFmpeg knows how to follow, and frames larger than memory."""

    def large(side: int) -> bytes:
        return (
            b"GIF89a"
            + struct.pack("<HH", side, side)
            + b"\x80\0\0"
            + bytes(6)
            + (b"," + struct.pack("<HHHH", 0, 0, side, side) + b"\0\x02\x02\x44\x01\0;")
        )

    lines = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n"
    return {
        "HLS": lambda: lines.format(canary).encode(),
        "HLS by address": lambda: lines.format("http://127.0.0.1:9/a.ts").encode(),
        "concat": lambda: f"ffconcat version 1.0\nfile '{canary}'\n".encode(),
        "SDP": lambda: b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n",
        "65,535 pixels square": lambda: large(65_535),
        "5,700 pixels square": lambda: large(5_700),
    }
