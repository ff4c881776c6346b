"""torch.save files: real fixtures, hand-written ones in both layouts, and pickles that try to run something."""

import io
import os
import pickle
import random
import re
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from fuzz import bombs

from mocme_jax.data.features.feature_files import read_feature_file
from mocme_jax.data.readers import torch_features
from mocme_jax.data.readers.torch_file import read_state_dict
from mocme_jax.errors import UserError

FIXTURES = Path(__file__).parent / "fixtures"
STORAGES = {
    "f4": "FloatStorage",
    "f8": "DoubleStorage",
    "f2": "HalfStorage",
    "i8": "LongStorage",
    "u1": "ByteStorage",
}


def read_torch(path: Path) -> np.ndarray:
    return torch_features.read_torch(path)["rows"]


class Global:
    """Pickled as a bare reference to ``module.name``, called with arguments if it has any; nothing is imported."""

    def __init__(self, module: str, name: str):
        self.module, self.name = module, name


class Call:
    def __init__(self, target: Global, *arguments):
        self.target, self.arguments = target, arguments


class Storage:
    def __init__(self, values: np.ndarray, key: str = "0", kind: str = ""):
        self.values, self.key, self.kind = values, key, kind or STORAGES[values.dtype.str[1:]]


def dump(value) -> bytes:
    """A protocol-2 pickle, opcode by opcode, of the few things that torch.save writes."""
    return b"\x80\x02" + body(value) + b"."


def body(value) -> bytes:
    if isinstance(value, Global):
        return b"c" + f"{value.module}\n{value.name}\n".encode()
    if isinstance(value, Call):
        return body(value.target) + body(tuple(value.arguments)) + b"R"
    if isinstance(value, Storage):
        identity = ("storage", Global("torch", value.kind), value.key, "cpu", len(value.values))
        return body((*identity, None) if value.key.startswith("old") else identity) + b"Q"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(body, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(body, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(body(key) + body(item) for key, item in value.items()) + b"u"
    return pickle.dumps(value, 2)[2:-1]


def tensor(values: np.ndarray, storage: Storage | None = None, offset: int = 0, strides: tuple | None = None) -> Call:
    storage = storage or Storage(values.ravel())
    strides = strides or tuple(int(step) // values.itemsize for step in np.ascontiguousarray(values).strides)
    hooks = Call(Global("collections", "OrderedDict"))
    target = Global("torch._utils", "_rebuild_tensor_v2")
    return Call(target, storage, offset, tuple(values.shape), strides, False, hooks)


def write_zip(path: Path, value, storages: dict[str, bytes], **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", value if isinstance(value, bytes) else dump(value))
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data)
        for name, data in members.items():
            archive.writestr(f"archive/{name}", data)
    return path


def write_legacy(path: Path, value, key: str, values: np.ndarray, count: int | None = None) -> Path:
    system = {
        "protocol_version": 1001,
        "little_endian": True,
        "type_sizes": {"short": 2, "int": 4, "long": 4},
    }
    head = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, system)]
    tail = pickle.dumps([key], 2) + struct.pack("<q", len(values) if count is None else count)
    data = value if isinstance(value, bytes) else dump(value)
    path.write_bytes(b"".join(head) + data + tail + values.tobytes())
    return path


MATRIX = np.arange(12, dtype=np.float32).reshape(4, 3) / 8


def test_real_file_of_todays_layout():
    rows = read_torch(FIXTURES / "tensor.pth")
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, [[0, 0.25], [0.5, 0.75], [1, 1.25]])


def test_real_file_of_the_old_layout_bfloat16_transposed_in_a_dict():
    rows = read_torch(FIXTURES / "legacy_bfloat16.pt")
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, [[0, 0.75], [0.25, 1], [0.5, 1.25]])


@pytest.mark.parametrize("name", ["sparse.pth", "embedding.pth", "vectors.pth", "legacy_vectors.pt"])
def test_real_files_of_other_than_a_matrix(name):
    """Written by torch 2.14: matrix.to_sparse(), an nn.Embedding, and a dict of one vector per name."""
    modality = read_feature_file(FIXTURES / name, "image", ["a", "b", "c"])
    np.testing.assert_array_equal(modality.features, [[0, 0.25], [0.5, 0.75], [1, 1.25]])
    assert modality.present.all()


@pytest.mark.parametrize("kind", STORAGES)
@pytest.mark.parametrize("layout", ["zip", "legacy"])
def test_types(tmp_path, kind, layout):
    values = (MATRIX * 8).astype(kind)
    if layout == "zip":
        path = write_zip(tmp_path / "a.pth", tensor(values), {"0": values.tobytes()})
    else:
        path = write_legacy(tmp_path / "a.pth", tensor(values, Storage(values.ravel(), "old1")), "old1", values.ravel())
    rows = read_torch(path)
    assert rows.dtype == np.dtype(kind)
    np.testing.assert_array_equal(rows, values)


def test_offset_and_strides(tmp_path):
    base = np.arange(60, dtype=np.float32)
    wanted = base.reshape(6, 10)[1:5:2, 2:9:3]
    view = tensor(wanted, Storage(base), offset=12, strides=(20, 3))
    np.testing.assert_array_equal(read_torch(write_zip(tmp_path / "a.pth", view, {"0": base.tobytes()})), wanted)


def test_big_endian_zip(tmp_path):
    data = MATRIX.astype(">f4").tobytes()
    path = write_zip(tmp_path / "a.pth", tensor(MATRIX), {"0": data}, byteorder=b"big")
    np.testing.assert_array_equal(read_torch(path), MATRIX)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda value: value,
        lambda value: [value],
        lambda value: {"epoch": 3, "model": {"weight": value}},
        lambda value: Call(
            Global("torch._utils", "_rebuild_parameter"),
            value,
            True,
            Call(Global("collections", "OrderedDict")),
        ),
    ],
    ids=["tensor", "list", "dicts", "parameter"],
)
def test_one_tensor_in_a_container(tmp_path, wrap):
    path = write_zip(tmp_path / "a.pth", wrap(tensor(MATRIX)), {"0": MATRIX.tobytes()})
    np.testing.assert_array_equal(read_torch(path), MATRIX)


def test_several_tensors_are_refused_by_name(tmp_path):
    value = {"weight": tensor(MATRIX), "bias": tensor(MATRIX[:1], Storage(MATRIX[0], "1"))}
    with pytest.raises(UserError, match=r"contains 2 tensors \(weight, bias\)"):
        read_torch(write_zip(tmp_path / "a.pth", value, {"0": MATRIX.tobytes(), "1": MATRIX[0].tobytes()}))


def vectors_of(array: np.ndarray, key: str = "v") -> tuple[list, dict[str, bytes]]:
    """A tensor per row, each with a storage of its own."""
    storages = {f"{key}{index}": row.tobytes() for index, row in enumerate(array)}
    return [tensor(row, Storage(row.ravel(), name)) for name, row in zip(storages, array, strict=True)], storages


def sparse(array: np.ndarray, layout: str = "torch.sparse_coo", **changes) -> tuple[Call, dict[str, bytes]]:
    """What torch.save makes of a sparse tensor, by torch/_tensor.py and torch/serialization.py."""
    places = changes.get("places", np.stack(np.nonzero(array)))
    values = changes.get("values", array[np.nonzero(array)])
    size = Call(Global("torch", "Size"), changes.get("size", array.shape))
    parts = (tensor(places, Storage(places.ravel(), "i")), tensor(values, Storage(values, "v")), size, True)
    kind = Call(Global("torch.serialization", "_get_layout"), layout)
    storages = {"i": places.tobytes(), "v": values.tobytes()}
    return Call(Global("torch._utils", "_rebuild_sparse_tensor"), kind, parts), storages


def module(name: str, state: dict, source: str = "") -> bytes:
    """The pickle of a whole module: an object that is made without arguments and given its attributes.

    The layout before torch 1.6 keeps the source code of its class as well.
    """
    kind = body(Global(*name.rsplit(".", 1)))
    if source:
        kind = b"(" + body("module") + kind + body("sparse.py") + body(source) + b"tQ"
    return b"\x80\x02" + kind + b")\x81" + body(state) + b"b."


def embedding(weight: Call, source: str = "") -> bytes:
    parameter = Call(Global("torch._utils", "_rebuild_parameter"), weight, True, {})
    empty = Call(Global("__builtin__", "set"), [])
    state = {
        "training": True,
        "_parameters": {"weight": parameter},
        "_buffers": {},
        "_non_persistent_buffers_set": empty,
    }
    return module(
        "torch.nn.modules.sparse.Embedding", state | {"_modules": {}, "num_embeddings": 4, "padding_idx": None}, source
    )


def test_a_sparse_tensor(tmp_path):
    value, storages = sparse(MATRIX)
    np.testing.assert_array_equal(read_torch(write_zip(tmp_path / "a.pth", value, storages)), MATRIX)
    # What was not added up by torch is added up here.
    twice, storages = sparse(MATRIX, places=np.array([[1, 1, 3], [0, 0, 2]]), values=np.array([1, 2, 5], np.float32))
    rows = read_torch(write_zip(tmp_path / "a.pth", {"features": twice}, storages))
    assert rows.tolist() == [[0, 0, 0], [3, 0, 0], [0, 0, 0], [0, 0, 5]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": "torch.sparse_csr"}, r"a sparse tensor of the layout torch\.sparse_csr; only plain .*x\.to_dense"),
        ({"size": (1 << 40, 3)}, "for which the file contains"),
        ({"size": (2, 3)}, "an unsupported layout; save tensor.to_dense"),
        ({"places": np.array([[0], [-1]]), "values": np.ones(1, np.float32)}, "an unsupported layout"),
        ({"places": np.array([[0, 1]]), "values": np.ones(2, np.float32)}, "an unsupported layout"),
    ],
)
def test_bad_sparse_tensors(tmp_path, changes, message):
    value, storages = sparse(MATRIX, **changes)
    with pytest.raises(UserError, match=message):
        read_torch(write_zip(tmp_path / "a.pth", value, storages))


def test_an_embedding_as_a_module_and_as_a_state_dict(tmp_path):
    for value in (embedding(tensor(MATRIX)), {"weight": tensor(MATRIX)}):
        np.testing.assert_array_equal(read_torch(write_zip(tmp_path / "a.pth", value, {"0": MATRIX.tobytes()})), MATRIX)
    other = module("torch.nn.modules.linear.Linear", {"_parameters": {"weight": tensor(MATRIX)}})
    with pytest.raises(
        UserError, match=r"refused, because its pickle asks for torch\.nn\.modules\.linear\.Linear; only plain"
    ):
        read_torch(write_zip(tmp_path / "a.pth", other, {"0": MATRIX.tobytes()}))


def test_an_embedding_in_the_old_layout(tmp_path):
    weight = tensor(MATRIX, Storage(MATRIX.ravel(), "old1"))
    path = write_legacy(tmp_path / "a.pt", embedding(weight, "class Embedding(Module): ..."), "old1", MATRIX.ravel())
    np.testing.assert_array_equal(read_torch(path), MATRIX)


def test_no_object_but_an_embedding_is_made(tmp_path):
    held = module("collections.OrderedDict", {"_parameters": {"weight": tensor(MATRIX)}})
    with pytest.raises(UserError, match=r"asks for an object of collections\.OrderedDict; only plain tensors"):
        read_torch(write_zip(tmp_path / "a.pth", held, {"0": MATRIX.tobytes()}))


def test_a_state_dict_with_one_matrix(tmp_path):
    value = {"table.weight": tensor(MATRIX), "bias": tensor(MATRIX[0], Storage(MATRIX[0], "1"))}
    path = write_zip(tmp_path / "a.pth", value, {"0": MATRIX.tobytes(), "1": MATRIX[0].tobytes()})
    np.testing.assert_array_equal(read_torch(path), MATRIX)


@pytest.mark.parametrize("views", [False, True], ids=["own storages", "views of one matrix"])
def test_vectors_by_name_and_in_a_list(tmp_path, views):
    vectors, storages = vectors_of(MATRIX)
    if views:
        whole = Storage(MATRIX.ravel())
        vectors = [tensor(row, whole, offset=3 * place) for place, row in enumerate(MATRIX)]
        storages = {"0": MATRIX.tobytes()}
    path = write_zip(tmp_path / "image.pth", vectors, storages)
    np.testing.assert_array_equal(read_torch(path), MATRIX)
    # The third is of nobody, and moves nothing; whole numbers are the keys of a dict as well.
    for names, entities in ((["c", "a", "z", "b"], ["a", "b", "c"]), ([2, 0, 9, 1], ["0", "1", "2"])):
        write_zip(path, dict(zip(names, vectors, strict=True)), storages)
        told = []
        modality = read_feature_file(path, "image", entities, told.append)
        np.testing.assert_array_equal(modality.features, MATRIX[[1, 3, 0]])
        assert len(told) == 1


def test_matrices_of_one_row_are_vectors(tmp_path):
    vectors, storages = vectors_of(MATRIX[:, None])
    path = write_zip(tmp_path / "image.pth", vectors, storages)
    np.testing.assert_array_equal(read_torch(path), MATRIX)
    write_zip(path, dict(zip("dcba", vectors, strict=True)), storages)
    modality = read_feature_file(path, "image", ["a", "b", "c", "d"])
    np.testing.assert_array_equal(modality.features, MATRIX[::-1])


@pytest.mark.parametrize("key", ["rows", "features"])
def test_ids_beside_a_matrix_are_taken_or_asked_for(tmp_path, key):
    """Rows under another name might be read in their order, and belong to other entities."""
    ids = np.array([2, 0, 3, 1])
    value = {key: tensor(MATRIX), "ids": tensor(ids, Storage(ids, "1")), "epoch": 3}
    path = write_zip(tmp_path / "image.pth", value, {"0": MATRIX.tobytes(), "1": ids.tobytes()})
    if key == "rows":
        modality = read_feature_file(path, "image", ["a", "b", "c", "d"])
        np.testing.assert_array_equal(modality.features, MATRIX[[1, 3, 0, 2]])
    else:
        with pytest.raises(
            UserError, match=r"contains 2 tensors \(features, ids\), and one of them may contain the ids"
        ):
            read_torch(path)


def test_vectors_in_the_old_layout_that_share_a_storage(tmp_path):
    whole = Storage(MATRIX.ravel(), "old1")
    vectors = [tensor(row, whole, offset=3 * place) for place, row in enumerate(MATRIX)]
    path = write_legacy(tmp_path / "a.pt", vectors, "old1", MATRIX.ravel())
    np.testing.assert_array_equal(read_torch(path), MATRIX)


@pytest.mark.parametrize("wrap", [dict, lambda pairs: [value for _, value in pairs]], ids=["dict", "list"])
def test_names_beside_a_matrix_say_whose_rows_they_are(tmp_path, wrap):
    names = ["c", "d", "a", "b"]
    path = write_zip(
        tmp_path / "image.pth", wrap([("names", names), ("features", tensor(MATRIX))]), {"0": MATRIX.tobytes()}
    )
    modality = read_feature_file(path, "image", ["a", "b", "c", "d"])
    np.testing.assert_array_equal(modality.features, MATRIX[[2, 3, 0, 1]])
    two = {"names": names, "labels": names, "features": tensor(MATRIX)}
    with pytest.raises(UserError, match="contains 2 lists besides the tensor"):
        read_torch(write_zip(path, two, {"0": MATRIX.tobytes()}))


def test_thousands_of_vectors_by_name(tmp_path):
    rows = np.arange(6_000, dtype=np.float32).reshape(-1, 2)
    vectors, storages = vectors_of(rows)
    path = write_zip(tmp_path / "image.pth", {f"e{place}": one for place, one in enumerate(vectors)}, storages)
    modality = read_feature_file(path, "image", [f"e{place}" for place in range(3_000)][::-1])
    np.testing.assert_array_equal(modality.features, rows[::-1])


CURED = {
    "a compressed sparse matrix": (0, lambda torch: torch.tensor(MATRIX).to_sparse_csr()),
    "a view of one row": (0, lambda torch: torch.tensor(MATRIX[:1]).expand(4, 3)),
    "an array": (1, lambda torch: MATRIX),
    "lists": (1, lambda torch: MATRIX.tolist()),
    "a dict of arrays": (2, lambda torch: dict(zip("abcd", MATRIX, strict=True))),
    "a dict of lists": (2, lambda torch: dict(zip("abcd", MATRIX.tolist(), strict=True))),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state")
@pytest.mark.parametrize("held", CURED)
def test_the_cures_work(tmp_path, monkeypatch, held):
    torch = pytest.importorskip("torch")
    path, (which, make) = tmp_path / "image.pth", CURED[held]
    torch.save(make(torch), path)
    with pytest.raises(UserError, match="if you trust it, load it with torch") as caught:
        read_feature_file(path, "image", ["a", "b", "c", "d"])
    matrix, vectors = re.search(
        r"matrix with (.*) for a tensor x, .* or save vectors by name with (.*)$", str(caught.value)
    ).groups()
    x = torch.load(path, weights_only=False)
    exec(vectors if which == 2 else matrix, {"torch": torch, "path": path, "x": torch.tensor(x) if which == 1 else x})
    modality = read_feature_file(path, "image", ["a", "b", "c", "d"])
    np.testing.assert_array_equal(modality.features, MATRIX[[0] * 4] if "view" in held else MATRIX)


def test_views_that_are_more_than_the_file(tmp_path):
    large = Storage(np.zeros(1 << 18, np.float32))
    many = [tensor(large.values, large) for _ in range(1000)]
    with pytest.raises(UserError, match="its tensors are larger than the file"):
        read_torch(write_zip(tmp_path / "a.pth", many, {"0": large.values.tobytes()}))


def write_old_state_dict(path: Path, arrays: dict[str, np.ndarray], order: list[str], **counts: int) -> Path:
    """The layout before torch 1.6, the storages in the order given."""
    keys = {name: f"old{index}" for index, name in enumerate(arrays)}
    value = {name: tensor(array, Storage(array.ravel(), keys[name])) for name, array in arrays.items()}
    start = write_legacy(path, value, "", np.zeros(0, np.float32)).read_bytes()
    start = start[: -len(pickle.dumps([""], 2) + struct.pack("<q", 0))]
    parts = [struct.pack("<q", counts.get(name, arrays[name].size)) + arrays[name].tobytes() for name in order]
    path.write_bytes(start + pickle.dumps([keys[name] for name in order], 2) + b"".join(parts))
    return path


STATE = {"w.weight": MATRIX, "w.bias": np.arange(5, dtype=np.float64), "steps": np.array([7], np.int64)}


@pytest.mark.parametrize("order", [["w.weight", "w.bias", "steps"], ["steps", "w.bias", "w.weight"]])
def test_state_dicts_of_both_layouts(tmp_path, order):
    value = {name: tensor(array, Storage(array.ravel(), name)) for name, array in STATE.items()}
    new = write_zip(tmp_path / "a.pth", value, {name: array.tobytes() for name, array in STATE.items()})
    for path in (new, write_old_state_dict(tmp_path / "b.pth", STATE, order)):
        found = read_state_dict(path)
        assert list(found) == list(STATE)
        for name, array in STATE.items():
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("name", ["state_dict.pth", "legacy_state_dict.pt"])
def test_real_state_dicts(name):
    """Of a linear layer and a batch normalisation, whose count of batches has no axes."""
    found = read_state_dict(FIXTURES / name)
    norm = [f"1.{part}" for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]
    assert list(found) == ["0.weight", "0.bias", *norm]
    np.testing.assert_array_equal(found["0.weight"], [[0, 0.25], [0.5, 0.75], [1, 1.25]])
    assert [found[name].tolist() for name in ("0.bias", *norm)] == [
        *([1, 2, 3], [1, 1, 1], [0, 0, 0], [0, 0, 0], [4, 5, 6]),
        0,
    ]


def test_what_is_no_state_dict(tmp_path):
    path, data = tmp_path / "a.pth", {"0": MATRIX.tobytes()}
    one = tensor(MATRIX)
    for value in (one, [one], {}, {"a": {"b": one}}, {"a": one, "epoch": 3}, {1: one}):
        with pytest.raises(UserError, match=r"a\.pth: contains no named tensors; save one with torch\.save\(model"):
            read_state_dict(write_zip(path, value, data))
    with pytest.raises(UserError, match="two of its tensors share a storage"):
        read_state_dict(write_zip(path, {"a": one, "b": one}, data))
    with pytest.raises(UserError, match=r"refused, because its pickle asks for os\.system"):
        read_state_dict(write_zip(path, {"a": one, "b": ATTACKS["os.system"](tmp_path / "ran")}, data))
    # A thousand names for the one megabyte that is there.
    large = np.zeros(1 << 18, np.float32)
    many = {str(index): tensor(large, Storage(large, str(index))) for index in range(1000)}
    with pytest.raises(UserError, match="its tensors are larger than the file"):
        read_state_dict(write_zip(path, many, {"0": large.tobytes()}))


@pytest.mark.parametrize("order", [["w.weight", "w.bias"], ["w.weight", "w.bias", "w.bias"]])
def test_old_state_dicts_whose_storages_are_others(tmp_path, order):
    with pytest.raises(UserError, match=r"its storages are not those of 3 tensors|a storage that belongs to no tensor"):
        read_state_dict(write_old_state_dict(tmp_path / "a.pth", STATE, order))
    counted = write_old_state_dict(tmp_path / "b.pth", STATE, list(STATE), steps=2)
    with pytest.raises(UserError, match="storage of 2 elements, expected 1"):
        read_state_dict(counted)
    counted.write_bytes(write_old_state_dict(counted, STATE, list(STATE)).read_bytes()[:-1])
    with pytest.raises(UserError, match="storage old2 has 7 bytes, expected 8"):
        read_state_dict(counted)


ATTACKS = {
    "os.system": lambda mark: Call(Global("os", "system"), f"touch {mark}"),
    "posix.system": lambda mark: Call(Global("posix", "system"), f"touch {mark}"),
    "builtins.eval": lambda mark: Call(Global("builtins", "eval"), f"open({str(mark)!r}, 'w')"),
    "__builtin__.exec": lambda mark: Call(Global("__builtin__", "exec"), f"open({str(mark)!r}, 'w')"),
    "builtins.getattr": lambda mark: Call(Global("builtins", "getattr"), Global("torch", "FloatStorage"), "x"),
    "torch._utils._rebuild_qtensor": lambda mark: Call(Global("torch._utils", "_rebuild_qtensor"), 1),
    "torch.storage._load_from_bytes": lambda mark: Call(Global("torch.storage", "_load_from_bytes"), "x"),
    "collections.OrderedDict.fromkeys": lambda mark: Global("collections", "OrderedDict.fromkeys"),
}


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("layout", ["zip", "legacy", "inside a tensor"])
def test_pickles_that_would_run_something_are_refused_and_not_run(tmp_path, name, layout):
    mark = tmp_path / "ran"
    attack = ATTACKS[name](mark)
    path = tmp_path / "a.pth"
    if layout == "zip":
        write_zip(path, attack, {})
    elif layout == "legacy":
        write_legacy(path, attack, "old1", MATRIX.ravel())
    else:
        write_zip(path, {"x": tensor(MATRIX), "y": attack}, {"0": MATRIX.tobytes()})
    with pytest.raises(UserError) as caught:
        read_torch(path)
    assert f"refused, because its pickle asks for {name};" in str(caught.value)
    assert not mark.exists()


def test_the_attack_is_real(tmp_path):
    """Python's own pickle runs what the reader refuses: the tests above would notice."""
    mark = tmp_path / "ran"
    pickle.loads(dump(ATTACKS["builtins.eval"](mark)))
    assert mark.exists()


class Writes:
    """Pickled by Python itself, in whatever protocol."""

    def __init__(self, mark: Path):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_python_pickles_of_every_protocol_are_refused(tmp_path, protocol):
    mark = tmp_path / "ran"
    data = pickle.dumps(Writes(mark), protocol)
    for path in (write_zip(tmp_path / "a.pth", data, {}), tmp_path / "b.pth"):
        if path.name == "b.pth":
            path.write_bytes(data)
        with pytest.raises(UserError):
            read_torch(path)
    assert not mark.exists()


def test_calling_what_is_no_function_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"refused, because its pickle asks for a call of torch\.FloatStorage"):
        read_torch(write_zip(tmp_path / "a.pth", Call(Global("torch", "FloatStorage"), 10**12), {}))


def bad_files(folder: Path):
    data = {"0": MATRIX.tobytes()}
    path = folder / "a.pth"
    yield "no such", folder / "missing.pth", r"missing\.pth: no such file"
    path.write_bytes(b"")
    yield "empty", path, "not a file of torch.save"
    path.write_bytes(b"hello world, no tensor here")
    yield "text", path, "not a file of torch.save"
    yield "nothing", write_zip(path, {"a": 1}, {}), "contains no tensor"
    yield "storage missing", write_zip(path, tensor(MATRIX), {}), r"truncated or damaged \(no member archive/data/0\)"
    yield (
        "storage short",
        write_zip(path, tensor(MATRIX), {"0": data["0"][:-4]}),
        "storage 0 has 44 bytes, expected 48",
    )
    yield "beyond", write_zip(path, tensor(MATRIX, offset=1), data), "ends at element 12 of a storage of 12"
    yield (
        "expanded",
        write_zip(path, tensor(MATRIX, Storage(MATRIX[0, :1]), strides=(0, 0)), {"0": b"\0" * 4}),
        "12 elements over 1 ",
    )
    huge = tensor(MATRIX, Storage(MATRIX.ravel()))
    huge = Call(huge.target, huge.arguments[0], 0, (1 << 40, 1 << 20), (1, 1), False, {})
    yield "huge", write_zip(path, huge, data), "elements over 12 stored ones"
    negative = Call(huge.target, huge.arguments[0], 0, (4, 3), (-3, 1), False, {})
    yield "negative stride", write_zip(path, negative, data), "not a whole number in range"
    yield (
        "old, short",
        write_legacy(path, tensor(MATRIX, Storage(MATRIX.ravel(), "old1")), "old1", MATRIX.ravel()[:-1], 12),
        ("storage old1 has 44 bytes, expected 48"),
    )
    yield "zip of something else", write_other_zip(path), "not one of torch.save"
    write_zip(path, tensor(MATRIX), data)
    path.write_bytes(path.read_bytes()[:-30])
    yield "truncated", path, "truncated or damaged"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", dump(tensor(MATRIX)))
        archive.writestr("archive/data/0", data["0"])
    yield "compressed", path, "unsupported compression"


def write_other_zip(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<x/>")
    return path


def test_bad_files_get_one_line_that_names_the_file(tmp_path):
    for label, path, message in bad_files(tmp_path):
        with pytest.raises(UserError, match=message) as caught:
            read_torch(path)
        assert str(path) in str(caught.value), label
        assert "\n" not in str(caught.value), label


def test_a_key_cannot_lead_out_of_the_archive(tmp_path):
    (tmp_path / "secret").write_bytes(MATRIX.tobytes())
    value = tensor(MATRIX, Storage(MATRIX.ravel(), "../../secret"))
    with pytest.raises(UserError, match="no member"):
        read_torch(write_zip(tmp_path / "a.pth", value, {}))


def test_damage_anywhere_is_a_user_error_or_harmless(tmp_path):
    """Random damage must not escape as another exception, hang or crash."""
    generator = random.Random(0)
    path = tmp_path / "a.pth"
    for source in sorted(FIXTURES.glob("*.pt*")):
        whole = source.read_bytes()
        for round_ in range(300):
            data = bytearray(whole)
            if round_ % 3 == 0:
                data = data[: generator.randrange(len(data))]
            else:
                for _ in range(generator.randint(1, 3)):
                    data[generator.randrange(len(data))] = generator.randrange(256)
            path.write_bytes(data)
            try:
                matrix = read_torch(path)
            except UserError as error:
                assert str(path) in str(error)  # noqa: PT017 - a change may also leave the file readable
            else:
                assert isinstance(matrix, np.ndarray)
                assert matrix.nbytes < 1 << 20


def test_a_pickle_that_doubles_itself_ends_quickly(tmp_path):
    # 60 lists, each of the one before twice: 2 to the 60 elements for whoever walks them all.
    stream = io.BytesIO()
    stream.write(b"\x80\x02]q\x00")
    for index in range(60):
        stream.write(b"](" + b"h" + bytes([index]) + b"h" + bytes([index]) + b"eq" + bytes([index + 1]))
    stream.write(b".")
    with pytest.raises(UserError, match="nested more than"):
        read_torch(write_zip(tmp_path / "a.pth", stream.getvalue(), {}))


PICKLES = {
    "lists": "contains no tensor",
    "dicts": "contains no tensor",
    "doubling": "nested more than",
    "deep tuples": "nested more than",
    "deep lists": "nested more than",
    "marks": "nested more than",
    "shared": "contains no tensor",
    "long number": "the pickle instruction LONG4",
    "wide text": "contains no tensor",
    "axes": "differ in length, or are too long",
    "many strides": "differ in length, or are too long",
    "as long as may be": "contains no tensor",
    "longer": r"a pickle longer than 2,097,152 bytes|data\.pkl claims 4,000,005 bytes",
}


@pytest.mark.parametrize("name", PICKLES)
def test_pickles_that_make_much_of_little(tmp_path, name):
    """Each alone as the old layout, and in an archive."""
    data = bombs.pickle_bombs()[name]()
    (tmp_path / "old.pt").write_bytes(data)
    with pytest.raises(UserError, match=r"old\.pt: .*(" + PICKLES[name] + "|not one of torch.save)"):
        read_torch(tmp_path / "old.pt")
    (tmp_path / "new.pth").write_bytes(bombs.torch_zip(data))
    with pytest.raises(UserError, match=r"new\.pth: .*(" + PICKLES[name] + ")"):
        read_torch(tmp_path / "new.pth")


def test_archives_that_make_much_of_little(tmp_path):
    path = tmp_path / "a.pth"
    for make in bombs.archive_bombs("archive/data.pkl").values():
        path.write_bytes(make())
        with pytest.raises(UserError, match=r"a\.pth: (truncated or damaged|a zip archive, but not one)"):
            read_torch(path)


def test_attacks_of_the_fuzzer_are_refused_and_not_run(tmp_path):
    for attack in bombs.attacks(tmp_path / "ran"):
        for name, data in (("a.pt", attack), ("a.pth", bombs.torch_zip(attack))):
            (tmp_path / name).write_bytes(data)
            with pytest.raises(UserError, match=r"refused, because its pickle asks for|not a file of torch.save"):
                read_torch(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_the_stride_along_one_row_may_be_any_number(tmp_path):
    row = Call(tensor(MATRIX).target, Storage(MATRIX[0]), 0, (1, 3), (1 << 61, 1), False, {})
    path = write_zip(tmp_path / "a.pth", row, {"0": MATRIX[0].tobytes()})
    np.testing.assert_array_equal(read_torch(path), MATRIX[:1])


def test_counts_that_no_file_has(tmp_path):
    values, path = MATRIX.ravel(), tmp_path / "a.pt"
    identity = ("storage", Global("torch", "DoubleStorage"), "old1", "cpu", (1 << 62) - 1)

    storage = Storage(values, "old1")
    write_legacy(path, tensor(MATRIX, storage), "old1", values, (1 << 62) - 1)
    path.write_bytes(path.read_bytes().replace(body(storage), body((*identity, None)) + b"Q"))
    with pytest.raises(UserError, match="storage old1 has 48 bytes, expected 36893488147419103224"):
        read_torch(path)


def test_a_name_in_a_pickle_cannot_write_on_the_terminal(tmp_path):
    named = {"\x1b[2Jred\nweight": tensor(MATRIX), "bias": tensor(MATRIX[:1], Storage(MATRIX[0], "1"))}
    with pytest.raises(UserError) as caught:
        read_torch(write_zip(tmp_path / "a.pth", named, {"0": MATRIX.tobytes(), "1": MATRIX[0].tobytes()}))
    assert r"contains 2 tensors (\x1b[2Jred weight, bias)" in str(caught.value)
