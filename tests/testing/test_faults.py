"""A contract catches a planted fault, by the check that is meant for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detkit.anchors.octave import OctaveAnchors
from detkit.assigners.max_iou import MaxIoUAssigner
from detkit.backbones.base import Backbone
from detkit.coders.delta import DeltaCoder
from detkit.data.datasets.shapes import ShapesDataset
from detkit.data.transforms.geometry import RandomHorizontalFlip
from detkit.detectors.nms import HardNMS
from detkit.heads.shared_tower import SharedTowerHead
from detkit.losses.focal import SigmoidFocalLoss
from detkit.losses.l1 import L1Loss
from detkit.losses.normalizers import PositiveCount
from detkit.necks.no_neck import NoNeck
from detkit.structures import Assignment, ClassMap, FeatureShape, Targets
from detkit.testing import (
    Contract,
    ContractError,
    check_anchor_generator,
    check_assigner,
    check_backbone,
    check_box_loss,
    check_class_loss,
    check_coder,
    check_dataset,
    check_head,
    check_neck,
    check_nms,
    check_normalizer,
    check_transform,
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


class Swaps(NoNeck):
    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return dict(reversed(super().forward(features).items()))


class Normalizes(NoNeck):
    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        for feature in features.values():
            feature.div_(feature.norm())
        return features


class Transposed(SharedTowerHead):
    def forward(self, features: Any) -> tuple[list[Tensor], list[Tensor]]:
        return super().forward([f.transpose(2, 3) for f in features])


class ForgetsTheBias(SharedTowerHead):
    def __init__(self, **arguments: Any) -> None:
        super().__init__(**{**arguments, "class_bias": torch.zeros(3)})


class OneTooMany(MaxIoUAssigner):
    def forward(self, *arguments: Any) -> Assignment:
        found = super().forward(*arguments)
        return replace(found, labels=torch.where(found.labels >= 0, found.labels + 1, found.labels))


class ForgetsCrowds(MaxIoUAssigner):
    def forward(self, anchors: Tensor, sizes: Any, targets: Targets, *rest: Any) -> Assignment:
        return super().forward(anchors, sizes, replace(targets, ignore=torch.zeros(0, 4)), *rest)


class WholeMatrix(MaxIoUAssigner):
    def __init__(self) -> None:
        super().__init__(chunk_elements=10**9)


class LastBoxWins(MaxIoUAssigner):
    def forward(self, anchors: Tensor, sizes: Any, targets: Targets, *rest: Any) -> Assignment:
        found = super().forward(anchors, sizes, targets, *rest)
        return replace(found, labels=torch.where(found.labels >= 0, targets.labels[-1:].sum(), found.labels))


class Unordered(HardNMS):
    def forward(self, *arguments: Tensor) -> tuple[Tensor, Tensor]:
        keep, scores = super().forward(*arguments)
        return keep.flip(0), scores.flip(0)


class KeepsAll(HardNMS):
    def forward(self, boxes: Tensor, scores: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
        scores, order = scores.sort(descending=True)
        return order, scores


class KeepsOne(HardNMS):
    def forward(self, *arguments: Tensor) -> tuple[Tensor, Tensor]:
        keep, scores = super().forward(*arguments)
        return keep[:1], scores[:1]


class MeanCount(PositiveCount):
    def forward(self, labels: Tensor) -> Tensor:
        return super().forward(labels) / len(labels)


class NoFloor(PositiveCount):
    def divisor(self, total: Tensor) -> Tensor:
        return total


class OwnDice(RandomHorizontalFlip):
    def __call__(self, image: Any, boxes: Any, labels: Tensor) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.seed()
            return super().__call__(image, boxes, labels)


class LosesLabels(RandomHorizontalFlip):
    def __call__(self, image: Any, boxes: Any, labels: Tensor) -> Any:
        image, boxes, labels = super().__call__(image, boxes, labels)
        return image, boxes, labels + 1


class OutOfRange(ShapesDataset):
    def __init__(self) -> None:
        super().__init__(num_images=3, size=64)
        self.classes = ClassMap(("one",), (1,))


class FreshImages(ShapesDataset):
    def __init__(self) -> None:
        super().__init__(num_images=3, size=64)

    def load_image(self, index: int) -> Any:
        from PIL import Image

        return Image.fromarray(torch.randint(0, 256, (64, 64, 3), dtype=torch.uint8).numpy())


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
    (check_neck, Swaps, "levels_are_as_declared"),
    (check_neck, Normalizes, "inputs_stay_as_they_are"),
    (check_head, Transposed, "rows_run_over_cells_row_by_row"),
    (check_head, ForgetsTheBias, "starts_at_the_bias_of_the_loss"),
    (check_assigner, OneTooMany, "labels_are_those_of_the_matched_boxes"),
    (check_assigner, LastBoxWins, "order_of_boxes_does_not_matter"),
    (check_assigner, ForgetsCrowds, "ignore_regions_are_no_background"),
    (check_assigner, WholeMatrix, "makes_no_anchors_by_boxes_matrix"),
    (check_nms, Unordered, "keeps_in_order_of_scores"),
    (check_nms, KeepsAll, "duplicates_go_or_sink"),
    (check_nms, KeepsOne, "boxes_apart_stay"),
    (check_normalizer, MeanCount, "counts_add_up_over_images"),
    (check_normalizer, NoFloor, "divisor_is_above_zero"),
    (check_transform, OwnDice, "same_seed_same_result"),
    (check_transform, LosesLabels, "boxes_stay_valid"),
    (check_dataset, OutOfRange, "labels_are_in_range"),
    (check_dataset, FreshImages, "same_record_twice"),
]


@pytest.mark.parametrize(("contract", "fault", "name"), FAULTS, ids=[f"{f.__name__}-{n}" for _, f, n in FAULTS])
def test_catches(contract: Contract, fault: Any, name: str) -> None:
    check = next(c for c in contract.checks if c.name == name)
    assert contract.run_one(contract.subject(fault), check).seen


def test_first_fault_raises_with_what_was_seen_and_why() -> None:
    with pytest.raises(ContractError, match=r"spare\.weight.*Why it matters: .*DDP"):
        check_backbone(Unused)


def test_sound_part_passes_all() -> None:
    report = check_backbone(Net, check_all=True)
    assert not report.failed, str(report)
