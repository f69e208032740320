"""The trees of converted models say how the published ones were trained, so that training goes on as it began.

Sources: Detectron2's configs/Base-RetinaNet.yaml and COCO-Detection/retinanet_R_50_FPN_1x.yaml; torchvision's
references/detection/README.md. An epoch there is the 117,266 images of train2017 that have objects.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

import detkit.interop
from detkit.config import load_config

TREES = Path(detkit.interop.__file__).parent
WITH_OBJECTS = 117_266
WARMUP = {"schedule.warmup_iterations": 1000, "schedule.warmup_factor": 0.001}
STEPS = {"schedule.type": "MultiStep", "schedule.gamma": 0.1, **WARMUP}
RETINANET = {
    "losses.classification.type": "SigmoidFocalLoss", "losses.classification.alpha": 0.25,
    "losses.classification.gamma": 2.0, "losses.classification.prior": 0.01, "backbone.freeze_at": 2,
    "postprocess.score_threshold": 0.05, "postprocess.topk_per_level": 1000, "nms.iou_threshold": 0.5,
    "data.loader.batch_size": 16,
}  # fmt: skip
SGD = {"optimizer.type": "SGD", "optimizer.momentum": 0.9, "optimizer.nesterov": False}
SSD = {
    **SGD, "losses.box.type": "SmoothL1Loss", "losses.box.beta": 1.0, "losses.classification.ratio": 3.0,
    "losses.classification.floor": 0, "losses.normalizer.type": "PositiveCount", "optimizer.norm_weight_decay": None,
}  # fmt: skip
PUBLISHED: dict[str, dict[str, Any]] = {
    "detectron2_r50_fpn": {
        **RETINANET, **SGD, **STEPS, "losses.box.type": "SmoothL1Loss", "losses.box.beta": 0.0,
        "losses.normalizer.type": "RunningPositiveCount", "losses.normalizer.momentum": 0.9,
        "losses.normalizer.start": 100.0, "losses.normalizer.processes": 8, "optimizer.lr": 0.01,
        "optimizer.weight_decay": 1e-4, "optimizer.norm_weight_decay": 0.0, "schedule.milestones": [60000, 80000],
        "train.iterations": 90000, "postprocess.max_detections": 100,
    },
    "torchvision_r50_fpn": {
        **RETINANET, **SGD, **STEPS, "losses.box.type": "L1Loss", "losses.normalizer.type": "PerImagePositiveCount",
        "optimizer.lr": 0.01, "optimizer.weight_decay": 1e-4, "optimizer.norm_weight_decay": None,
        "postprocess.max_detections": 300,
    },
    "torchvision_r50_fpn_v2": {
        **RETINANET, **STEPS, "losses.box.type": "GIoULoss", "losses.normalizer.type": "PerImagePositiveCount",
        "optimizer.type": "AdamW", "optimizer.lr": 1e-4, "optimizer.weight_decay": 0.05,
        "optimizer.norm_weight_decay": 0.0, "optimizer.bias_weight_decay": None, "postprocess.max_detections": 300,
    },
    "torchvision_ssd300_vgg16": {
        **SSD, **STEPS, "optimizer.lr": 0.002, "optimizer.weight_decay": 5e-4, "data.loader.batch_size": 32,
        "backbone.freeze_at": 1, "postprocess.score_threshold": 0.01, "postprocess.max_detections": 200,
    },
    "torchvision_ssdlite320_mobilenet_v3": {
        **SSD, **WARMUP, "schedule.type": "Cosine", "optimizer.lr": 0.15, "optimizer.weight_decay": 4e-5,
        "data.loader.batch_size": 192, "postprocess.score_threshold": 0.001, "postprocess.max_detections": 300,
    },
}  # fmt: skip
EPOCHS = {  # epochs in all, and those after which the rate falls
    "torchvision_r50_fpn": (26, [16, 22]),
    "torchvision_r50_fpn_v2": (26, [16, 22]),
    "torchvision_ssd300_vgg16": (120, [80, 110]),
    "torchvision_ssdlite320_mobilenet_v3": (660, []),
}
AUGMENTED = {
    "detectron2_r50_fpn": ["ResizeShortestEdge", "RandomHorizontalFlip"],
    "torchvision_r50_fpn": ["RandomHorizontalFlip", "ResizeShortestEdge"],
    "torchvision_r50_fpn_v2": ["ResizeShortestEdge", "RandomHorizontalFlip"],
    "torchvision_ssd300_vgg16": [
        "RandomPhotometricDistort", "RandomZoomOut", "RandomIoUCrop", "RandomHorizontalFlip", "Resize",
    ],
    "torchvision_ssdlite320_mobilenet_v3": ["RandomIoUCrop", "RandomHorizontalFlip", "Resize"],
}  # fmt: skip
SIDES = {
    "detectron2_r50_fpn": [640, 672, 704, 736, 768, 800],
    "torchvision_r50_fpn": 800,
    "torchvision_r50_fpn_v2": [480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800],
}


def tree(name: str) -> Any:
    return load_config(TREES / f"{name}.yaml")


def plain(config: Any, key: str) -> Any:
    value = OmegaConf.select(config.raw if hasattr(config, "tree") else OmegaConf.create(config.to_dict()), key)
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def test_every_tree_is_looked_at() -> None:
    assert {path.stem for path in TREES.glob("*.yaml")} == set(PUBLISHED) == set(AUGMENTED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_tree_has_the_published_settings(name: str) -> None:
    config = tree(name)
    assert {key: plain(config, key) for key in PUBLISHED[name]} == PUBLISHED[name]
    transforms = plain(config, "data.train.transforms")
    assert [t["type"] for t in transforms] == AUGMENTED[name]
    assert plain(config, "data.train.dataset.keep_empty") is False
    if name in SIDES:
        assert [t["short"] for t in transforms if t["type"] == "ResizeShortestEdge"] == [SIDES[name]]


@pytest.mark.parametrize("name", EPOCHS)
def test_epochs_are_counted_in_steps_of_images_with_objects(name: str) -> None:
    config, (epochs, falls) = tree(name), EPOCHS[name]
    steps = WITH_OBJECTS // plain(config, "data.loader.batch_size")
    assert abs(plain(config, "train.iterations") / (steps * epochs) - 1) < 2e-3
    assert (plain(config, "schedule.milestones") or []) == [steps * epoch for epoch in falls]
