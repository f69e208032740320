"""Every detector of the family takes a training step: finite terms, a gradient everywhere, and a loss that falls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from detkit.config import load_config
from detkit.detectors.build import build_detector
from detkit.structures import Targets

ROOT = Path(__file__).parents[2]
OTHERS = ("base", "losses", "training", "quickstart", "retinanet", "ssd")
FAMILY = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "configs").glob("*/*.yaml")
    if (path.parent.name not in OTHERS or path.stem.endswith("_mmdet")) and not path.stem.endswith("_300e")
)
EACH = pytest.mark.parametrize(
    "config", [pytest.param(path, marks=pytest.mark.slow if path.endswith("_l.yaml") else ()) for path in FAMILY]
)
SMALL = {"ResNet": ["backbone.depth=18", "backbone.norm=gn", "backbone.freeze_at=0"]}


def detector(config: str) -> Any:
    torch.manual_seed(0)
    backbone = load_config(config).backbone
    weights = ["backbone.weights=null"] if "weights" in backbone else []
    return build_detector(load_config(config, [*SMALL.get(str(backbone.type), []), *weights]), 3).train()


def batch() -> tuple[Tensor, list[Targets]]:
    """Two images, one with two objects, one with none."""
    images = torch.randint(0, 256, (2, 3, 128, 128), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    objects = Targets(torch.tensor([[8.0, 12, 60, 62], [40, 60, 124, 120]]), torch.tensor([0, 2]))
    return images, [objects, Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))]


def test_the_family_is_complete() -> None:
    names = {Path(path).parent.name for path in FAMILY}
    assert names >= {
        "atss", "ddod", "efficientdet", "fcos", "foveabox", "fsaf", "gfl", "paa", "retinanet", "rtmdet", "ssd", "vfnet",
        "yolof", "yolox",
    }  # fmt: skip
    assert all(len((ROOT / path).read_text().splitlines()) <= 70 for path in FAMILY)


@pytest.mark.parametrize(
    ("config", "epochs_without", "images", "lr"),
    [
        ("yolox/yolox_s", 15, 64, 0.01),
        ("rtmdet/rtmdet_tiny", 20, 256, 0.004),
        ("efficientdet/efficientdet_d0", 0, 128, 0.16),
    ],
)
def test_published_schedules(config: str, epochs_without: int, images: int, lr: float) -> None:
    file = ROOT / f"configs/{config}_300e.yaml"
    whole = load_config(file)
    whole.check()
    assert len(file.read_text().splitlines()) <= 70
    assert (whole.data.loader.batch_size, whole.optimizer.lr) == (images, lr)
    assert whole.train.iterations * images == pytest.approx(300 * 118_287, rel=1e-3)
    mixing = [t.type for t in whole.data.train.transforms if t.type in ("Mosaic", "MixUp")]
    assert mixing == (["Mosaic", "MixUp"] if epochs_without else [])
    if epochs_without:
        assert whole.data.train.final.iterations * 300 == pytest.approx(epochs_without, abs=0.01)
        assert not [t.type for t in whole.data.train.final.transforms if t.type in ("Mosaic", "MixUp")]


@EACH
def test_a_step(config: str) -> None:
    model = detector(config)
    images, targets = batch()
    # Better predictions may be other positives, other targets of a score that learns a quality, or other weights.
    kept: dict[Any, Any] = {}
    match, weigh = model.match, getattr(model.box_weight, "forward", None)
    model.match = lambda pred, given, rule=None: kept.setdefault(rule, match(pred, given, rule))
    if weigh is not None:
        model.box_weight.forward = lambda positives: kept.setdefault("weights", weigh(positives))

    def loss() -> Tensor:
        torch.manual_seed(2)  # of stochastic depth
        losses = model.loss(model(images), targets)
        assert all(term.isfinite() and term.shape == () for term in losses.terms.values())
        return losses.mean()

    before = loss()
    before.backward()
    lost = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not lost
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(g.isfinite().all() for g in gradients)
    norm = torch.nn.utils.get_total_norm(gradients)
    assert norm > 0
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 1e-3 / norm * parameter.grad
    assert loss() < before


@EACH
def test_images_without_objects_teach_the_classes_and_touch_every_parameter(config: str) -> None:
    model = detector(config)
    images, targets = batch()
    losses = model.loss(model(images), [targets[1], targets[1]])
    losses.mean().backward()
    assert losses.total().isfinite()
    # DDP waits for a gradient of every parameter.
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    found = model.eval().detect(model(images), torch.tensor([[128, 128]] * 2))
    assert all(each.boxes.isfinite().all() for each in found)
