"""The registry of each kind of part."""

from __future__ import annotations

from detkit.registry.registry import Registry

LEVELS = "the neck's levels"

BACKBONES = Registry("backbones", "detkit.backbones.base:Backbone", "detkit.backbones")
NECKS = Registry("necks", "detkit.necks.base:Neck", "detkit.necks", {"in_shapes": "the backbone's levels"})
ANCHORS = Registry("anchors", "detkit.anchors.base:AnchorGenerator", "detkit.anchors", {"strides": LEVELS})
HEADS = Registry(
    "heads",
    "detkit.heads.base:Head",
    "detkit.heads",
    {
        "in_channels": LEVELS,
        "anchors_per_cell": "the anchor generator",
        "num_columns": "the data set's classes and the classification loss",
        "class_bias": "the classification loss",
        "box_columns": "the box coder",
        "with_quality": "whether there is a quality loss",
    },
)
ASSIGNERS = Registry("assigners", "detkit.assigners.base:Assigner", "detkit.assigners", light=True)
CODERS = Registry("coders", "detkit.coders.base:BoxCoder", "detkit.coders", light=True)
CLASS_LOSSES = Registry("class_losses", "detkit.losses.base:ClassificationLoss", "detkit.losses", light=True)
BOX_LOSSES = Registry("box_losses", "detkit.losses.base:BoxLoss", "detkit.losses", light=True)
NORMALIZERS = Registry("normalizers", "detkit.losses.base:Normalizer", "detkit.losses", light=True)
BOX_WEIGHTS = Registry("box_weights", "detkit.losses.base:BoxWeight", "detkit.losses", light=True)
QUALITY_LOSSES = Registry("quality_losses", "detkit.losses.base:QualityLoss", "detkit.losses", light=True)
AUXILIARY_LOSSES = Registry("auxiliary_losses", "detkit.losses.base:AuxiliaryLoss", "detkit.losses", light=True)
NMS = Registry("nms", "detkit.nms.base:NonMaxSuppression", "detkit.nms", light=True)
DATASETS = Registry(
    "datasets",
    "detkit.data.datasets.base:DetectionDataset",
    "detkit.data.datasets",
    aliases={"auto": "AutoDataset"},
)
TRANSFORMS = Registry("transforms", "detkit.data.transforms.base:Transform", "detkit.data.transforms", light=True)
OPTIMIZERS = Registry("optimizers", "detkit.train.optim:OptimizerFactory", "detkit.train.optim", light=True)
SCHEDULES = Registry("schedules", "detkit.train.schedule:Schedule", "detkit.train.schedule", light=True)
HOOKS = Registry("hooks", "detkit.hooks.base:Hook", "detkit.hooks", light=True)
LOGGERS = Registry("loggers", "detkit.loggers.base:Logger", "detkit.loggers", light=True)

REGISTRIES: tuple[Registry, ...] = (
    BACKBONES, NECKS, ANCHORS, HEADS, ASSIGNERS, CODERS, CLASS_LOSSES, BOX_LOSSES, NORMALIZERS, BOX_WEIGHTS,
    QUALITY_LOSSES, AUXILIARY_LOSSES, NMS, DATASETS, TRANSFORMS, OPTIMIZERS, SCHEDULES, HOOKS, LOGGERS,
)  # fmt: skip
