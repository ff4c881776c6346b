"""The readers: valid files for each, how they are changed and read, and what must hold of what is accepted."""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np

from mocme_jax.data.audit.graph_audit import audit
from mocme_jax.data.features.entity_files import entity_files, files_modality
from mocme_jax.data.features.feature_files import read_feature_file
from mocme_jax.data.features.numeric_features import numeric_modality
from mocme_jax.data.features.standardise import standardise
from mocme_jax.data.features.text_features import read_descriptions, read_labels
from mocme_jax.data.graph.graph_folder import load_graph, read_triples
from mocme_jax.data.graph.knowledge_graph import KnowledgeGraph, Modality
from mocme_jax.data.readers.torch_file import read_state_dict

from . import bombs, seeds
from .containers import (
    change_gzip,
    change_image,
    change_npy,
    change_parquet,
    change_pickle,
    change_safetensors,
    change_zip,
)
from .mutations import change_bytes, change_in_place, change_json, change_lines
from .reader import Reader, only
from .run_readers import RUN_READERS
from .seeds import Files

ENTITIES = ["a", "b", "c"]
MANY = [f"entity {index}" for index in range(5000)]


def _check_graph(graph: KnowledgeGraph) -> None:
    limits = [len(graph.entities), len(graph.relations), len(graph.entities)]
    for triples in graph.splits.values():
        assert triples.dtype == np.int32
        assert triples.ndim == 2
        assert triples.shape[1] == 3
        assert (triples >= 0).all()
        assert (triples < limits).all()
    assert len(graph.train)
    assert all(isinstance(name, str) for name in graph.entities + graph.relations)
    assert len(set(graph.entities)) == len(graph.entities)
    for modality in graph.modalities:
        _check_modality(modality, len(graph.entities))


def _check_modality(modality: Modality, height: int = len(ENTITIES)) -> None:
    assert modality.features.dtype == np.float32
    assert modality.features.ndim == 2
    assert modality.present.dtype == bool
    assert modality.present.shape == (height,)
    assert len(modality.features) == height
    assert np.isfinite(modality.features[modality.present]).all()
    # What a file has in the rows of entities without the modality reaches no model.
    assert not standardise(modality).features[~modality.present].any()


def _check_texts(texts: dict[int, str]) -> None:
    assert all(0 <= index < len(ENTITIES) and isinstance(text, str) for index, text in texts.items())
    "".join(texts.values()).encode("utf-8")


def _check_arrays(arrays: dict[str, np.ndarray]) -> None:
    assert arrays
    assert sum(array.nbytes for array in arrays.values()) < 1 << 16
    assert all(isinstance(name, str) and array.sum() is not None for name, array in arrays.items())


def _old_torch_change(rng: Random, data: bytes) -> bytes:
    """Changes one of the five pickles in a row."""
    place = 0
    for _ in range(rng.randrange(5)):
        end = data.find(b".", place)
        place = place if end < 0 else end + 1
    return data[:place] + change_pickle(rng, data[place:])


def _told(line: str) -> None:
    """What a reader tells beside what it reads: a line that a terminal may show."""
    assert line.isprintable(), repr(line)


def _read_triples(folder: Path) -> KnowledgeGraph:
    return read_triples(folder, _told)


def _media(kind: str) -> Callable[[Path], Modality]:
    return lambda folder: files_modality(kind, entity_files(folder, ENTITIES, kind)[0], len(ENTITIES))


def _read_figures(folder: Path) -> list[str]:
    from mocme_jax.measure.throughput import read_figures, setting_of

    figures = read_figures(folder / "figures.json")
    by_setting = {setting_of(row): row for row in figures["rows"]}
    return [
        f"{figures['device']} {setting} {row['rate']:,.0f} {row['unit']} {row['share']:.0%} {1 / row['rate']:.2f}"
        for setting, row in by_setting.items()
    ]


def _check_printable(lines: list[str]) -> None:
    "\n".join(lines).encode("utf-8")
    assert all(line.isprintable() for line in lines)


def _plain_change(rng: Random, data: bytes) -> bytes:
    return (change_gzip(change_lines) if data[:2] == b"\x1f\x8b" else change_lines)(rng, data)


def _graph_change(rng: Random, data: bytes) -> bytes:
    change = change_npy if data[:6] == b"\x93NUMPY" else change_zip(change_npy) if data[:2] == b"PK" else change_lines
    return change(rng, data)


def _read_graph(folder: Path) -> KnowledgeGraph:
    graph = load_graph(folder, make=("numeric",), notify=_told)
    report = audit(graph).report()
    report.encode("utf-8")
    assert all(line.isprintable() for line in report.split("\n"))
    return graph


def _features(name: str) -> Callable[[Path], Modality]:
    return lambda folder: read_feature_file(folder / name, "image", ENTITIES, _told)


READERS = {
    "openke": Reader(
        seeds.openke, change_lines, _read_triples, _check_graph, lambda _: only("entity2id.txt", bombs.text_bombs())
    ),
    "plain": Reader(
        seeds.plain, _plain_change, _read_triples, _check_graph, lambda _: only("train.txt", bombs.text_bombs())
    ),
    "mapped": Reader(
        seeds.mapped,
        _graph_change,
        _read_triples,
        _check_graph,
        lambda canary: {
            "train_triples.npy": [functools.partial(bytes, attack) for attack in bombs.attacks(canary)],
        },
    ),
    "graph": Reader(
        seeds.graph,
        _graph_change,
        _read_graph,
        _check_graph,
        lambda _: (
            only("numeric_triples.tsv", bombs.text_bombs())
            | only("entity2id.txt", bombs.text_bombs())
            | only("img_features.npz", bombs.archive_bombs("rows.npy"))
        ),
    ),
    "numeric": Reader(
        lambda: [
            {"numeric_triples.tsv": b"entity\tattribute\tvalue\nentity 0\tage\t3\nentity 1\tage\t1e3\n"},
            {"numeric_triples.tsv": b"0\tage\t3\n1\tage\t-4\n2\tsize\t0.5\n0\tage\t4\n"},
        ],
        change_lines,
        lambda folder: numeric_modality(folder / "numeric_triples.tsv", MANY, notify=_told),
        lambda modality: _check_modality(modality, len(MANY)),
        lambda _: only("numeric_triples.tsv", bombs.text_bombs()),
    ),
    "table": Reader(
        lambda: [
            {"numbers.csv": b'entity,age,size\nentity 0,3,\n"entity 1",1e3,-0.5\n'},
            {"numbers.csv": b",age\r\n0,3\r\n1,-4\r\n2,\r\n"},
            {"numbers.csv": b"place,kind,size,code\n0,town,1,x1\n1,city,,x1\n2,town,3,\n"},
        ],
        change_lines,
        lambda folder: numeric_modality(folder / "numbers.csv", MANY, notify=_told),
        lambda modality: _check_modality(modality, len(MANY)),
        lambda _: only("numbers.csv", bombs.text_bombs()),
    ),
    "labels": Reader(
        lambda: [
            {"entity_labels.tsv": b"0\tQ1\tAda\n1\tQ2\tLondon\n2\tQ3\t\n"},
            {"entity_labels.tsv": b"0\tAda\n"},
        ],
        change_lines,
        lambda folder: read_labels(folder / "entity_labels.tsv", ENTITIES, _told),
        _check_texts,
        lambda _: only("entity_labels.tsv", bombs.text_bombs()),
    ),
    "descriptions": Reader(
        lambda: [
            {"descriptions.tsv": b"a\tFirst words.\nb\tMore\na\tagain\n"},
            {"descriptions.tsv": b"0\tWords\n2\t\n"},
        ],
        change_lines,
        lambda folder: read_descriptions(folder / "descriptions.tsv", ENTITIES, _told),
        _check_texts,
        lambda _: only("descriptions.tsv", bombs.text_bombs()),
    ),
    "npy": Reader(
        seeds.npy,
        change_npy,
        _features("image.npy"),
        _check_modality,
        lambda canary: {"image.npy": [functools.partial(bytes, attack) for attack in bombs.attacks(canary)]},
    ),
    "npz": Reader(
        seeds.npz,
        change_zip(change_npy),
        _features("image.npz"),
        _check_modality,
        lambda canary: {
            "image.npz": [
                *bombs.archive_bombs("rows.npy").values(),
                *(functools.partial(_object_array, attack) for attack in bombs.attacks(canary)),
            ]
        },
    ),
    "safetensors": Reader(
        seeds.safetensors,
        change_safetensors,
        _features("image.safetensors"),
        _check_modality,
        lambda _: only("image.safetensors", bombs.safetensors_bombs()),
    ),
    "csv vectors": Reader(
        seeds.csv_vectors,
        change_lines,
        _features("image.csv"),
        _check_modality,
        lambda _: only("image.csv", bombs.text_bombs()),
    ),
    "parquet": Reader(
        seeds.parquet,
        change_parquet,
        _features("image.parquet"),
        _check_modality,
        lambda _: only("image.parquet", bombs.parquet_bombs()),
        needs="pyarrow",
    ),
    "hdf5": Reader(
        seeds.hdf5,
        change_in_place,
        _features("image.h5"),
        _check_modality,
        lambda _: only("image.h5", bombs.hdf5_bombs()),
        needs="h5py",
    ),
    "torch": Reader(
        seeds.torch,
        change_zip(change_pickle),
        _features("image.pth"),
        _check_modality,
        lambda canary: {
            "image.pth": [
                *bombs.archive_bombs("archive/data.pkl").values(),
                *(lambda make=make: bombs.torch_zip(make()) for make in bombs.pickle_bombs().values()),
                *(functools.partial(bombs.torch_zip, attack) for attack in bombs.attacks(canary)),
            ]
        },
    ),
    "old torch": Reader(
        seeds.old_torch,
        _old_torch_change,
        _features("image.pt"),
        _check_modality,
        lambda canary: {
            "image.pt": [
                *bombs.pickle_bombs().values(),
                *(functools.partial(bytes, attack) for attack in bombs.attacks(canary)),
                *(functools.partial(_after_the_head, attack) for attack in bombs.attacks(canary)),
            ]
        },
    ),
    "state dict": Reader(
        seeds.state_dict,
        lambda rng, data: (change_zip(change_pickle) if data[:2] == b"PK" else _old_torch_change)(rng, data),
        lambda folder: read_state_dict(folder / "w.pth"),
        _check_arrays,
        lambda canary: {
            "w.pth": [
                *bombs.archive_bombs("archive/data.pkl").values(),
                *bombs.pickle_bombs().values(),
                *(lambda make=make: bombs.torch_zip(make()) for make in bombs.pickle_bombs().values()),
                *(functools.partial(bytes, attack) for attack in bombs.attacks(canary)),
                *(functools.partial(bombs.torch_zip, attack) for attack in bombs.attacks(canary)),
            ],
        },
    ),
    "images": Reader(
        seeds.image,
        change_image,
        _media("image"),
        _check_modality,
        lambda canary: only("a.png", bombs.image_bombs(canary)),
    ),
    "sounds": Reader(
        seeds.sounds,
        change_in_place,
        _media("audio"),
        _check_modality,
        lambda _: {f"a.{suffix}": list(bombs.sound_bombs().values()) for suffix in ("wav", "flac")},
        needs="soundfile",
    ),
    "clips": Reader(
        seeds.clips,
        change_in_place,
        _media("video"),
        _check_modality,
        lambda canary: only("a.mp4", bombs.clip_bombs(canary)),
        needs="av",
    ),
    "figures": Reader(
        seeds.figures,
        change_json,
        _read_figures,
        _check_printable,
        lambda _: only("figures.json", bombs.json_bombs()),
    ),
}


READERS |= RUN_READERS


def _object_array(attack: bytes) -> bytes:
    return bombs.zip_of([("rows.npy", bombs.npy("'|O'", "(3, 2)", "False", attack))])


def _after_the_head(attack: bytes) -> bytes:
    """An attack where the old layout has the tensor, behind three harmless pickles."""
    data = seeds.old_torch()[0]["image.pt"]
    place = 0
    for _ in range(3):
        place = data.index(b".", place) + 1
    return data[:place] + attack


class Inputs:
    """The inputs of a reader by their seed, each a set of files."""

    def __init__(self, name: str, canary: Path):
        from .faulty import FAULTY

        self.name, self.reader = name, (READERS | FAULTY)[name]
        self.seeds = self.reader.seeds()
        self.bombs = self.reader.bombs(canary)
        # Made once: some take a second.
        self._made = functools.cache(lambda file, index: self.bombs[file][index]())

    def make_bombs(self) -> None:
        """Makes what takes long or much memory to make, so that no input has to."""
        for file, makers in self.bombs.items():
            for index in range(len(makers)):
                self._made(file, index)

    def files(self, seed: int) -> Files:
        """The files of one input: mostly a valid set with a few changes, sometimes an attack."""
        rng = Random(f"{self.name} {seed}")
        if rng.random() < 0.02:
            file = rng.choice(list(self.bombs))
            base = rng.choice([files for files in self.seeds if file in files] or self.seeds)
            files = base | {file: self._made(file, rng.randrange(len(self.bombs[file])))}
            if rng.random() < 0.6:
                return files
            return files | {file: change_bytes(rng, files[file])}
        files = dict(rng.choice(self.seeds))
        for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
            name = rng.choice(list(files))
            change = self.reader.change if rng.random() < 0.7 else change_bytes
            files[name] = change(rng, files[name])
            if rng.random() < 0.01:
                del files[name]
            if not files:
                break
        return files

    def write(self, seed: int, folder: Path) -> None:
        """Writes an input into the folder, and nothing else is there then; in one of 200 a file is none."""
        if folder.is_dir():
            shutil.rmtree(folder)
        folder.mkdir()
        for name, data in self.files(seed).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        rng = Random(f"{self.name} {seed} folder")
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        if names and rng.random() < 0.005:
            path = folder / rng.choice(names)
            path.unlink()
            rng.choice(
                (os.mkfifo, os.mkdir, lambda path: os.symlink(path, path), lambda path: os.symlink("/dev/zero", path))
            )(path)


def temporary_folder() -> Path:
    """A new folder, in memory where the machine has such."""
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory if os.access(memory, os.W_OK) else None))
