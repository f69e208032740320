"""Stand-in, to be replaced by the config room: registries and their `register`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

C = TypeVar("C", bound=type)


class Registry:
    def __init__(self, name: str) -> None:
        self.name = name
        self._classes: dict[str, type] = {}

    def register(self, name: str | None = None) -> Callable[[C], C]:
        def add(cls: C) -> C:
            self._classes[name or cls.__name__] = cls
            return cls

        return add

    def build(self, node: Any, **derived: Any) -> Any:
        args = dict(node)
        return self._classes[args.pop("type")](**args, **derived)


BACKBONES = Registry("backbones")
NECKS = Registry("necks")
ANCHORS = Registry("anchors")
HEADS = Registry("heads")
ASSIGNERS = Registry("assigners")
CODERS = Registry("coders")
CLASS_LOSSES = Registry("class_losses")
BOX_LOSSES = Registry("box_losses")
NORMALIZERS = Registry("normalizers")
NMS = Registry("nms")
DATASETS = Registry("datasets")
TRANSFORMS = Registry("transforms")
OPTIMIZERS = Registry("optimizers")
SCHEDULES = Registry("schedules")
