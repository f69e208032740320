"""What MMDetection computed for a model (tests/golden/mmdet), beside a detkit detector with the same weights."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.io import decode_image

from detkit.config import load_config
from detkit.detectors.build import build_detector
from detkit.detectors.dense import DenseDetector
from detkit.detectors.pixels import normalize
from detkit.heads.base import HeadOutputs, per_anchor
from detkit.structures import BACKGROUND, IGNORED, Losses, Predictions, Targets

GOLDEN = Path(__file__).parents[1] / "golden/mmdet"
Rules = Sequence[tuple[str, "str | Callable[[re.Match[str]], str]"]]
BODY: Rules = (
    (r"^backbone\.stem\.", "backbone."),
    (r"^neck\.lateral\.c(\d)\.", lambda m: f"neck.lateral_convs.{int(m[1]) - 3}.conv."),
    (r"^neck\.output\.c(\d)\.", lambda m: f"neck.fpn_convs.{int(m[1]) - 3}.conv."),
    (r"^neck\.extra\.(\d)\.", lambda m: f"neck.fpn_convs.{int(m[1]) + 3}.conv."),
)
"""detkit's names of ResNet and FPN -> MMDetection's."""
CANVAS = {"inputs": (160, 192), "padded_inputs": (256, 256), "ssd_inputs": (300, 300)}
"""Height and width of the batch by the images that a model is given."""
SCALES = {"head.scales": "bbox_head.scales", "head.refine_scales": "bbox_head.scales_refine"}
"""Factors of each level, which MMDetection keeps one by one."""


def towers(classes: str, boxes: str, quality: str = "") -> Rules:
    """The names of two towers with group norms and their predictors."""
    return (
        (r"^head\.class_tower\.(\d+)\.", lambda m: f"bbox_head.cls_convs.{tower_name(int(m[1]))}."),
        (r"^head\.box_tower\.(\d+)\.", lambda m: f"bbox_head.reg_convs.{tower_name(int(m[1]))}."),
        (r"^head\.class_out\.", f"bbox_head.{classes}."),
        (r"^head\.box_out\.", f"bbox_head.{boxes}."),
        (r"^head\.quality_out\.", f"bbox_head.{quality}."),
    )


def tower_name(module: int) -> str:
    """A tower is convolution, norm, ReLU by turns."""
    return f"{module // 3}.{('conv', 'gn')[module % 3]}"


@dataclass(frozen=True)
class Reference:
    """A model of MMDetection. numbers: its arrays. about: its definition and figures. weights: its state dict."""

    name: str
    numbers: Mapping[str, np.ndarray]
    about: dict[str, Any]
    weights: dict[str, Tensor]

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(np.asarray(self.numbers[key]))

    def __contains__(self, key: str) -> bool:
        return key in self.numbers

    def levels(self, key: str) -> list[Tensor]:
        """The arrays `key.0`, `key.1`, .. of all levels."""
        found = [k for k in self.numbers if re.fullmatch(rf"{re.escape(key)}\.\d", k)]
        return [self[f"{key}.{i}"] for i in range(len(found))]


@cache
def make_weights() -> Any:
    spec = importlib.util.spec_from_file_location("mmdet_make_weights", GOLDEN / "make_weights.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def reference(name: str, folder: Path = GOLDEN) -> Reference:
    """The model `name` of a folder of references."""
    about = json.loads((folder / f"{name}.json").read_text())
    values, shapes = make_weights().values, about["state_dict"]
    weights = {key: torch.from_numpy(values(name, key, shape)) for key, shape in shapes.items()}
    return Reference(name, dict(np.load(folder / f"{name}.npz")), about, weights)


def detector_like(
    config: str, model: Reference, rules: Rules, *overrides: str, copies: Sequence[str] = ()
) -> DenseDetector:
    """detkit's detector of a config, ResNet-18 and three classes, with the weights of the reference.

    Every weight of the reference must be taken, but for counters, constants and `copies`, second names of weights.
    """
    torch.manual_seed(0)
    norm = ["backbone.depth=18", "backbone.norm=frozen_bn"] if "backbone.layer1.0.bn1.weight" in model.weights else []
    detector = build_detector(load_config(config, [*norm, *overrides]), 3)
    state, taken = detector.state_dict(), set()
    for name in state:
        if name.split(".")[0].endswith(("normalizer", "class_loss", "box_loss", "assigner")):
            continue
        if name in SCALES:
            keys = [f"{SCALES[name]}.{i}.scale" for i in range(len(state[name]))]
            state[name] = torch.stack([model.weights[key] for key in keys])
        else:
            keys = [foreign(name, [*BODY, *rules])]
            assert model.weights[keys[0]].shape == state[name].shape, (name, keys[0])
            state[name] = model.weights[keys[0]]
        taken.update(keys)
    left = [key for key in model.weights if key not in taken and key not in copies]
    assert not [key for key in left if not key.endswith(("num_batches_tracked", "integral.project"))]
    detector.load_state_dict(state)
    return detector.eval()


def foreign(name: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


@cache
def inputs(kind: str = "inputs") -> tuple[Tensor, Tensor, list[Targets]]:
    """Images (2, 3, H, W) RGB in their padding, their sizes, and their boxes; kind: a key of `CANVAS`."""
    arrays = np.load(GOLDEN / ("ssd_inputs.npz" if kind == "ssd_inputs" else "inputs.npz"))
    images, sizes = torch.zeros(2, 3, *CANVAS[kind], dtype=torch.uint8), torch.zeros(2, 2, dtype=torch.int64)
    targets = []
    for i in range(2):
        if kind == "ssd_inputs":
            image = decode_image(torch.from_numpy(arrays[f"ssd_image{i}"])).flip(0)  # a PNG of the BGR array
        else:
            image = torch.from_numpy(arrays[f"image{i}"][..., ::-1].copy()).permute(2, 0, 1)
        height, width = image.shape[1:]
        images[i, :, :height, :width] = image
        sizes[i] = torch.tensor([height, width])
        targets.append(Targets(torch.from_numpy(arrays[f"boxes{i}"]), torch.from_numpy(arrays[f"labels{i}"])))
    return images, sizes, targets


def targets_of(variant: str, kind: str = "inputs") -> list[Targets]:
    """The boxes of a variant: `full`, `half` (the second image has none) or `none`."""
    empty = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    first, second = inputs(kind)[2]
    return {"full": [first, second], "half": [first, empty], "none": [empty, empty]}.get(variant, [first, second])


def check_input(detector: DenseDetector, model: Reference, kind: str = "inputs") -> None:
    """The normalised pixels are those of the reference."""
    images, sizes, _ = inputs(kind)
    pixels = normalize(images, sizes, detector.pixels).double()
    wanted = model["input.sum"]
    torch.testing.assert_close(torch.stack((pixels.sum(), pixels.abs().sum())), wanted, rtol=1e-6, atol=1e-2)


def predict(detector: DenseDetector, kind: str = "inputs") -> Predictions:
    images, sizes, _ = inputs(kind)
    return detector(images, sizes)


def check_head(detector: DenseDetector, model: Reference, names: Mapping[str, str]) -> None:
    """The head's outputs on made-up features; names: field of `HeadOutputs` -> that of the reference."""
    levels = len(model.levels(f"head_only.{names['logits']}"))
    # One image, half the neck's height and width, rounded up.
    shapes = [model[f"neck.{i}.shape"].tolist() for i in range(levels)]
    small = [(1, c, -(-h // 2), -(-w // 2)) for _, c, h, w in shapes]
    features = [torch.from_numpy(make_weights().features(i, shape)) for i, shape in enumerate(small)]
    with torch.no_grad():
        outputs = HeadOutputs(*detector.head(features))
    for field, name in names.items():
        found = getattr(outputs, field)
        for i, level in enumerate(model.levels(f"head_only.{name}")):  # a reference that was cut to size has none
            torch.testing.assert_close(found[i], per_anchor(level, found[i].shape[-1]), rtol=1e-5, atol=1e-4)


def check_outputs(pred: Predictions, model: Reference, names: Mapping[str, str], atol: float = 1e-4) -> None:
    """Raw outputs of the whole network; names: field of `Predictions` -> that of the reference.

    A reference that was cut to size lacks some levels.
    """
    for field, name in names.items():
        levels = torch.split(getattr(pred, field), list(pred.level_sizes), dim=1)
        keys = [f"raw.{name}.{i}" for i in range(len(levels))]
        assert sum(key in model for key in keys) >= len(levels) - 1
        for key, level in zip(keys, levels, strict=True):
            if key in model:
                torch.testing.assert_close(level, per_anchor(model[key], level.shape[-1]), rtol=1e-5, atol=atol)


def check_network(detector: DenseDetector, pred: Predictions, model: Reference, names: Mapping[str, str]) -> None:
    """Pixels, anchors, outputs of the whole network and those of the head alone."""
    check_input(detector, model)
    check_anchors(pred, model)
    check_outputs(pred, model, names)
    check_head(detector, model, names)


def check_anchors(pred: Predictions, model: Reference, atol: float = 0) -> None:
    """Anchors, or points and strides, of the reference."""
    priors = torch.cat(model.levels("priors"))
    if priors.shape[1] == 4 and bool((priors[:, 2:] == priors[:, 2:3]).all()) and bool((priors[:, 2] >= 8).all()):
        anchors = pred.anchors
        points = torch.cat(((anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]), dim=1)
        torch.testing.assert_close(points[:, :2], priors[:, :2], rtol=0, atol=0)
    else:
        torch.testing.assert_close(pred.anchors, priors, rtol=0, atol=atol)


def check_labels(labels: Tensor, wanted: Tensor, ignored: Tensor | None = None) -> None:
    """Labels (B, A); wanted: 0 .. K - 1, and K for background. ignored: (B, A) anchors that count nowhere."""
    expected = torch.where(wanted == 3, BACKGROUND, wanted)
    expected = expected if ignored is None else expected.masked_fill(ignored, IGNORED)
    assert torch.equal(labels, expected)


def divided(detector: DenseDetector, losses: Losses) -> dict[str, Tensor]:
    """The loss terms as a training step divides them."""
    divisors = detector.divide({name: n.double() for name, n in losses.normalizers.items()})
    return {name: (term / divisors[losses.divisor_of(name)]).detach() for name, term in losses.terms.items()}


def check_losses(
    detector: DenseDetector,
    pred: Predictions,
    model: Reference,
    variant: str,
    names: Mapping[str, str],
    kind: str = "inputs",
) -> None:
    """Loss terms of a variant; names: term -> loss of the reference."""
    terms = divided(detector, detector.loss(pred, targets_of(variant, kind)))
    assert terms.keys() == names.keys()
    for term, name in names.items():
        wanted = model.about["losses"][variant][name]
        assert float(terms[term]) == torch.tensor(wanted).double().item() or abs(
            float(terms[term]) - wanted
        ) <= 1e-5 * abs(wanted), (term, float(terms[term]), wanted)


def check_detections(detector: DenseDetector, pred: Predictions, model: Reference, kind: str = "inputs") -> None:
    """Final detections, paired by label and box."""
    found = detector.detect(pred, inputs(kind)[1])
    for i, image in enumerate(found):
        boxes, scores, labels = (model[f"det.{i}.{name}"] for name in ("boxes", "scores", "labels"))
        assert len(image) == len(boxes)
        far = (image.boxes[:, None] - boxes).abs().amax(dim=2) + 1e4 * (image.labels[:, None] != labels)
        far += 1e4 * ((image.scores[:, None] - scores).abs() > 1e-4)
        assert sorted(far.argmin(dim=1).tolist()) == list(range(len(boxes)))
        assert float(far.amin(dim=1).max() if len(boxes) else 0) < 0.05


def check_gradients(detector: DenseDetector, model: Reference, rules: Rules, variant: str) -> None:
    """The norm of the gradient of every parameter, which shows what is a constant to the gradient."""
    images, sizes, _ = inputs()
    losses = detector.loss(detector(images, sizes), targets_of(variant))
    total = losses.over(detector.divide({name: n.double() for name, n in losses.normalizers.items()}))
    wanted = dict(zip(model.about["grad_keys"], model[f"{variant}.grad_norms"].tolist(), strict=True))
    trained = {
        key: parameter
        for name, parameter in detector.named_parameters()
        if (key := foreign(name, [*BODY, *rules])) in wanted
    }
    assert trained.keys() == wanted.keys()
    found = torch.autograd.grad(total, list(trained.values()), materialize_grads=True)
    for key, gradient in zip(trained, found, strict=True):
        norm = float(gradient.double().norm())
        assert abs(norm - wanted[key]) <= 1e-3 * wanted[key] + 1e-5, (key, norm, wanted[key])
