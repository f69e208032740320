"""Multiply-adds against counts by hand, and what is not counted."""

from __future__ import annotations

import builtins
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detkit.bench.count import HANDLES, analyse, count
from detkit.config import load_config
from detkit.detectors.build import build_detector
from detkit.layers.deformable import DeformableConv2d
from detkit.native.library import native
from detkit.ops import sigmoid_focal_sum
from detkit.ops.suppression.hard import nms
from tests.conftest import CONFIG
from tests.refusals import Refuses


class Calls(nn.Module):
    """A function as a module, as fvcore takes it."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


def test_a_deformable_convolution_by_hand() -> None:
    """3x3, 4 to 8 channels, 6x5 places: its own products, reading between four cells, and the offsets' convolution."""
    analysis = analyse(DeformableConv2d(4, 8, 3, padding=1), (torch.rand(2, 4, 6, 5),))
    places = 2 * 6 * 5
    assert analysis.total() == places * (8 * 4 * 9 + 4 * 4 * 9 + 18 * 4 * 9)
    assert not analysis.unsupported_ops()


@pytest.mark.skipif(not native.cpu, reason="no native library")
def test_the_focal_loss_and_suppression_are_known() -> None:
    labels = torch.zeros(7, dtype=torch.int64)
    loss = analyse(Calls(lambda logits: sigmoid_focal_sum(logits, labels)), (torch.rand(7, 3),))
    assert loss.total() == 21
    boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0]] * 5)
    kept = analyse(Calls(lambda scores: nms(boxes, scores, 0.5)), (torch.rand(5),))
    assert kept.total() == 20
    assert not any(name.startswith("detkit::") for name in [*loss.unsupported_ops(), *kept.unsupported_ops()])


def test_every_native_operation_has_a_handle() -> None:
    names = {name for name in dir(torch.ops.detkit) if not name.startswith("_") and name not in ("name", "cpu_lanes")}
    forward = {f"detkit::{name}" for name in names if not name.endswith("_backward")}
    assert forward <= HANDLES.keys()


def test_rooms_add_up_and_the_rest_is_named() -> None:
    detector = build_detector(load_config(CONFIG, ["neck.channels=8", "head.num_convs=1"]), 3).eval()
    found = count(detector, torch.zeros(1, 3, 64, 64), torch.tensor([[64, 64]]))
    assert set(found["rooms"]) == {"backbone", "neck", "head"}
    for what in ("parameters", "multiply_adds"):
        assert sum(room[what] for room in found["rooms"].values()) == found["total"][what] > 0
    assert found["total"]["parameters"] == sum(p.numel() for p in detector.parameters())
    twice = count(detector, torch.zeros(2, 3, 64, 64), torch.tensor([[64, 64]] * 2))
    assert twice["total"]["multiply_adds"] == 2 * found["total"]["multiply_adds"]
    assert "aten::max_pool2d" in found["not_counted"]


def test_without_fvcore_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch, refuses: Refuses) -> None:
    original = builtins.__import__

    def missing(name: str, *more: Any, **options: Any) -> Any:
        if name.startswith("fvcore"):
            raise ImportError("No module named fvcore")
        return original(name, *more, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    with refuses(ImportError):
        analyse(nn.Linear(1, 1), (torch.rand(1, 1),))
