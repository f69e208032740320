"""Reads pickles that hold numpy arrays, without running anything that is in them.

A pickle is a program that may call any function it can name. The model zoo's .pkl files need four names
of numpy and no more, so those are answered with classes of this module, and every other name is refused.
Not even numpy's own code is reached from the file.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

NUMBERS = "biuf"
"""Kinds of array elements that are let in: booleans, signed and unsigned integers, floats."""


class _DType:
    """Stands for `numpy.dtype` while the file is read."""

    def __init__(self, code: str, *_: Any) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    def resolve(self) -> np.dtype[Any]:
        dtype = np.dtype(self.code)
        if dtype.kind not in NUMBERS:
            raise pickle.UnpicklingError(f"an array of dtype {self.code!r}; only numbers are read")
        return dtype.newbyteorder(">") if self.order == ">" else dtype


class NDArray:
    """Stands for `numpy.ndarray`: takes the pickled state and keeps a plain array made of it."""

    value: np.ndarray[Any, Any]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        if isinstance(data, str):  # Written by Python 2.
            data = data.encode("latin1")
        flat = np.frombuffer(data, dtype.resolve()) if data else np.empty(0, dtype.resolve())
        self.value = flat.reshape(shape, order="F" if fortran else "C").copy()


def _reconstruct(*_: Any) -> NDArray:
    return NDArray()


def _from_buffer(data: bytes, dtype: _DType, shape: tuple[int, ...], order: Any) -> NDArray:
    array = NDArray()
    array.__setstate__((1, shape, dtype, order == "F", data))
    return array


def _scalar(dtype: _DType, data: bytes) -> Any:
    return np.frombuffer(data, dtype.resolve())[0].item()


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """How protocol 2 spells bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text in encoding {encoding!r}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """How protocol 2 spells empty bytes."""
    return b""


ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): NDArray,
    ("numpy", "dtype"): _DType,
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


# What an unpickler may say of a file that was cut off or garbled.
_DAMAGE = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, LookupError, MemoryError,
    OverflowError,
)  # fmt: skip


def load_arrays(path: str | Path) -> Any:
    """Unpickles dicts, lists, strings, numbers and numpy arrays of numbers; nothing in the file is executed.

    Raises ValueError, naming file and class, if the pickle asks for anything else or is damaged.
    """
    with open(path, "rb") as file:
        try:
            return _plain(_ArrayUnpickler(file, encoding="latin1").load())
        except _DAMAGE as error:
            raise ValueError(
                f"{path} is not a pickle of numpy arrays: {error}. A model zoo file holds arrays, numbers "
                f"and text only; anything else could run code on loading, so it is refused."
            ) from error


def _plain(node: Any) -> Any:
    """The same tree with arrays instead of their stand-ins."""
    if isinstance(node, NDArray):
        return node.value
    if isinstance(node, dict):
        return {key: _plain(value) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return type(node)(_plain(value) for value in node)
    if node is None or isinstance(node, (str, bytes, int, float, bool, set, frozenset)):
        return node
    raise ValueError(f"a value of type {type(node).__name__}")
