"""Losses of every detector on predictions that no reference has: extreme, half precise, odd in memory; odd objects."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from detkit.config import load_config
from detkit.detectors import build
from detkit.structures import Losses, Predictions, Targets
from tests.family.test_fragments import DETECTORS, SIDE, overrides, pyramid

EACH = pytest.mark.parametrize("config", DETECTORS)
SCENES = {
    "between the points": [[3.1, 3.1, 3.9, 3.9]],
    "all the same": [[10.0, 12, 40, 50]] * 3,
    "larger than the image": [[-40.0, -30, 150, 140], [10, 10, 30, 40]],
    "at the border": [[0.0, 0, 20, 16], [50, 44, 64, 64]],
}


@cache
def built(config: str) -> Any:
    """A detector on given features, and how many columns its head has."""
    known = pyramid(config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "build_pyramid", lambda _: (*known[:3], dict(known[3])))
        patch.setattr(build, "probe", lambda _: None)
        torch.manual_seed(0)
        classes = 80 if "autoassign" in config else 3  # which its config says
        detector = build.build_detector(load_config(config, overrides(config)), classes).eval()
    with torch.no_grad():
        return detector, detector(torch.zeros(2, 3, SIDE, SIDE), torch.tensor([[SIDE, SIDE], [40, 50]]))


def objects(boxes: Any, ignore: Any = ()) -> Targets:
    true, regions = (torch.tensor(of, dtype=torch.float32).reshape(-1, 4) for of in (boxes, ignore))
    return Targets(true, torch.arange(len(true)) % 3, regions)


NOTHING, SOME = objects([]), objects([[4, 6, 30, 31], [20, 30, 62, 60]])


def noise(pred: Predictions, size: float, kind: torch.dtype = torch.float32) -> Predictions:
    """Predictions that vary by about `size` around those of the detector, as leaves."""
    generator = torch.Generator().manual_seed(3)

    def moved(x: Tensor | None) -> Tensor | None:
        if x is None:
            return None
        return (x + size * torch.randn(x.shape, generator=generator)).to(kind).requires_grad_()

    return changed(pred, moved)


def changed(pred: Predictions, of: Any) -> Predictions:
    fields = {name: of(getattr(pred, name)) for name in ("logits", "deltas", "quality", "first")}
    return replace(pred, **fields)


def gradients(pred: Predictions, losses: Losses) -> list[Tensor]:
    leaves = [x for x in (pred.logits, pred.deltas, pred.quality, pred.first) if x is not None]
    found = torch.autograd.grad(losses.mean(), leaves, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True)]


@EACH
def test_terms_and_gradients_are_finite(config: str) -> None:
    detector, shapes = built(config)
    pred = noise(shapes, 80.0)
    for targets in ([SOME, NOTHING], [NOTHING, NOTHING], *([objects(boxes), SOME] for boxes in SCENES.values())):
        losses = detector.loss(pred, targets)
        assert all(term.isfinite() for term in losses.terms.values())
        assert all(g.isfinite().all() for g in gradients(pred, losses))
    found = detector.detect(pred, torch.tensor([[SIDE, SIDE], [40, 50]]))
    assert all(each.boxes.isfinite().all() and (each.scores <= 1).all() for each in found)


@EACH
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_is_the_float32_of_the_same_numbers(config: str, kind: torch.dtype) -> None:
    detector, shapes = built(config)
    half = noise(shapes, 1.0, kind)
    wide = changed(half, lambda x: None if x is None else x.detach().float())
    found, wanted = (detector.loss(pred, [SOME, NOTHING]).terms for pred in (half, wide))
    for name, term in found.items():
        assert term.dtype == torch.float32, name
        torch.testing.assert_close(term, wanted[name], rtol=1e-5, atol=1e-6, msg=name)


@EACH
def test_memory_and_split_do_not_matter(config: str) -> None:
    """Crowds and sizes belong to their image; strides of memory belong to nobody."""
    detector, shapes = built(config)
    whole, targets = noise(shapes, 1.0), [objects([[4, 6, 30, 31]], [[30, 0, 64, 30]]), objects([[10, 10, 38, 36]])]
    losses = detector.loss(whole, targets)
    turned = changed(whole, lambda x: None if x is None else x.transpose(1, 2).contiguous().transpose(1, 2))
    for name, term in detector.loss(turned, targets).terms.items():
        torch.testing.assert_close(term, losses.terms[name], rtol=1e-5, atol=1e-6)
    parts = []
    for i in (0, 1):
        one = changed(whole, lambda x: None if x is None else x[i : i + 1])  # noqa: B023
        parts.append(detector.loss(replace(one, sizes=one.sizes[i : i + 1]), targets[i : i + 1]))
    for name, term in losses.terms.items():
        torch.testing.assert_close(term, parts[0].terms[name] + parts[1].terms[name], rtol=1e-5, atol=1e-6)
    for name, count in losses.normalizers.items():
        torch.testing.assert_close(
            count.double(), parts[0].normalizers[name].double() + parts[1].normalizers[name].double()
        )
