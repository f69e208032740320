"""The rules by which `detkit train DATA` chooses a config. EXPERIMENTS.md has the trainings they come from."""

from __future__ import annotations

import math
from dataclasses import dataclass

from detkit.train.auto.backbones import Start
from detkit.train.auto.choices import Choices
from detkit.train.auto.facts import Facts
from detkit.utils.console import plural, shorten_list
from detkit.utils.types import Tree

BASE = "detkit:configs/base/retinanet.yaml"
SMALL_OBJECT = 24
"""Pixels that the side of a small object has at the network's size, where the limits allow it."""
LEAST_SIDE, MOST_SIDE, MOST_SIDE_GPU = 352, 640, 800
"""Limits of the side of an image (square root of its area), pixels."""
SHRUNK_SIDE = 256
"""Least side where the time is too short for `LEAST_SIDE`."""
MULTIPLE = 32
FINEST_BELOW = 48
"""Pixels of the small objects' side below which the level of stride 8 is used."""
FEWEST_PASSES, MOST_PASSES = 12, 80
FEWEST_STEPS, LEAST_STEPS = 300, 10
"""Steps that even a small set gets if there is time, and without it."""
TRAINING_PART = 0.85
"""Part of the time that training gets; the rest is for looking at the data, starting and evaluating."""
EVALUATION_PART = 0.08
EVALUATION_COST = 0.5
"""Seconds of an image's evaluation over those of its training step."""
JITTER, STRONG_JITTER = (0.8, 1.2), (0.7, 1.4)
STRONG_FROM = 25
"""Passes from which augmentation is strong."""
SCORE = 0.01
"""Score from which detections are kept: AP gains from the unsure ones of small classes."""
LEAST_NMS, MOST_NMS, NMS_GRID = 0.5, 0.7, 0.05
"""Limits of the IoU from which NMS takes two detections for one, and the grid that it lies on."""
BATCH, BATCH_GPU = 4, 16
LEARNING_RATE, PRETRAINED_HEAD_RATE, LR_BATCH = 1e-3, 2e-3, 4
PRETRAINED_RATE = 0.1
"""Factor on the learning rate of pretrained weights, which the full rate of AdamW would wipe out."""


@dataclass(frozen=True)
class Size:
    """What the network sees of an image, pixels. why: the reason."""

    height: int
    width: int
    why: str

    @property
    def side(self) -> float:
        return math.sqrt(self.height * self.width)


def choose_side(facts: Facts, *, on_gpu: bool) -> tuple[float, str]:
    """Side of the images for small objects to be large enough, and why."""
    most = MOST_SIDE_GPU if on_gpu else MOST_SIDE
    wanted, native = SMALL_OBJECT / facts.small, math.sqrt(facts.height * facts.width)
    small = f"small objects ({facts.small_class}) are {100 * facts.small:.1f} % of an image's side"
    side = max(LEAST_SIDE, min(wanted, most, native))
    limits = {LEAST_SIDE: ", the least", most: ", the most", native: ", that of the images"}
    return side, f"{small}, so {facts.small * side:.0f} px at a side of {side:.0f}{limits.get(side, '')}"


def size_of(side: float, facts: Facts, why: str) -> Size:
    """Height and width of an area of side^2 px, in the shape of the images."""
    height, width = (round_to_multiple(side * factor) for factor in (facts.aspect**-0.5, facts.aspect**0.5))
    return Size(height, width, why)


def round_to_multiple(pixels: float) -> int:
    return max(MULTIPLE, round(pixels / MULTIPLE) * MULTIPLE)


def choose_network(choices: Choices, start: Start, *, on_gpu: bool) -> None:
    """Backbone, neck, head and box loss."""
    if start.weights is None:
        choices.choose("backbone", {"type": "ResNet", "depth": 50 if on_gpu else 18, "norm": "bn"}, start.why)
    else:
        choices.choose("backbone.type", "TorchvisionBackbone")
        choices.choose("backbone.name", start.network, "fast on a CPU" if not on_gpu else "for a GPU")
        choices.choose("backbone.weights", start.weights, start.why)
        choices.choose(
            "backbone.freeze_at", 2, "the first blocks keep their ImageNet weights: a step takes half the time"
        )
    choices.choose("neck.type", "FPN")
    choices.choose("neck.channels", 256 if on_gpu else 96, "as many as the machine computes fast")
    choices.choose("neck.extra_levels", 1)
    choices.choose("neck.norm", "bn")
    choices.choose("head.num_convs", 4 if on_gpu else 2)
    choices.choose("head.norm", "gn")
    choices.choose("losses.classification", {"type": "SoftmaxMiningLoss"}, "its classes compete: learns fast")
    choices.choose("losses.box", {"type": "GIoULoss", "weight": 2.0}, "fits boxes of every size alike")


def choose_detections(choices: Choices, facts: Facts) -> None:
    """Which detections are kept."""
    choices.choose("postprocess.score_threshold", SCORE, "unsure detections count in AP")
    wanted = math.ceil(round(facts.overlap / NMS_GRID, 6)) * NMS_GRID
    why = f"98 % of the objects overlap others of their class by an IoU of {facts.overlap:.2f} at most"
    choices.choose("nms.iou_threshold", round(min(max(wanted, LEAST_NMS), MOST_NMS), 2), why)


def choose_levels(choices: Choices, facts: Facts, size: Size) -> None:
    """The finest level."""
    pixels = facts.small * size.side
    fine = pixels < FINEST_BELOW
    levels = ["c3", "c4", "c5"] if fine else ["c4", "c5"]
    why = f"small objects are {pixels:.0f} px: " + ("stride 8 is needed" if fine else "stride 8 would only cost time")
    choices.choose("backbone.out_features", levels, why)


def choose_transforms(choices: Choices, facts: Facts, size: Size, *, strong: bool) -> None:
    """Sizes and augmentation."""
    fit = {"height": size.height, "width": size.width}
    jitter, colour = (STRONG_JITTER, 0.3) if strong else (JITTER, 0.2)
    train: list[Tree] = [
        {"type": "ScaleJitter", **fit, "scale_range": list(jitter)},
        {"type": "RandomCrop", **fit},
        *([{"type": "RandomHorizontalFlip"}] if strong and not facts.sided else []),
        {"type": "ColorJitter", "brightness": colour, "contrast": colour, "saturation": colour},
    ]
    choices.choose(
        "data.train.transforms", train, f"{size.height} x {size.width} px: {size.why}; {why_so(facts, strong)}"
    )
    short, long = sorted((size.height, size.width))
    resize = {"type": "ResizeShortestEdge", "short": short, "max_size": long}
    choices.choose("data.val.transforms", [resize], "the same size, without changes")


def why_so(facts: Facts, strong: bool) -> str:
    """The reason for the augmentation."""
    if not strong:
        return f"little augmentation: images are not learnt by heart in fewer than {STRONG_FROM} passes"
    if facts.sided:
        return f"no mirroring, as it would exchange {shorten_list(list(facts.sided), 4)}"
    return f"zoom, crops and mirroring against learning the images by heart in more than {STRONG_FROM} passes"


def choose_batch(choices: Choices, facts: Facts, cores: int, *, on_gpu: bool) -> None:
    """Images of a step, and what loads them."""
    batch = min(BATCH_GPU if on_gpu else BATCH, facts.images)
    workers = min(cores // 2, 8)
    choices.choose("data.loader.batch_size", batch, f"for {'a GPU' if on_gpu else 'a CPU'} and {facts.images} images")
    choices.choose("data.loader.num_workers", workers, f"of {plural(cores, 'core')}")


def choose_optimizer(choices: Choices, batch: int, *, pretrained: bool) -> None:
    full = PRETRAINED_HEAD_RATE if pretrained else LEARNING_RATE
    rate = float(f"{full * math.sqrt(batch / LR_BATCH):.3g}")
    choices.choose("optimizer.type", "AdamW")
    choices.choose("optimizer.lr", rate, f"for batches of {plural(batch, 'image')}")
    choices.choose("optimizer.weight_decay", 0.05)
    if pretrained:
        choices.choose(
            "optimizer.backbone_lr_factor", PRETRAINED_RATE, "so that the ImageNet weights are not wiped out"
        )
    choices.choose("schedule.type", "Cosine")


def passes(seconds: float, step: float, batch: int, images: int) -> float:
    """Passes over the data that a training of some seconds makes."""
    return seconds / step * batch / images


def shrink(side: float, possible: float) -> float:
    """The side with which there is time for `FEWEST_PASSES`, where there is for `possible` now."""
    return max(SHRUNK_SIDE, min(side, side * math.sqrt(possible / FEWEST_PASSES)))


def choose_length(
    choices: Choices, facts: Facts, batch: int, step: float, minutes: float, val_images: int, *, spent: float = 0.0
) -> None:
    """Steps, evaluations, and what depends on them. spent: seconds of the minutes that are over."""
    budget = min(60 * minutes * TRAINING_PART, (60 * minutes - spent) * (1 - EVALUATION_PART))
    evaluation = val_images * EVALUATION_COST * step / batch
    evaluations = max(1, min(4, int(60 * minutes * EVALUATION_PART / evaluation)))
    most = max(FEWEST_STEPS, MOST_PASSES * facts.images // batch)
    affordable = int((budget - max(0.0, evaluations * evaluation - 60 * minutes * EVALUATION_PART)) / step)
    steps = max(LEAST_STEPS, min(affordable, most))
    limit = f"{minutes:g} minutes" if steps == affordable else f"{MOST_PASSES} passes or {FEWEST_STEPS} steps at most"
    rounds = passes(steps, 1, batch, facts.images)
    why = f"{limit}; a step takes {step:.3g} s here, measured; {rounds:.3g} passes over the data"
    choices.choose("train.iterations", steps, why)
    follow_length(choices, steps, evaluations)


def follow_length(choices: Choices, steps: int, evaluations: int) -> None:
    """What depends on the number of steps."""
    choices.choose("schedule.warmup_iterations", max(1, min(100, steps // 15)), "a fifteenth of the steps")
    choices.choose("train.ema_decay", round(min(0.999, max(0.5, 1 - 10 / steps)), 4), "averages a tenth of the steps")
    every = -(-steps // evaluations)
    choices.choose("train.eval_every", every, f"{plural(evaluations, 'evaluation')}")
    choices.choose("train.checkpoint_every", every)
