"""A contract catches a planted fault, by the check that is meant for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detkit.anchors.octave import OctaveAnchors
from detkit.backbones.base import Backbone
from detkit.coders.delta import DeltaCoder
from detkit.losses.focal import SigmoidFocalLoss
from detkit.losses.l1 import L1Loss
from detkit.structures import FeatureShape
from detkit.testing import (
    Contract,
    ContractError,
    check_anchor_generator,
    check_backbone,
    check_box_loss,
    check_class_loss,
    check_coder,
)


class Net(Backbone):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=8, padding=1)
        self.out_shapes = {"c3": FeatureShape(4, 8)}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"c3": self.conv(images)}


class WrongChannels(Net):
    def __init__(self) -> None:
        super().__init__()
        self.out_shapes = {"c3": FeatureShape(5, 8)}


class WrongAtOddSizes(Net):
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"c3": self.conv(images[..., : images.shape[-2] // 8 * 8, : images.shape[-1] // 8 * 8])}


class Unused(Net):
    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Linear(2, 2)


class AlwaysDrops(Net):
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"c3": nn.functional.dropout(self.conv(images), 0.5, training=True)}


class FixesMode(Net):
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        self.train()
        return super().forward(images)


class MixesImages(Net):
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"c3": self.conv(images - images.mean(dim=0))}


class Divided(SigmoidFocalLoss):
    def forward(self, logits: Tensor, labels: Tensor, quality: Tensor | None = None) -> Tensor:
        return super().forward(logits, labels) / len(logits)


class OffByOne(SigmoidFocalLoss):
    def forward(self, logits: Tensor, labels: Tensor, quality: Tensor | None = None) -> Tensor:
        return super().forward(logits, torch.where(labels >= 0, (labels + 1) % logits.shape[-1], labels))


class LearnsIgnored(SigmoidFocalLoss):
    def forward(self, logits: Tensor, labels: Tensor, quality: Tensor | None = None) -> Tensor:
        return super().forward(logits, labels.clamp(min=-1))


class OtherPrior(SigmoidFocalLoss):
    def initial_bias(self, num_classes: int) -> Tensor:
        return torch.zeros(num_classes)


class NoGraphWhenEmpty(L1Loss):
    def forward(self, deltas: Tensor, anchors: Tensor, boxes: Tensor, coder: Any) -> Tensor:
        return super().forward(deltas, anchors, boxes, coder) if len(deltas) else torch.zeros(())


class MeanBox(L1Loss):
    def forward(self, deltas: Tensor, anchors: Tensor, boxes: Tensor, coder: Any) -> Tensor:
        return super().forward(deltas, anchors, boxes, coder) / max(len(deltas), 1)


class OtherDecode(DeltaCoder):
    def decode(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        return super().decode(deltas, anchors) + 1


class ColumnMajor(OctaveAnchors):
    def forward(self, level_shapes: Any, image_shape: Any, device: Any) -> list[Tensor]:
        levels = super().forward(level_shapes, image_shape, device)
        return [
            b.reshape(h, w, -1, 4).transpose(0, 1).reshape(-1, 4)
            for b, (h, w) in zip(levels, level_shapes, strict=True)
        ]


FAULTS: list[tuple[Contract, Any, str]] = [
    (check_backbone, WrongChannels, "strides_and_channels_are_as_declared"),
    (check_backbone, WrongAtOddSizes, "strides_and_channels_are_as_declared"),
    (check_backbone, Unused, "gradients_reach_every_parameter"),
    (check_backbone, AlwaysDrops, "eval_is_deterministic"),
    (check_backbone, AlwaysDrops, "eval_draws_no_random_numbers"),
    (check_backbone, FixesMode, "forward_keeps_the_mode"),
    (check_backbone, MixesImages, "eval_looks_at_each_image_alone"),
    (check_class_loss, Divided, "sum_adds_up_over_images"),
    (check_class_loss, OffByOne, "scores_follow_the_loss"),
    (check_class_loss, LearnsIgnored, "ignored_anchors_get_no_gradient"),
    (check_class_loss, LearnsIgnored, "ignored_alone_give_zero_with_a_graph"),
    (check_class_loss, OtherPrior, "starts_at_its_prior"),
    (check_box_loss, NoGraphWhenEmpty, "empty_gives_zero_with_a_graph"),
    (check_box_loss, MeanBox, "sum_adds_up_over_boxes"),
    (check_coder, OtherDecode, "decode_undoes_encode"),
    (check_anchor_generator, ColumnMajor, "anchors_stand_on_their_cells"),
]


@pytest.mark.parametrize(("contract", "fault", "name"), FAULTS, ids=[f"{f.__name__}-{n}" for _, f, n in FAULTS])
def test_catches(contract: Contract, fault: Any, name: str) -> None:
    check = next(c for c in contract.checks if c.name == name)
    assert contract.run_one(contract.subject(fault), check).seen


def test_first_fault_raises_with_what_was_seen_and_why() -> None:
    with pytest.raises(ContractError, match="spare.weight.*Why it matters: .*DDP"):
        check_backbone(Unused)


def test_sound_part_passes_all() -> None:
    report = check_backbone(Net, check_all=True)
    assert not report.failed, str(report)
