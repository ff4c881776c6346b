"""torch.save files: real fixtures, hand-written ones in both layouts, and pickles that try to run something."""

import io
import os
import pickle
import random
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from fuzz import bombs

from mocme_jax.data.readers.torch_file import read_state_dict, read_torch
from mocme_jax.errors import UserError

FIXTURES = Path(__file__).parent / "fixtures"
STORAGES = {
    "f4": "FloatStorage",
    "f8": "DoubleStorage",
    "f2": "HalfStorage",
    "i8": "LongStorage",
    "u1": "ByteStorage",
}


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
    path.write_bytes(b"".join(head) + dump(value) + tail + values.tobytes())
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
    value = {"weight": tensor(MATRIX), "bias": tensor(MATRIX[0], Storage(MATRIX[0], "1"))}
    with pytest.raises(UserError, match=r"holds 2 tensors \(weight, bias\)"):
        read_torch(write_zip(tmp_path / "a.pth", value, {"0": MATRIX.tobytes(), "1": MATRIX[0].tobytes()}))


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
        with pytest.raises(UserError, match=r"a\.pth: no tensors by name; save one with torch\.save\(model"):
            read_state_dict(write_zip(path, value, data))
    with pytest.raises(UserError, match="two of its tensors share a storage"):
        read_state_dict(write_zip(path, {"a": one, "b": one}, data))
    with pytest.raises(UserError, match=r"refused, its pickle asks for os\.system"):
        read_state_dict(write_zip(path, {"a": one, "b": ATTACKS["os.system"](tmp_path / "ran")}, data))
    # A thousand names for the one megabyte that is there.
    large = np.zeros(1 << 18, np.float32)
    many = {str(index): tensor(large, Storage(large, str(index))) for index in range(1000)}
    with pytest.raises(UserError, match="its tensors are larger than the file"):
        read_state_dict(write_zip(path, many, {"0": large.tobytes()}))


@pytest.mark.parametrize("order", [["w.weight", "w.bias"], ["w.weight", "w.bias", "w.bias"]])
def test_old_state_dicts_whose_storages_are_others(tmp_path, order):
    with pytest.raises(UserError, match=r"its storages are not those of 3 tensors|a storage of no tensor, or one"):
        read_state_dict(write_old_state_dict(tmp_path / "a.pth", STATE, order))
    counted = write_old_state_dict(tmp_path / "b.pth", STATE, list(STATE), steps=2)
    with pytest.raises(UserError, match="storage of 2 elements, 1 announced"):
        read_state_dict(counted)
    counted.write_bytes(write_old_state_dict(counted, STATE, list(STATE)).read_bytes()[:-1])
    with pytest.raises(UserError, match="storage old2 has 7 bytes, 8 announced"):
        read_state_dict(counted)


ATTACKS = {
    "os.system": lambda mark: Call(Global("os", "system"), f"touch {mark}"),
    "posix.system": lambda mark: Call(Global("posix", "system"), f"touch {mark}"),
    "builtins.eval": lambda mark: Call(Global("builtins", "eval"), f"open({str(mark)!r}, 'w')"),
    "__builtin__.exec": lambda mark: Call(Global("__builtin__", "exec"), f"open({str(mark)!r}, 'w')"),
    "builtins.getattr": lambda mark: Call(Global("builtins", "getattr"), Global("torch", "FloatStorage"), "x"),
    "torch._utils._rebuild_sparse_tensor": lambda mark: Call(Global("torch._utils", "_rebuild_sparse_tensor"), 1),
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
    assert f"refused, its pickle asks for {name};" in str(caught.value)
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
    with pytest.raises(UserError, match=r"refused, its pickle asks for a call of torch\.FloatStorage"):
        read_torch(write_zip(tmp_path / "a.pth", Call(Global("torch", "FloatStorage"), 10**12), {}))


def bad_files(folder: Path):
    data = {"0": MATRIX.tobytes()}
    path = folder / "a.pth"
    yield "no such", folder / "missing.pth", r"missing\.pth: no such file"
    path.write_bytes(b"")
    yield "empty", path, "no file of torch.save"
    path.write_bytes(b"hello world, no tensor here")
    yield "text", path, "no file of torch.save"
    yield "nothing", write_zip(path, {"a": 1}, {}), "holds no tensor"
    yield "storage missing", write_zip(path, tensor(MATRIX), {}), r"truncated or damaged \(no member archive/data/0\)"
    yield (
        "storage short",
        write_zip(path, tensor(MATRIX), {"0": data["0"][:-4]}),
        "storage 0 has 44 bytes, 48 announced",
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
    yield "negative stride", write_zip(path, negative, data), "no whole number in range"
    yield (
        "old, short",
        write_legacy(path, tensor(MATRIX, Storage(MATRIX.ravel(), "old1")), "old1", MATRIX.ravel()[:-1], 12),
        ("storage old1 has 44 bytes, 48 announced"),
    )
    yield "zip of something else", write_other_zip(path), "none of torch.save"
    write_zip(path, tensor(MATRIX), data)
    path.write_bytes(path.read_bytes()[:-30])
    yield "truncated", path, "truncated or damaged"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", dump(tensor(MATRIX)))
        archive.writestr("archive/data/0", data["0"])
    yield "compressed", path, "compressed"


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
    "lists": "holds no tensor",
    "dicts": "holds no tensor",
    "doubling": "nested more than",
    "deep tuples": "nested more than",
    "deep lists": "nested more than",
    "marks": "nested more than",
    "shared": "holds no tensor",
    "long number": "the pickle instruction LONG4",
    "wide text": "holds no tensor",
    "axes": "differ in length, or are too long",
    "many strides": "differ in length, or are too long",
    "longer": r"a pickle longer than 262,144 bytes|data\.pkl claims 1,000,005 bytes",
}


@pytest.mark.parametrize("name", PICKLES)
def test_pickles_that_make_much_of_little(tmp_path, name):
    """Each alone as the old layout, and in an archive."""
    data = bombs.pickle_bombs()[name]()
    (tmp_path / "old.pt").write_bytes(data)
    with pytest.raises(UserError, match=r"old\.pt: .*(" + PICKLES[name] + "|none of torch.save)"):
        read_torch(tmp_path / "old.pt")
    (tmp_path / "new.pth").write_bytes(bombs.torch_zip(data))
    with pytest.raises(UserError, match=r"new\.pth: .*(" + PICKLES[name] + ")"):
        read_torch(tmp_path / "new.pth")


def test_archives_that_make_much_of_little(tmp_path):
    path = tmp_path / "a.pth"
    for make in bombs.archive_bombs("archive/data.pkl").values():
        path.write_bytes(make())
        with pytest.raises(UserError, match=r"a\.pth: (truncated or damaged|a zip archive, but none)"):
            read_torch(path)


def test_attacks_of_the_fuzzer_are_refused_and_not_run(tmp_path):
    for attack in bombs.attacks(tmp_path / "ran"):
        for name, data in (("a.pt", attack), ("a.pth", bombs.torch_zip(attack))):
            (tmp_path / name).write_bytes(data)
            with pytest.raises(UserError, match=r"refused, its pickle asks for|no file of torch.save"):
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
    with pytest.raises(UserError, match="storage old1 has 48 bytes, 36893488147419103224 announced"):
        read_torch(path)


def test_a_name_in_a_pickle_cannot_write_on_the_terminal(tmp_path):
    named = {"\x1b[2Jred\nweight": tensor(MATRIX), "bias": tensor(MATRIX[0], Storage(MATRIX[0], "1"))}
    with pytest.raises(UserError) as caught:
        read_torch(write_zip(tmp_path / "a.pth", named, {"0": MATRIX.tobytes(), "1": MATRIX[0].tobytes()}))
    assert r"holds 2 tensors (\x1b[2Jred weight, bias)" in str(caught.value)
