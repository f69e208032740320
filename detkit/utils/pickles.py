"""Reads files of `torch.save` that hold more than tensors, without running anything that is in them.

A training script's checkpoint is a pickle, which may call whatever it can name. Tensors, containers, numbers and text
are read; every other class or function that a file asks for is answered with `Unread`, which does nothing.
"""

from __future__ import annotations

import itertools
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import numpy as np
import torch

from detkit.utils.pickle_arrays import ADMITTED, NOT_READ, ArrayStandIn
from detkit.utils.types import Value

MOST, DEEPEST = 1_000_000, 40
"""Limits of the entries of a file and of their nesting: a file may hold a list that contains itself."""


class Unread(dict[object, object]):
    """Stand-in for an object of a class that is not read: takes what the file gives it and calls nothing.

    It is a dict, so that the entries of a foreign mapping, or of a pickled module, can be read.
    """

    def __init__(self, *_: object, **__: object) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None:
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.update(part)

    def __call__(self, *_: object, **__: object) -> Unread:
        return Unread()

    def ignore(self, *_: object) -> None:
        """Stand-in for the methods of lists and sets."""

    append = extend = add = ignore

    def __hash__(self) -> int:  # type: ignore[override]
        return id(self)


_TENSORS: dict[tuple[str, str], Callable[..., object]] = {
    **ADMITTED,
    ("torch._utils", "_rebuild_tensor"): lambda *given: torch._utils._rebuild_tensor(*given),  # type: ignore[no-untyped-call]
    ("torch._utils", "_rebuild_tensor_v2"): lambda *given: torch._utils._rebuild_tensor_v2(*given),  # type: ignore[no-untyped-call]
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    ("torch._utils", "_rebuild_parameter_with_state"): lambda data, *_: data,
    ("torch", "Size"): lambda values=(): tuple(values),
}
"""Names that a file may call: functions of this module, which only make tensors, so that none of another is reached."""


def load_torch(path: Path) -> tuple[Value, list[str]]:
    """Returns the content of a file of `torch.save`, and the names of the classes in it that were not read.

    Raises ValueError, naming the file, if it is not one.
    """
    path.open("rb").close()  # for the system's own error on a file that can't be opened
    try:
        return torch.load(path, map_location="cpu", weights_only=True), []
    except NOT_READ as error:
        first = error
    asked: set[str] = set()

    class Reader(pickle.Unpickler):
        """Makes tensors and nothing else."""

        def find_class(self, module: str, name: str) -> object:
            if (module, name) in _TENSORS:
                return _TENSORS[module, name]
            if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
                return getattr(torch, name)
            asked.add(f"{module}.{name}")
            return type("Unread", (Unread,), {})

    def load(file: IO[bytes], **more: Value) -> object:
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


def tensors_by_name(content: object) -> dict[str, object]:
    """Every tensor and other value of nested mappings, lists and pickled modules, by a dotted name."""
    entries: dict[str, object] = {}
    visits = itertools.count(1)

    def walk(node: object, name: str, above: frozenset[int]) -> None:
        if next(visits) > MOST:
            raise ValueError(f"more than {MOST} entries")
        if isinstance(node, (np.ndarray, ArrayStandIn)):
            node = torch.from_numpy(node.value if isinstance(node, ArrayStandIn) else node)
        children = _children(node)
        if children is None:
            entries[name] = node
        elif id(node) not in above and len(above) < DEEPEST:
            for key, child in children:
                walk(child, f"{name}.{key}" if name and key else f"{name}{key}", above | {id(node)})

    walk(content, "", frozenset())
    return entries


def _children(node: object) -> list[tuple[str, object]] | None:
    if isinstance(node, Unread) and isinstance(node.get("_modules"), Mapping):  # a pickled module
        tables = (node.get(table) for table in ("_parameters", "_buffers", "_modules"))
        items = (item for table in tables if isinstance(table, Mapping) for item in table.items())
        return [(str(k), v) for k, v in items if v is not None]
    if isinstance(node, Mapping):
        return [(str(k), v) for k, v in node.items()]
    if isinstance(node, (list, tuple)):
        return [(str(i), v) for i, v in enumerate(node)]
    return None
