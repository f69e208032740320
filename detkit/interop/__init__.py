"""Models from everywhere: weights of torchvision and Detectron2, hub repositories, exported folders."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detkit.interop.load import load_any as load_any

__all__ = ["load_any"]


def __getattr__(name: str) -> object:
    """Imports torch only for who loads a model; `detkit convert --help` comes without."""
    if name != "load_any":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from detkit.interop.load import load_any

    return load_any
