"""Every fragment of configs/losses on every detector: it trains, or is refused in words before training."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detkit import registry
from detkit.config import load_config
from detkit.detectors import build
from detkit.structures import Targets
from tests.family.test_training import FAMILY, ROOT, SMALL

DETECTORS = [
    *(config for config in FAMILY if not config.endswith("_l.yaml")),
    "configs/ssd/ssdlite320_mobilenet_v3.yaml",
    "projects/autoassign/r50_fpn.yaml",
    "projects/freeanchor/r50_fpn.yaml",
]
FRAGMENTS = sorted(path.stem for path in (ROOT / "configs/losses").glob("*.yaml"))
ON_DELTAS = ("box_balanced_l1", "box_huber", "box_l1", "box_smooth_l1")
SOFTMAX = ("seesaw", "softmax_mining")
SIDE = 64
PAIRS = [(config, fragment) for config in DETECTORS for fragment in FRAGMENTS]
SAMPLE = {
    *((DETECTORS[i % len(DETECTORS)], fragment) for i, fragment in enumerate(FRAGMENTS)),
    *((config, fragment) for config in ("configs/gfl/gflv2.yaml", "configs/tood/tood.yaml") for fragment in SOFTMAX),
    *(("projects/freeanchor/r50_fpn.yaml", fragment) for fragment in ("focal", "box_giou")),
    ("configs/gfl/gfl.yaml", "box_l1"),
}


def refusal(config: str, fragment: str) -> str | None:
    """What the refusal of a pair says; None if it trains."""
    if config.startswith("projects/"):  # a joint loss
        if fragment.startswith("box_"):
            return "is a loss of classes and boxes together: set losses.box: null"
        return "losses.box: missing"
    if "/gfl/" in config and fragment in ON_DELTAS:
        return "use a loss on boxes, such as GIoULoss"
    if Path(config).stem in ("gflv2", "tood", "yolof") and fragment in SOFTMAX:
        return "use a loss with a sigmoid for each, such as SigmoidFocalLoss"
    return None


class Given(nn.Module):
    """A neck that gives the features it was made with."""

    def __init__(self, features: dict[str, Tensor], out_shapes: dict[str, Any]) -> None:
        super().__init__()
        self.features, self.out_shapes = features, out_shapes

    def forward(self, _: Tensor) -> dict[str, Tensor]:
        return self.features


def overrides(config: str) -> list[str]:
    """Makes a detector small."""
    whole = load_config(config)
    found = [
        *SMALL.get(str(whole.backbone.type), ()),
        *(["backbone.weights=null"] if "weights" in whole.backbone else []),
    ]
    found += ["neck.channels=32"] if whole.neck.type in ("FPN", "DilatedEncoder") else []
    found += ["head.box_convs=1"] if "box_convs" in whole.head else []
    return [*found, "head.num_convs=1"] if "num_convs" in whole.head else found


@cache
def pyramid(config: str) -> Any:
    """A neck that gives noise of the shapes of a detector's features, anchors, and what the head derives from them."""
    whole = load_config(config, overrides(config))
    with torch.device("meta"):
        _, neck, _, of_head = build.build_pyramid(whole)
    shapes = neck.out_shapes
    noise = torch.Generator().manual_seed(0)
    features = {
        name: torch.randn(2, s.channels, -(-SIDE // s.stride), -(-SIDE // s.stride), generator=noise).relu()
        for name, s in shapes.items()
    }
    anchors = whole.build(registry.ANCHORS, "anchors", strides=tuple(s.stride for s in shapes.values()))
    return nn.Identity(), Given(features, shapes), anchors, of_head


@pytest.fixture
def built_of(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Builds the head and losses of a pair on a pyramid that doesn't compute; losses change no other part."""

    def make(config: str, fragment: str) -> Any:
        known = pyramid(config)
        monkeypatch.setattr(build, "build_pyramid", lambda _: (*known[:3], dict(known[3])))
        torch.manual_seed(0)
        overlay = ROOT / f"configs/losses/{fragment}.yaml"
        return build.build_detector(load_config(config, overrides(config), overlays=[overlay]), 3).train()

    monkeypatch.setattr(build, "probe", lambda _: None)
    return make


@pytest.mark.parametrize(
    ("config", "fragment"),
    [pytest.param(*pair, marks=() if pair in SAMPLE else pytest.mark.slow) for pair in PAIRS],
)
def test_it_trains_or_is_refused(config: str, fragment: str, built_of: Any) -> None:
    words = refusal(config, fragment)
    if words is not None:
        with pytest.raises(ValueError, match=words):
            built_of(config, fragment)
        return
    model = built_of(config, fragment)
    images = torch.zeros(2, 3, SIDE, SIDE, dtype=torch.uint8)
    objects = Targets(torch.tensor([[4.0, 6, 30, 31], [20, 30, 62, 60]]), torch.tensor([0, 2]))
    nothing = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    for targets in ([objects, nothing], [nothing, nothing]):
        for progress in (0.0, 1.0):
            model.progress = progress
            check_step(model, images, targets)


def check_step(model: Any, images: Tensor, targets: list[Targets]) -> None:
    """A step has finite terms and divisors, and finite gradients for every parameter; the losses end it."""
    model.zero_grad(set_to_none=True)
    losses = model.loss(model(images), targets)
    divisors = model.end_step({name: n.double() for name, n in losses.normalizers.items()}, model.take_accumulated())
    assert all(term.isfinite() and term.requires_grad for term in losses.terms.values())
    assert all(divisor.isfinite() and divisor > 0 for divisor in divisors.values())
    losses.over(divisors).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
    if len(targets[0].boxes):
        assert any(gradient.any() for gradient in gradients.values())
