"""The features in a ``torch.save`` file: which of its tensors they are, and whose rows.

Read are a matrix, also sparse or a parameter, in containers that have no other; the weight of an ``nn.Embedding``, also
in a state dict; a matrix beside the one list of as many names; vectors by name; and a list of vectors.
"""

from pathlib import Path
from typing import Any

import numpy as np

from mocme_jax.data.readers.bounded_files import Damaged, claimed_count
from mocme_jax.data.readers.inert_pickle import SparseTensor, Tensor
from mocme_jax.data.readers.torch_file import read_tensors
from mocme_jax.data.readers.zip_archive import INFLATED, RATIO
from mocme_jax.errors import UserError

_DEEPEST = 8
_MAY_HOLD = (Tensor, SparseTensor, dict, list, tuple)
_CURE = (
    "if you trust it, load it with torch; then save a matrix with torch.save(x.to_dense().contiguous(), path) for a "
    "tensor x, such as the weight of a module or torch.tensor(array), or save vectors by name with "
    "torch.save({name: torch.tensor(vector) for name, vector in x.items()}, path)"
)


def read_torch(path: Path) -> dict[str, list[str] | np.ndarray]:
    """The features as ``rows``, with ``ids`` where the file names their entities.

    Raises:
      UserError: the file holds no features or several, or see read_tensors.
    """
    found = _Found(path)
    arrays = read_tensors(path, found.choose, _CURE)
    if found.sparse is not None:
        return found.named | {"rows": _dense(path, found.sparse.shape, arrays["indices"], arrays["values"])}
    if found.are_vectors:
        return found.named | {"rows": np.stack([vector.reshape(-1) for vector in arrays.values()])}
    return found.named | arrays


class _Found:
    """What a file's features are: a matrix, perhaps sparse, or vectors; and the names that the file gives them."""

    def __init__(self, path: Path):
        self.path = path
        self.named: dict[str, list[str] | np.ndarray] = {}
        self.sparse: SparseTensor | None = None
        self.are_vectors = False

    def choose(self, _: Path, root: Any) -> dict[str, Tensor]:
        """The tensors to read."""
        if _are_vectors(root):
            self.are_vectors = True
            if isinstance(root, dict):
                self.named["ids"] = list(map(str, root))
            return {str(place): tensor for place, tensor in enumerate(root.values() if self.named else root)}
        stated = {key: root[key] for key in ("rows", "ids", "present") if key in root} if isinstance(root, dict) else {}
        if "rows" in stated and len(stated) > 1 and all(isinstance(value, Tensor) for value in stated.values()):
            return stated
        tensors = _tensors(self.path, root)
        matrices = [pair for pair in tensors if len(pair[1].shape) == 2]
        if not tensors:
            raise UserError(f"{self.path}: contains no tensor; {_CURE}")
        names = ", ".join(name for name, _ in tensors[:8]) + (", ..." if len(tensors) > 8 else "")
        if len(tensors) > 1 and len(matrices) != 1:
            raise UserError(f"{self.path}: contains {len(tensors)} tensors ({names}); save only the one you need")
        ((_, tensor),) = matrices or tensors
        if any(_may_be_ids(other, tensor) for _, other in tensors):
            raise UserError(
                f"{self.path}: contains {len(tensors)} tensors ({names}), and one of them may contain the ids; save "
                "only the matrix, or torch.save({'rows': matrix, 'ids': ids}, path)"
            )
        self._take_names(root, tensor)
        if isinstance(tensor, SparseTensor):
            self.sparse = tensor
            return {"indices": tensor.indices, "values": tensor.values}
        return {"rows": tensor}

    def _take_names(self, root: Any, matrix: Tensor | SparseTensor) -> None:
        lists = root.values() if isinstance(root, dict) else root if isinstance(root, (list, tuple)) else ()
        lists = [part for part in lists if isinstance(part, (list, tuple)) and len(part) == matrix.shape[0]]
        named = [names for names in lists if names and all(isinstance(name, (str, int)) for name in names)]
        if len(named) > 1:
            raise UserError(
                f"{self.path}: contains {len(named)} lists besides the tensor, and each may contain the names of its "
                "rows; keep only the list of entities"
            )
        if named:
            self.named["ids"] = list(map(str, named[0]))


def _is_tensor(value: Any) -> bool:
    return isinstance(value, (Tensor, SparseTensor))


def _may_be_ids(tensor: Tensor | SparseTensor, matrix: Tensor | SparseTensor) -> bool:
    return isinstance(tensor, Tensor) and tensor.storage.kind[0] in "iu" and tensor.shape == matrix.shape[:1]


def _are_vectors(root: Any) -> bool:
    """Whether these are two tensors or more, each a vector or a matrix of one row, all of one length."""
    values = list(root.values()) if isinstance(root, dict) else root if isinstance(root, (list, tuple)) else []
    if len(values) < 2 or not all(isinstance(value, Tensor) for value in values):
        return False
    shapes = {value.shape for value in values}
    return len(shapes) == 1 and min(shapes)[:-1] in ((), (1,)) and min(shapes) != ()


def _tensors(path: Path, root: Any) -> list[tuple[str, Any]]:
    """All tensors in a nest of containers, each once, and where they stand."""
    found: dict[int, tuple[str, Any]] = {}
    seen: set[int] = set()
    waiting: list[tuple[tuple[str, ...], Any]] = [((), root)]
    while waiting:
        place, value = waiting.pop()
        if _is_tensor(value):
            found.setdefault(id(value), (".".join(place), value))
        elif isinstance(value, _MAY_HOLD) and id(value) not in seen:
            seen.add(id(value))
            if len(place) == _DEEPEST:
                raise UserError(f"{path}: containers nested more than {_DEEPEST} deep; {_CURE}")
            items = value.items() if isinstance(value, dict) else enumerate(value)
            # Numbers and what is empty hold no tensor, and there may be millions of them.
            held = [pair for pair in items if isinstance(pair[1], _MAY_HOLD) and pair[1]]
            waiting += [((*place, str(key)[:40]), item) for key, item in reversed(held)]
    return list(found.values())


def _dense(path: Path, shape: tuple[int, ...], indices: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A sparse tensor of ``shape [N, d]`` with zeros filled in; what stands at one place several times is added up."""
    try:
        claimed_count(shape, values.itemsize, max(INFLATED, RATIO * path.stat().st_size))
    except Damaged as error:
        raise UserError(f"{path}: the tensor is too sparse: {error}; save a smaller one") from None
    fits = indices.ndim == 2 and indices.dtype.kind == "i" and indices.shape == (len(shape), len(values))
    if not fits or values.ndim != 1 or (indices < 0).any() or (indices >= np.array(shape)[:, None]).any():
        raise UserError(f"{path}: a sparse tensor in an unsupported layout; save tensor.to_dense() with torch.save")
    rows = np.zeros(shape, values.dtype)
    np.add.at(rows, tuple(indices), values)
    return rows
