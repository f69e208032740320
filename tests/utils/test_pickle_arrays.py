"""The unpickler of model zoo files gives arrays and runs nothing."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detkit.utils.pickle_arrays import load_arrays
from tests.refusals import Refuses


def written(path: Path, content: Any, protocol: int = pickle.HIGHEST_PROTOCOL) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_come_back_as_they_were(tmp_path: Path, protocol: int) -> None:
    arrays = OrderedDict(
        floats=np.arange(24, dtype=np.float32).reshape(2, 3, 4) / 7,
        fortran=np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
        sliced=np.arange(20, dtype=np.int32)[::2],
        big_endian=np.arange(4, dtype=">i8"),
        half=np.ones(3, dtype=np.float16),
        flags=np.array([True, False]),
        empty=np.zeros((0, 4), dtype=np.float32),
        scalar=np.array(7, dtype=np.int64),
    )
    content = {
        "model": arrays,
        "__author__": "someone",
        "other": [1, 2.5, None, True, (b"x", np.float32(0.5))],
    }
    loaded = load_arrays(written(tmp_path / "a.pkl", content, protocol))
    assert loaded["__author__"] == "someone"
    assert loaded["other"] == [1, 2.5, None, True, (b"x", 0.5)]
    assert list(loaded["model"]) == list(arrays)
    for name, array in arrays.items():
        found = loaded["model"][name]
        assert found.dtype == array.dtype
        assert found.shape == array.shape
        np.testing.assert_array_equal(found, array)
        assert found.flags.writeable


class Evil:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def test_code_in_a_pickle_is_named_and_not_run(refuses: Refuses, tmp_path: Path) -> None:
    proof = tmp_path / "it_ran"
    content = {"model": {"w": np.zeros(2), "x": Evil(os.system, f"touch {proof}")}}
    path = written(tmp_path / "evil.pkl", content)
    with refuses(ValueError):
        load_arrays(path)
    assert not proof.exists()
    pickle.loads(path.read_bytes())
    assert proof.exists(), "the attack itself must work, or this test shows nothing"


@pytest.mark.parametrize(
    "value",
    [
        Evil(eval, "1 + 1"),
        Evil(getattr, "a", "upper"),
        Path("x"),
        np.random.RandomState(0),
        np.ma.masked_array([1]),
        3 + 4j,
    ],
    ids=["eval", "getattr", "path", "generator", "masked", "complex"],
)
def test_everything_else_is_refused_by_name(refuses: Refuses, tmp_path: Path, value: Any) -> None:
    with refuses(ValueError):
        load_arrays(written(tmp_path / "x.pkl", {"model": {"x": value}}))


def test_arrays_of_objects_are_refused(refuses: Refuses, tmp_path: Path) -> None:
    with refuses(ValueError):
        load_arrays(written(tmp_path / "x.pkl", np.array([{}, None], dtype=object)))


class Flagged:
    """int64, but with the flag of a dtype whose elements are pointers: numpy believes the file."""

    def __reduce__(self) -> Any:
        return np.dtype, ("i8", False, True), (3, "<", None, None, None, -1, -1, 1)


def test_numbers_stay_numbers_whatever_flags_a_dtype_asks_for(tmp_path: Path) -> None:
    assert pickle.loads(pickle.dumps(Flagged())).hasobject, "numpy itself must believe it, or this test shows nothing"
    rebuild, arguments, _ = tuple(np.zeros(2, np.int64).__reduce__())

    class Array:
        def __reduce__(self) -> Any:
            return rebuild, arguments, (1, (2,), Flagged(), False, np.array([7, 8]).tobytes())

    loaded = load_arrays(written(tmp_path / "x.pkl", Array(), protocol=2))
    assert loaded.tolist() == [7, 8]
    assert not loaded.dtype.hasobject


def test_damaged_files_are_named(refuses: Refuses, tmp_path: Path) -> None:
    path = written(tmp_path / "x.pkl", {"model": {"x": np.arange(1000)}})
    path.write_bytes(path.read_bytes()[:500])
    with refuses(ValueError):
        load_arrays(path)
    path.write_bytes(b"GIF89a")
    with refuses(ValueError):
        load_arrays(path)


def test_any_garbled_file_is_an_error_or_data_and_nothing_worse(tmp_path: Path) -> None:
    good = pickle.dumps({"model": {"x": np.arange(12, dtype=np.float32).reshape(3, 4)}, "a": "b"}, protocol=3)
    random = np.random.RandomState(0)
    refused = 0
    for _ in range(300):
        data = bytearray(good)
        for position in random.randint(0, len(data), size=2):
            data[position] = random.randint(256)
        path = tmp_path / "x.pkl"
        path.write_bytes(bytes(data))
        try:
            load_arrays(path)
        except ValueError as error:
            refused += str(path) in str(error)
    assert refused > 100


def test_arrays_of_python_2_are_read(tmp_path: Path) -> None:
    data = np.array([1.5, -2.0], dtype="<f4").tobytes()
    text = b"".join(b"\\x%02x" % byte for byte in data)
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
        b"(I1\n(I2\ntcnumpy\ndtype\n(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS'" + text + b"'\ntb."
    )
    path = tmp_path / "x.pkl"
    path.write_bytes(array)
    assert load_arrays(path).tolist() == [1.5, -2.0]
