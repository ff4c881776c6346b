"""Valid files for each reader, made here: what is changed until it is malformed."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import numpy as np

Files = dict[str, bytes]
ROWS = np.array([[0, 0.25], [0.5, 0.75], [1, 1.25]], np.float32)
FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"


def openke() -> list[Files]:
    names = {
        "entity2id.txt": "4\nAda Lovelace\t0\nLondon\t1\nFranciaorsz\u00e1g\t2\n<http://x.org/resource/K%C3%B6ln>\t3\n",
        "relation2id.txt": "2\nborn in 0\nin 1\n",
    }
    splits = {
        "train2id.txt": "4\n0 1 0\n1 2 1\n0 2 0\n3 1 1\n",
        "valid2id.txt": "1\n0 1 1\n",
        "test2id.txt": "1\n2 1 1\n",
    }
    return [{name: text.encode() for name, text in {**names, **splits}.items()}]


def plain() -> list[Files]:
    names = {"entity2id.txt": b"3\na b\t0\nc\t1\n7\t2\n", "relation2id.txt": b"2\nr\t0\n1\t1\n"}
    return [
        {"train.txt": b"a b\tr\tc\nc\tr\td\n", "valid.txt": b"a b\tr\td\n", "test.txt": b"d\tr\tc\n"},
        {"train.txt": b"2\na\tr\tc\nc\tr\td\n"},
        {"train.txt.gz": gzip.compress(b"a b\tr\tc\nc\tr\td\n", mtime=0), "dev.tsv": b"a b\tr\td\n"},
        {"train.txt": b"a r c .\nc r d .\n", "test.txt": b"a r d .\n"},
        {"train.txt": b"tail\thead\trelation\n<a>\t_:c\tr\nc\td\tr\n", "test.txt": b"<a>\tr\t<d> .\n"},
        {"train.txt": b"1\t0\t2\n0\t1\t1\n", "valid.txt": b"2\t0\t0\n"},
        {"train.nt": b'# c\n<a> <r> "b \\"c\\""@en .\n_:c <r> <d>.\n', "test.nt": b'<a> <r> "1"^^<i> . # d\n'},
        {"train.del": b"0\t0\t1\n1\t0\t0\n", "entity_ids.del": b"0\t7\n1\ta b\n", "relation_ids.del": b"0\tr\n"},
        {"train.txt": b"0\t0\t1\n1\t1\t0\n", "entity2id.txt": b"a b 0\nc 1\n", "relations.txt": b"0\n1\n"},
        {"train.txt": b"a b\tr\tc\nc\t1\t7\n", **names},
        {
            "train.txt": b"2\n0\t1\t2\n1\t0\t0\n",
            "valid.txt": b"1\n2 1 0\n",
            **{**names, "entity2id.txt": b"3\na b\t0\nc\t1\nd\t2\n"},
        },
    ]


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _npz(compressed: bool, **arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


def mapped() -> list[Files]:
    names = {"entity2id.txt": b"3\na\t0\nb\t1\nc\t2\n", "relation2id.txt": b"2\nr\t0\ns\t1\n"}
    train = np.array([[0, 1, 2], [1, 0, 0]], np.int32)
    splits = {"train": train, "valid": train[:1], "test": train[:0]}
    orders = np.ascontiguousarray, np.asfortranarray
    return [names | {f"{split}_triples.npy": _npy(order(rows)) for split, rows in splits.items()} for order in orders]


def npy() -> list[Files]:
    holed = np.where([[False], [True], [False]], np.float32(np.nan), ROWS)
    arrays = [
        ROWS,
        holed.astype("<f8"),
        holed.astype(">f2"),
        np.asfortranarray(ROWS),
        np.ones((3, 5), np.int16),
        ROWS > 0,
    ]
    return [{"image.npy": _npy(array)} for array in arrays]


def npz() -> list[Files]:
    ids, names = np.array([2, 0]), np.array(["c", "a"])
    made = [
        *(_npz(packed, ids=ids, rows=ROWS[[2, 0]]) for packed in (False, True)),
        *(_npz(True, rows=ROWS), _npz(False, ids=names, rows=ROWS[[2, 0]], made_by=np.array("a é"))),
        _npz(True, rows=ROWS, present=np.array([True, False, True])),
    ]
    return [{"image.npz": data} for data in made]


def safetensors() -> list[Files]:
    from safetensors.numpy import save

    made = [
        save({"rows": ROWS}, {"made": "by hand"}),
        save({"ids": np.array([2, 0]), "rows": ROWS[[2, 0]].astype(np.float16)}),
        save({"rows": ROWS, "present": np.array([True, False, True])}),
        (57).to_bytes(8, "little") + b'{"x":{"dtype":"BF16","shape":[3,1],"data_offsets":[0,6]}}' + bytes(6),
    ]
    return [{"image.safetensors": data} for data in made]


def csv_vectors() -> list[Files]:
    tables = (
        *(b"entity,x,y\nc,1,1.25\na,0,.25\n", b"a,0,0.25\nc,1,1.25\n", b",0,1\nb,,\na,0,.25\nc,1,1.25\nz,7,7\n"),
        *(b'"a","0","0.25"\r\n"c",1,1.25e0\r\n', b"0,0,0.25\n2,1,1.25\n"),
    )
    return [{"image.csv": table} for table in tables]


def parquet() -> list[Files]:
    import pyarrow
    from pyarrow.parquet import write_table

    tables = (
        {"entity": ["c", "a"], "x": [1.0, 0.0], "y": [1.25, 0.25]},
        {"entity": [2, 0], "x": [1, 0], "y": [True, False]},
        {"entity": ["c", "a", "z"], "vector": [[1.0, 1.25], None, [7.0, 7.0]]},
        {"x": [1.0, 0.0], "name": pyarrow.array(["c", "a"]).dictionary_encode()},
        {"entity": ["a", "c"], "vector": pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(ROWS[:2].ravel()), 2)},
    )
    made = []
    for table in tables:
        for options in ({}, {"compression": "none", "use_dictionary": False, "row_group_size": 1}):
            file = io.BytesIO()
            write_table(pyarrow.table(table), file, **options)
            made.append({"image.parquet": file.getvalue()})
    return made


def hdf5() -> list[Files]:
    import h5py

    packed = {"chunks": (2, 1), "compression": "gzip", "shuffle": True}
    forms = (
        ({"rows": ROWS}, {}, "earliest"),
        ({"ids": ["c", "a"], "rows": ROWS[:2]}, {}, "earliest"),
        ({"ids": np.array(["c", "a"], "S"), "rows": ROWS[:2]}, packed, "earliest"),
        ({"ids": np.array([2, 0]), "rows": ROWS[:2].astype(">f8")}, packed, "latest"),
        ({"rows": ROWS, "present": np.array([True, False, True])}, {"chunks": (2, 2)}, "latest"),
        ({"a": ROWS[0], "c": ROWS[1], "z": ROWS[2]}, {}, "latest"),
    )
    made = []
    for arrays, options, version in forms:
        file = io.BytesIO()
        with h5py.File(file, "w", libver=version) as archive:
            for name, array in arrays.items():
                archive.create_dataset(name, data=array, **(options if np.ndim(array) == 2 else {}))
        made.append({"image.h5": file.getvalue()})
    return made


def torch() -> list[Files]:
    names = ("tensor.pth", "sparse.pth", "embedding.pth", "vectors.pth")
    return [{"image.pth": (FIXTURES / name).read_bytes()} for name in names]


def old_torch() -> list[Files]:
    return [{"image.pt": (FIXTURES / name).read_bytes()} for name in ("legacy_bfloat16.pt", "legacy_vectors.pt")]


def state_dict() -> list[Files]:
    return [{"w.pth": (FIXTURES / name).read_bytes()} for name in ("state_dict.pth", "legacy_state_dict.pt")]


def image() -> list[Files]:
    from PIL import Image

    rng = np.random.default_rng(0)
    pixels = Image.fromarray(rng.integers(0, 256, (24, 31, 4), np.uint8), "RGBA")
    forms = [
        *(("a.png", "RGBA", {}), ("a.png", "P", {}), ("a.png", "1", {}), ("a.png", "LA", {}), ("a.bmp", "RGB", {})),
        *(("a.jpg", "RGB", {}), ("a.jpg", "CMYK", {}), ("a.jpg", "L", {"progressive": True}), ("a.gif", "P", {})),
        *(("a.webp", "RGBA", {}), ("a.webp", "RGB", {"lossless": True}), ("a.tif", "RGB", {"compression": "tiff_lzw"})),
        *(("a.tif", "L", {}), ("a.tiff", "RGB", {"compression": "jpeg"}), ("a.tif", "1", {"compression": "group4"})),
    ]
    made = []
    for name, mode, options in forms:
        file = io.BytesIO()
        kind = {"jpg": "JPEG", "tif": "TIFF", "tiff": "TIFF"}.get(name[2:], name[2:].upper())
        pixels.convert(mode).save(file, kind, **options)
        made.append({name: file.getvalue()})
    return made


def sounds() -> list[Files]:
    import soundfile

    samples = np.sin(np.arange(1600) / 7)
    made: list[Files] = []
    for suffix in ("wav", "flac", "ogg", "mp3", "aiff"):
        file = io.BytesIO()
        soundfile.write(file, np.stack([samples, -samples], axis=1), 8000, format=suffix)
        made.append({f"a.{suffix}": file.getvalue()})
    return made


def clips() -> list[Files]:
    import av

    made: list[Files] = []
    for suffix, codec, pixels in (
        ("mp4", "mpeg4", "yuv420p"),
        ("mkv", "mjpeg", "yuvj420p"),
        ("avi", "mpeg4", "yuv420p"),
        ("mpg", "mpeg1video", "yuv420p"),
        ("webm", "libvpx", "yuv420p"),
        ("gif", "gif", "rgb8"),
    ):
        file = io.BytesIO()
        kind = {"mkv": "matroska", "mpg": "mpeg"}.get(suffix, suffix)
        with av.open(file, "w", format=kind) as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 32, 32, pixels
            for place in range(5):
                picture = np.full((32, 32, 3), 50 * place, np.uint8)
                container.mux(
                    stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixels))
                )
            container.mux(stream.encode())
        made.append({f"a.{suffix}": file.getvalue()})
    return made


def figures() -> list[Files]:
    row = {"stage": "train", "devices": 1, "mapper": "pmap", "precision": "float32", "rate": 10.5, "unit": "triples/s"}
    figures = {"device": "cpu", "rows": [row | {"share": 0.5}, row | {"share": 0.25, "stage": "encode", "rate": 3}]}
    return [{"figures.json": json.dumps(figures, indent=1).encode()}]


def graph() -> list[Files]:
    # All that a folder may hold, as `audit` and `train` read it.
    numbers = b"0\theight\t1.5\n1\theight\t2\n2\theight\t3e2\n0\tage\t7\n"
    four = {"audio.npy": _npy(np.ones((4, 2), np.float32)), "img_features.npz": _npz(True, rows=np.ones((4, 3)))}
    return [files | four | {"numeric_triples.tsv": numbers} for files in openke()]
