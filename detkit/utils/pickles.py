"""Reads files of `torch.save` that hold more than tensors, without running anything that is in them.

A training script's checkpoint is a pickle, which may call whatever it can name. Tensors, containers, numbers and text
are read; every class or function that a file asks for besides is answered with `Unread`, which does nothing.
"""

from __future__ import annotations

import itertools
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from detkit.utils.pickle_arrays import ADMITTED, NDArray

NOT_READ = (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, TypeError, AttributeError, LookupError,
            ArithmeticError, AssertionError, RecursionError, MemoryError, OSError, struct.error, zlib.error,
            tarfile.TarError, zipfile.BadZipFile)  # fmt: skip
"""What may be said of a file that was cut off, garbled or made to do harm."""


MOST, DEEPEST = 1_000_000, 40
"""Entries of a file, and how deep they may lie; a file may hold a list in itself, or in another twice."""


class Unread(dict[Any, Any]):
    """Stands for an object of a class that is not read: takes what the file gives it and calls nothing.

    It is a dict, so that what a foreign mapping holds, or a whole pickled module, can be looked into.
    """

    def __new__(cls, *_: Any, **__: Any) -> Unread:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.update(part)

    def __call__(self, *_: Any, **__: Any) -> Unread:
        return Unread()

    def ignore(self, *_: Any) -> None:
        """In place of a list's and a set's methods."""

    append = extend = add = ignore

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)


def _tensor(*arguments: Any) -> Any:
    return torch._utils._rebuild_tensor_v2(*arguments)  # type: ignore[no-untyped-call]


def _old_tensor(*arguments: Any) -> Any:
    return torch._utils._rebuild_tensor(*arguments)  # type: ignore[no-untyped-call]


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _size(values: Any = ()) -> tuple[Any, ...]:
    return tuple(values)


_TENSORS: dict[tuple[str, str], Any] = {
    **ADMITTED,
    ("torch._utils", "_rebuild_tensor"): _old_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch", "Size"): _size,
    ("collections", "OrderedDict"): OrderedDict,
}
"""Names that a file may call: functions of this module, which only make tensors, so that none of another is reached."""


def load_torch(path: Path) -> tuple[Any, list[str]]:
    """What a file of `torch.save` holds, and the names of the classes in it that were not read.

    Raises ValueError, naming the file, if it is none.
    """
    with path.open("rb"):  # a file that can't be opened is the system's to tell
        pass
    try:
        return torch.load(path, map_location="cpu", weights_only=True), []
    except NOT_READ as error:
        first = error
    asked: set[str] = set()

    class Reader(pickle.Unpickler):
        """Knows tensors only."""

        def find_class(self, module: str, name: str) -> Any:
            """See `pickle.Unpickler.find_class`."""
            if (module, name) in _TENSORS:
                return _TENSORS[module, name]
            if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
                return getattr(torch, name)
            asked.add(f"{module}.{name}")
            return type("Unread", (Unread,), {})

    def load(file: Any, **more: Any) -> Any:
        return Reader(file, **more).load()

    try:
        _refuse_programs(path)
        reader = SimpleNamespace(__name__="detkit", Unpickler=Reader, load=load)
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=reader), sorted(asked)
    except NOT_READ as error:
        raise ValueError(
            f"{path} is not a file of torch.save with tensors in it ({type(error).__name__}: {_line(error)}; "
            f"by torch's own words: {_line(first)})"
        ) from error


def _refuse_programs(path: Path) -> None:
    """Raises ValueError for an archive of TorchScript, which torch.load would compile."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.rpartition("/")[2] == "constants.pkl" for name in archive.namelist()):
                raise ValueError("an archive of TorchScript: save the state_dict() of the model instead")


def _line(error: BaseException) -> str:
    return next((line.strip()[:160] for line in str(error).splitlines() if line.strip()), "no message")


def tensors_by_name(content: Any) -> dict[str, Any]:
    """Every tensor of nested mappings, lists and pickled modules, by a dotted name; also what is no tensor."""
    found: dict[str, Any] = {}
    visits = itertools.count(1)

    def walk(node: Any, name: str, above: frozenset[int]) -> None:
        if next(visits) > MOST:
            raise ValueError(f"more than {MOST} entries")
        if isinstance(node, NDArray):
            node = torch.from_numpy(node.value)
        children = _children(node)
        if children is None:
            found[name] = node
        elif id(node) not in above and len(above) < DEEPEST:
            for key, child in children:
                walk(child, f"{name}.{key}" if name and key else f"{name}{key}", above | {id(node)})

    walk(content, "", frozenset())
    return found


def _children(node: Any) -> list[tuple[str, Any]] | None:
    if isinstance(node, Unread) and isinstance(node.get("_modules"), Mapping):  # a pickled module
        tables = (node.get(table) for table in ("_parameters", "_buffers", "_modules"))
        return [
            (str(k), v) for table in tables if isinstance(table, Mapping) for k, v in table.items() if v is not None
        ]
    if isinstance(node, Mapping):
        return [(str(k), v) for k, v in node.items()]
    if isinstance(node, (list, tuple)):
        return [(str(i), v) for i, v in enumerate(node)]
    return None
