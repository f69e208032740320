"""Types with a name: plain trees as JSON and YAML hold them, and arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:  # `detkit --help` starts without numpy
    import numpy as np
    from numpy.typing import NDArray

Value: TypeAlias = Any
"""The value of a key in a config or a JSON file."""
Tree: TypeAlias = dict[str, Value]
"""An object of JSON, or a section of a config."""
Bools: TypeAlias = "NDArray[np.bool_]"
Ints: TypeAlias = "NDArray[np.int64]"
Floats: TypeAlias = "NDArray[np.float64]"
Floats32: TypeAlias = "NDArray[np.float32]"
Scalar: TypeAlias = str | int | float | bool
"""A value of JSON that is neither null nor made of others."""
