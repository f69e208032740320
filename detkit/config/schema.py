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
    """A list of parts. default: the types of the list if the config has none. optional: then there is no list."""

    registry: registry.Registry
    default: tuple[str, ...] = ()
    optional: bool = False


@dataclass(frozen=True)
class Options:
    """Fields of a dataclass ("module:Class"), which detkit builds from them."""

    target: str
    optional: bool = False


@dataclass(frozen=True)
class PlainValue:
    """A plain value. meaning: what it is for. optional: without it there is no default either."""

    annotation: object
    default: Value
    meaning: str = ""
    optional: bool = False


@dataclass(frozen=True)
class Section:
    """Named keys. meaning: what they are for."""

    keys: Mapping[str, Node] = field(default_factory=dict)
    optional: bool = False
    meaning: str = ""


Node: TypeAlias = Part | Parts | Options | PlainValue | Section


DATASET = Part(registry.DATASETS, untyped="AutoDataset")
"""A data set, in `data` or as an argument of another one."""


def data_section(meaning: str, **more: Node) -> Section:
    """Data set and transforms of one split."""
    keys: dict[str, Node] = {
        "dataset": DATASET,
        "transforms": Parts(registry.TRANSFORMS),
    }
    return Section(keys | more, optional=True, meaning=meaning)


FINAL_ITERATIONS = "last steps of the training, or below 1 the fraction of `train.iterations`"
FINAL = Section(
    {
        "iterations": PlainValue(registry.Positive, 0.05, FINAL_ITERATIONS),
        "transforms": Parts(registry.TRANSFORMS, optional=True),
    },
    optional=True,
    meaning=(
        "The last steps of the training, which have other transforms: without a list those of `data.train.transforms` "
        "that take no other images in. A resumed run changes at the same step."
    ),
)


IMPORTS = "modules, and files relative to the config's folder, that register your own parts, as in [./my_net.py]"


DATA_ROOT = (
    "a file or folder of data in any format, for train and val: their data sets become `type: auto`; "
    "if it has no val, `data.split` divides its images"
)
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
        "box_assigner": Part(registry.ASSIGNERS, optional=True),
        "coder": Part(registry.CODERS, default="DeltaCoder"),
        "losses": Section(
            {
                "classification": Part(registry.CLASS_LOSSES),
                "box": Part(registry.BOX_LOSSES, optional=True),
                "normalizer": Part(registry.NORMALIZERS, default="PositiveCount"),
                "box_normalizer": Part(registry.NORMALIZERS, optional=True),
                "box_weight": Part(registry.BOX_WEIGHTS, optional=True),
                "quality": Part(registry.QUALITY_LOSSES, optional=True),
                "quality_normalizer": Part(registry.NORMALIZERS, optional=True),
                "auxiliary": Parts(registry.AUXILIARY_LOSSES, optional=True),
            },
            meaning="What the detector learns from: the losses, and what their sums are divided by.",
        ),
        "postprocess": Options("detkit.detectors.postprocess:PostprocessOptions"),
        "nms": Part(registry.NMS, default="HardNMS"),
        "data": Section(
            {
                "root": PlainValue(registry.PathStr, None, DATA_ROOT, optional=True),
                "split": Options("detkit.data.datasets.splits:SplitOptions", optional=True),
                "train": data_section("The images to train on, and how they are changed.", final=FINAL),
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
