"""Arguments of a part that are parts themselves, as the data sets of a ConcatDataset."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from detkit.utils.types import Value


class PartOf(str):
    """A mark of an annotation: its value is the config node of a part. The text is what a user reads."""

    registry: str

    def __new__(cls, registry: str, text: str) -> PartOf:
        """registry: name of the registry. text: as in "a data set"."""
        mark = super().__new__(cls, text)
        mark.registry = registry
        return mark


DatasetNode = Annotated[dict[str, Any], PartOf("datasets", "a data set")]
"""An argument of a part that is a data set; its paths and defaults are as those of any data set in a config."""
BoxLossNode = Annotated[dict[str, Any], PartOf("box_losses", "a box loss")]
"""An argument of a part that is a box loss."""
ClassLossNode = Annotated[dict[str, Any], PartOf("class_losses", "a class loss")]
"""An argument of a part that is a class loss."""
BoxWeightNode = Annotated[dict[str, Any], PartOf("box_weights", "a box weight")]
"""An argument of a part that is a weight of boxes."""
AssignerNode = Annotated[dict[str, Any], PartOf("assigners", "an assigner")]
"""An argument of a part that is an assigner."""


def registry_of(annotation: object) -> str | None:
    """The registry of the part that an annotation stands for; None if it is not one."""
    marks = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
    return next((mark.registry for mark in marks if isinstance(mark, PartOf)), None)


def map_parts(value: Value, annotation: object, path: str, change: Callable[[str, Value, str], Value]) -> Value:
    """Replaces every config node of a part in a converted `value` by `change(registry, node, key)`.

    path: the key of `value`.
    """
    registry = registry_of(annotation)
    origin, inner = get_origin(annotation), get_args(annotation)
    if registry is not None:
        return change(registry, value, path) if isinstance(value, Mapping) else value
    if origin is list and isinstance(value, list):
        return [map_parts(item, inner[0], f"{path}.{i}", change) for i, item in enumerate(value)]
    if origin in (Union, types.UnionType):
        part = next((part for part in inner if registry_of(part) is not None), None)
        return value if part is None else map_parts(value, part, path, change)
    return map_parts(value, inner[0], path, change) if origin is Annotated else value
