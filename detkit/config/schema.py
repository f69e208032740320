"""The shape of a config: which keys there are, and which registry or class says what they may hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from detkit import registry
from detkit.utils.types import Value


@dataclass(frozen=True)
class Part:
    """`{type: Name, ...}` of a registry. default: the type if the config names none.

    untyped: the type of arguments without one, where the part itself has to be given.
    """

    registry: registry.Registry
    default: str | None = None
    optional: bool = False
    untyped: str | None = None


@dataclass(frozen=True)
class Parts:
    """A list of parts. default: the types of the list if the config has none."""

    registry: registry.Registry
    default: tuple[str, ...] = ()


@dataclass(frozen=True)
class Options:
    """Fields of a dataclass ("module:Class"), which detkit builds from them."""

    target: str
    optional: bool = False


@dataclass(frozen=True)
class PlainValue:
    """A plain value. meaning: what it is for."""

    annotation: object
    default: Value
    meaning: str = ""


@dataclass(frozen=True)
class Section:
    """Named keys. meaning: what they are for."""

    keys: Mapping[str, Node] = field(default_factory=dict)
    optional: bool = False
    meaning: str = ""


Node: TypeAlias = Part | Parts | Options | PlainValue | Section


def data_section(meaning: str) -> Section:
    """Data set and transforms of one split."""
    keys: dict[str, Node] = {
        "dataset": Part(registry.DATASETS, untyped="AutoDataset"),
        "transforms": Parts(registry.TRANSFORMS),
    }
    return Section(keys, optional=True, meaning=meaning)


IMPORTS = "modules, and files relative to the config's folder, that register your own parts, as in [./my_net.py]"


ROOT = Section(
    {
        "imports": PlainValue(list[str], [], IMPORTS),
        "seed": PlainValue(registry.Seed, 0, "determines first weights, order of images and augmentation"),
        "pixels": Options("detkit.detectors.pixels:PixelOptions"),
        "backbone": Part(registry.BACKBONES),
        "neck": Part(registry.NECKS),
        "anchors": Part(registry.ANCHORS),
        "head": Part(registry.HEADS),
        "assigner": Part(registry.ASSIGNERS),
        "coder": Part(registry.CODERS, default="DeltaCoder"),
        "losses": Section(
            {
                "classification": Part(registry.CLASS_LOSSES),
                "box": Part(registry.BOX_LOSSES),
                "normalizer": Part(registry.NORMALIZERS, default="PositiveCount"),
            },
            meaning="What the detector learns from: the losses, and what their sums are divided by.",
        ),
        "postprocess": Options("detkit.detectors.postprocess:PostprocessOptions"),
        "nms": Part(registry.NMS, default="HardNMS"),
        "data": Section(
            {
                "train": data_section("The images to train on, and how they are changed."),
                "val": data_section("The images to evaluate on, and how they are changed."),
                "classes": Options("detkit.data.datasets.classes:ClassOptions"),
                "loader": Options("detkit.data.loader:LoaderOptions"),
                "images": Options("detkit.data.datasets.images:ImageOptions"),
            },
            meaning="Images and annotations, and how they become batches.",
        ),
        "optimizer": Part(registry.OPTIMIZERS, optional=True),
        "schedule": Part(registry.SCHEDULES, optional=True),
        "train": Options("detkit.train.options:TrainOptions", optional=True),
        "hooks": Parts(registry.HOOKS),
        "loggers": Parts(registry.LOGGERS, default=("TensorBoard",)),
        "evaluator": Options("detkit.evaluate.options:EvaluatorOptions"),
    },
    meaning="A detector, its data and its training, in a YAML file. Parts are `{type: NAME, its arguments}`.",
)
