"""Settings of a run's config: which of them differ from another run's."""

from __future__ import annotations

from collections.abc import Mapping

from detkit.config import Config
from detkit.utils.types import Tree, Value

FREE = (
    "train.eval_every", "train.checkpoint_every", "train.keep_last", "train.log_every", "train.max_minutes",
    "train.tensorboard", "train.hang_timeout", "train.parallel", "data.loader.num_workers",
    "data.images.max_megapixels",
)  # fmt: skip
"""Settings that don't change which weights come out."""
FREE_SECTIONS = ("loggers",)


def differing_settings(old: Mapping[str, Value], new: Mapping[str, Value]) -> dict[str, tuple[Value, Value]]:
    """Dotted keys with unequal values, but for `FREE` and `FREE_SECTIONS`; None is the value of a missing key."""
    first, second = flatten(old), flatten(new)
    return {
        key: (first.get(key), second.get(key))
        for key in first.keys() | second.keys()
        if key not in FREE and key.partition(".")[0] not in FREE_SECTIONS and first.get(key) != second.get(key)
    }


def flatten(values: Value, prefix: str = "") -> Tree:
    """Nested mappings and lists -> dotted key to plain value."""
    is_list = isinstance(values, (list, tuple))
    items = values.items() if isinstance(values, Mapping) else enumerate(values) if is_list else ()
    flat: Tree = {}
    for key, value in items:
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat or {prefix: values}


def with_defaults(values: Tree) -> Tree:
    """A config of an earlier detkit, completed by the defaults of settings that it did not have yet.

    Unchanged if this detkit does not take it as a config.
    """
    try:
        return Config.from_dict(values).to_dict()
    except ValueError:
        return values
