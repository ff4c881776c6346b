"""Reads the pickle inside a ``torch.save`` file as data, never as a program.

A pickle is a program for a stack machine that may call any function. This machine knows the few instructions that
tensors, numbers, strings and containers need; it looks nothing up and calls nothing. The only globals it accepts
rebuild tensors into the descriptions below. Anything else is refused by name.
"""

import dataclasses
import io
import mmap
import pickletools
from typing import Any, BinaryIO

from mocme_jax.data.readers.bounded_files import MOST_AXES, Damaged, whole_number

STORAGE_TYPES = {
    "torch DoubleStorage": "f8",
    "torch FloatStorage": "f4",
    "torch HalfStorage": "f2",
    "torch BFloat16Storage": "bf16",
    "torch LongStorage": "i8",
    "torch IntStorage": "i4",
    "torch ShortStorage": "i2",
    "torch CharStorage": "i1",
    "torch ByteStorage": "u1",
    "torch BoolStorage": "?",
}
_REBUILD_TENSOR = {"torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor"}
_REBUILD_PARAMETER = "torch._utils _rebuild_parameter"
_REBUILD_SPARSE = "torch._utils _rebuild_sparse_tensor"
_LAYOUT = "torch.serialization _get_layout"
_SIZE = "torch Size"
_ORDERED_DICT = "collections OrderedDict"
_SETS = {"__builtin__ set", "builtins set"}
_EMBEDDING = "torch.nn.modules.sparse Embedding"
_ALLOWED = {*STORAGE_TYPES, *_REBUILD_TENSOR, *_SETS, _REBUILD_PARAMETER, _REBUILD_SPARSE, _LAYOUT, _SIZE}
_ALLOWED |= {_ORDERED_DICT, _EMBEDDING}


class Refused(Exception):
    """The pickle asks for something that no plain tensor needs; the message names it."""


@dataclasses.dataclass(frozen=True)
class Storage:
    """Where a tensor's numbers lie: a NumPy type code (or ``bf16``), a key in the file, a number of elements."""

    kind: str
    key: str
    count: int


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """A strided view of a storage; offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class SparseTensor:
    """The values of a tensor and their places: ``indices`` int64 ``[axes, n]``, ``values`` ``[n]``."""

    indices: Tensor
    values: Tensor
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class _Global:
    name: str


class _Module(dict):
    """The parameters of a module, by name."""


# A tensor's pickle takes some 120 bytes: 17,000 vectors by name fit. An empty list is one byte in a pickle and eighty
# in memory, and each instruction takes a microsecond.
LARGEST = 1 << 21

_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NEW = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_PUSH = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES"),
}
_NAMES = {
    *_PUSH,
    *_CONSTANTS,
    *_NEW,
    *("PROTO", "FRAME", "STOP", "MARK", "BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET"),
    *("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "APPEND", "APPENDS", "SETITEM", "SETITEMS"),
    *("GLOBAL", "STACK_GLOBAL", "BINPERSID", "REDUCE", "NEWOBJ", "BUILD"),
}
# The names of a global are read here: pickletools would decode escapes in them.
_READERS = {
    opcode.code.encode("latin-1"): (opcode.name, opcode.arg.reader if opcode.arg and opcode.name != "GLOBAL" else None)
    for opcode in pickletools.opcodes
    if opcode.name in _NAMES
}


def load(stream: BinaryIO | mmap.mmap, largest: int | None = None) -> Any:
    """Reads one pickle from the stream, up to and with its last instruction, of at most ``largest`` bytes.

    Returns:
      Numbers, strings, containers, and Tensor for each tensor.

    Raises:
      Refused: the pickle names or does anything else.
      Damaged: the bytes are no pickle, break off, or are more than ``largest``; by default LARGEST.
    """
    largest = largest or LARGEST
    start = stream.tell()
    # A window, so that no argument can claim what lies behind it.
    window = io.BytesIO(stream.read(largest))
    try:
        value = _run(window)
    except (IndexError, KeyError, TypeError, AttributeError, ValueError, OverflowError, EOFError) as error:
        if len(window.getbuffer()) == largest:
            raise Damaged(f"a pickle longer than {largest:,} bytes, or malformed") from None
        raise Damaged(f"malformed pickle ({type(error).__name__})") from None
    stream.seek(start + window.tell())
    return value


def _run(stream: io.BytesIO) -> Any:
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def pop_to_mark() -> list[Any]:
        for position in range(len(stack) - 1, -1, -1):
            if stack[position] is _MARK:
                items = stack[position + 1 :]
                del stack[position:]
                return items
        raise Damaged("malformed pickle (no mark)")

    for code in iter(lambda: stream.read(1), b""):
        if code not in _READERS:
            unknown = pickletools.code2op.get(code.decode("latin-1"))
            raise Refused(f"the pickle instruction {unknown.name if unknown else f'0x{code.hex()}'}")
        name, reader = _READERS[code]
        argument = None if reader is None else reader(stream)
        if name in ("PROTO", "FRAME"):
            continue
        if name == "STOP":
            return stack.pop()
        if name in _PUSH:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _NEW:
            stack.append(_NEW[name]())
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "TUPLE":
            stack.append(tuple(pop_to_mark()))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            items = [stack.pop() for _ in range(int(name[-1]))]
            stack.append(tuple(reversed(items)))
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else pop_to_mark()
            _expect(stack[-1], list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = [stack.pop(), stack.pop()][::-1] if name == "SETITEM" else pop_to_mark()
            # Simple keys only: the hash of a tuple of tuples of tuples can take for ever.
            if not all(isinstance(key, (str, int, float)) for key in items[::2]):
                raise Refused("a dict whose keys are neither words nor numbers")
            _expect(stack[-1], dict).update(zip(items[::2], items[1::2], strict=True))
        elif name == "GLOBAL":
            stack.append(_global(f"{_name(stream)} {_name(stream)}"))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(_global(f"{_expect(module, str)} {_expect(attribute, str)}"))
        elif name == "BINPERSID":
            stack.append(_persistent(stack.pop()))
        elif name == "REDUCE":
            arguments, target = stack.pop(), stack.pop()
            stack.append(_rebuild(target, arguments))
        elif name == "NEWOBJ":
            arguments, target = stack.pop(), stack.pop()
            if _expect(target, _Global).name != _EMBEDDING or arguments != ():
                raise Refused(f"an object of {target.name.replace(' ', '.')}")
            stack.append(_Module())
        else:
            # BUILD. Attributes (a state dict's _metadata) carry no numbers but for a module's parameters.
            state = stack.pop()
            if isinstance(stack[-1], _Module):
                stack[-1].update(_expect(_expect(state, dict)["_parameters"], dict))
    raise EOFError


def _expect(value: Any, kind: type | tuple[type, ...]) -> Any:
    if not isinstance(value, kind):
        raise Damaged(f"malformed pickle (a {type(value).__name__} in the wrong place)")
    return value


def _name(stream: io.BytesIO) -> str:
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    return line[:-1].decode("ascii")


def _global(name: str) -> _Global:
    if name not in _ALLOWED:
        raise Refused(name.replace(" ", ".")[:80])
    return _Global(name)


def _persistent(identity: Any) -> Storage | _Global:
    # The old layout keeps the source code of a module's class beside its name; it is not looked at.
    if isinstance(identity, tuple) and len(identity) == 4 and identity[0] == "module":
        return _expect(identity[1], _Global)
    kind = identity[1] if isinstance(identity, tuple) and len(identity) in (5, 6) else None
    if not isinstance(kind, _Global) or kind.name not in STORAGE_TYPES or identity[0] != "storage":
        raise Refused("a persistent object that is not a tensor storage")
    if len(identity) == 6 and identity[5] is not None:
        raise Refused("a view of a storage (written by torch 0.3 or older)")
    count = whole_number(identity[4], "a count")
    return Storage(STORAGE_TYPES[kind.name], _expect(identity[2], str), count)


def _rebuild(target: Any, arguments: Any) -> Any:
    name = _expect(target, _Global).name
    arguments = _expect(arguments, tuple)
    if name in _REBUILD_TENSOR:
        storage, offset, *lengths = arguments[:4]
        shape, strides = (tuple(map(whole_number, _expect(part, (tuple, list)))) for part in lengths)
        if len(shape) != len(strides) or len(shape) > MOST_AXES:
            raise Damaged("malformed tensor (shape and strides differ in length, or are too long)")
        return Tensor(_expect(storage, Storage), whole_number(offset, "an offset"), shape, strides)
    if name == _REBUILD_PARAMETER:
        return _expect(arguments[0], Tensor)
    if name == _REBUILD_SPARSE:
        layout, (indices, values, size, *_) = arguments
        if layout != "torch.sparse_coo":
            raise Refused(f"a sparse tensor of the layout {str(layout)[:40]}")
        size = tuple(map(whole_number, _expect(size, (tuple, list))))
        return SparseTensor(_expect(indices, Tensor), _expect(values, Tensor), size)
    if name in (_LAYOUT, _SIZE) and len(arguments) == 1:
        return arguments[0]
    if name in _SETS:
        # Of names that no tensor has; what is in it is not looked at.
        return ()
    if name == _ORDERED_DICT and not arguments:
        return {}
    raise Refused(f"a call of {name.replace(' ', '.')}")
