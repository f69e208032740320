"""Reads pickles that hold numpy arrays, without running anything that is in them.

A pickle may call any function it can name. The model zoo's .pkl files need four names of numpy, so those are answered
with classes of this module, and every other name is refused. numpy's own classes would not do: `dtype.__setstate__`
takes flags from the file by which numbers count as pointers, and the interpreter fails when such an array goes away.
"""

from __future__ import annotations

import pickle
import struct
import tarfile
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detkit.utils.types import Value

NOT_READ = (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, TypeError, AttributeError, LookupError,
            ArithmeticError, AssertionError, RecursionError, MemoryError, OSError, struct.error, zlib.error,
            tarfile.TarError, zipfile.BadZipFile)  # fmt: skip
"""Errors of reading a file that was cut off, garbled or made to do harm."""
NUMBERS = "biuf"
"""Kinds of array elements that are read: booleans, signed and unsigned integers, floats."""


class _DTypeStandIn:
    """Replaces `numpy.dtype` while the file is read."""

    def __init__(self, code: str, *_: object) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Value, ...]) -> None:
        self.order = state[1]

    def resolve(self) -> np.dtype[np.generic]:
        dtype = np.dtype(self.code)
        if dtype.kind not in NUMBERS:
            raise pickle.UnpicklingError(f"an array of dtype {self.code!r}; only numbers are read")
        return dtype.newbyteorder(">") if self.order == ">" else dtype


class ArrayStandIn:
    """Replaces `numpy.ndarray`: takes the pickled state and keeps a plain array made of it."""

    value: NDArray[np.generic]

    def __setstate__(self, state: tuple[Value, ...]) -> None:
        _, shape, dtype, fortran, data = state
        if isinstance(data, str):  # Written by Python 2.
            data = data.encode("latin1")
        flat = np.frombuffer(data, dtype.resolve()) if data else np.empty(0, dtype.resolve())
        self.value = flat.reshape(shape, order="F" if fortran else "C").copy()


def _from_buffer(data: bytes, dtype: _DTypeStandIn, shape: tuple[int, ...], order: object) -> ArrayStandIn:
    array = ArrayStandIn()
    array.__setstate__((1, shape, dtype, order == "F", data))
    return array


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Bytes, as protocol 2 writes them."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text in encoding {encoding!r}")
    return text.encode("latin1")


ADMITTED: dict[tuple[str, str], Callable[..., object]] = {
    ("numpy", "ndarray"): ArrayStandIn,
    ("numpy", "dtype"): _DTypeStandIn,
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): lambda: b"",  # empty bytes, as protocol 2 writes them
}
for _core in ("numpy.core", "numpy._core"):
    ADMITTED[f"{_core}.multiarray", "_reconstruct"] = lambda *_: ArrayStandIn()
    ADMITTED[f"{_core}.multiarray", "scalar"] = lambda dtype, data: np.frombuffer(data, dtype.resolve())[0].item()
    ADMITTED[f"{_core}.numeric", "_frombuffer"] = _from_buffer


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable[..., object]:
        try:
            return ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


def load_arrays(path: str | Path) -> Value:
    """Unpickles dicts, lists, strings, numbers and numpy arrays of numbers without running anything in the file.

    Raises ValueError, naming file and class, if the pickle asks for anything else or is damaged.
    """
    with open(path, "rb") as file:
        try:
            return _plain(_ArrayUnpickler(file, encoding="latin1").load())
        except NOT_READ as error:
            raise ValueError(
                f"{path} is not a pickle of numpy arrays: {error}. A model zoo file holds arrays, numbers "
                f"and text only; anything else could run code on loading, so it is refused."
            ) from error


def _plain(node: Value) -> Value:
    """The same tree with arrays instead of their stand-ins."""
    if isinstance(node, ArrayStandIn):
        return node.value
    if isinstance(node, dict):
        return {key: _plain(value) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return type(node)(_plain(value) for value in node)
    if node is None or isinstance(node, (str, bytes, int, float, bool, set, frozenset)):
        return node
    raise ValueError(f"a value of type {type(node).__name__}")
