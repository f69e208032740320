"""The last steps of a training, which may have transforms of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from detkit.config import Config
from detkit.data.transforms.base import Transform
from detkit.registry import TRANSFORMS
from detkit.registry.values import value_text

KEY = "data.train.final"


@dataclass(frozen=True)
class FinalTransforms:
    """Transforms of the last steps of a training; start: the first of these, counted from 0."""

    start: int
    transforms: tuple[Transform, ...]


def final_start(config: Config, total: int) -> int | None:
    """The first step, counted from 0, that has `data.train.final`, in a training of `total` steps; None without it."""
    if KEY not in config:
        return None
    length = float(config.require(f"{KEY}.iterations"))
    return total - (round(length * total) if length < 1 else int(length))


def build_final(config: Config, transforms: Sequence[Transform]) -> FinalTransforms | None:
    """The transforms of `data.train.final`, if the config has it.

    transforms: built of `data.train.transforms`. A transform that both lists have is the same object, so that
    what the first one does may be kept for both.
    """
    start = final_start(config, config.options("train").iterations) if "train" in config else None
    if start is None:
        return None
    if f"{KEY}.transforms" not in config:
        return FinalTransforms(max(start, 0), tuple(t for t in transforms if not t.mixes))
    built = list(zip(config.require("data.train.transforms"), transforms, strict=True))
    chain = []
    for i, node in enumerate(config.require(f"{KEY}.transforms")):
        known = next((transform for other, transform in built if other == node), None)
        chain.append(known or config.build(TRANSFORMS, f"{KEY}.transforms.{i}"))
    return FinalTransforms(max(start, 0), tuple(chain))


def check_transforms(config: Config) -> None:
    """Raises ValueError for a `data.train.final` that fits no training, and for mixed images in evaluation."""
    key = "data.val.transforms"
    for i, node in enumerate(config.require(key) if key in config else ()):
        part: type[Transform] = TRANSFORMS.get(node["type"])
        if part.mixes:
            raise ValueError(
                f"{config.location(f'{key}.{i}.type')}: {key}.{i}.type: {node['type']} takes other images in, "
                "so the detections would be those of several images: use it in data.train.transforms"
            )
    start = final_start(config, config.options("train").iterations) if "train" in config else None
    if start is None:
        return
    length, total = float(config.require(f"{KEY}.iterations")), config.options("train").iterations
    way_out = "a fraction below 1, or a whole number of steps"
    if length >= 1 and length != int(length):
        place = config.location(f"{KEY}.iterations")
        raise ValueError(f"{place}: {KEY}.iterations: {value_text(length)} is not {way_out}")
    if start < 0:
        raise ValueError(
            f"{config.location(f'{KEY}.iterations')}: {KEY}.iterations: {length:g} is more than train.iterations: "
            f"{total}, so data.train.transforms would never be used: take less, or {way_out.partition(',')[0]}"
        )
