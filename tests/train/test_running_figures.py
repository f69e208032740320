"""Normalisers and losses with a memory: exact under accumulation, on several processes and after a resume."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detkit.anchors.grid import OctaveAnchors
from detkit.assigners.max_iou import MaxIoUAssigner
from detkit.backbones.base import Backbone
from detkit.checkpoint import read_checkpoint, step_path
from detkit.coders.delta import DeltaCoder
from detkit.detectors.dense import DenseDetector
from detkit.detectors.pixels import PixelOptions
from detkit.detectors.postprocess import PostprocessOptions
from detkit.heads.shared_tower import SharedTowerHead
from detkit.losses.auxiliary import LateL1Loss
from detkit.losses.box_weights import IoUWeight
from detkit.losses.focal import SigmoidFocalLoss
from detkit.losses.iou import WiseIoULoss
from detkit.losses.normalizers import WeightSum
from detkit.losses.quality import IoUQualityLoss
from detkit.necks.fpn import FPN
from detkit.nms.methods import HardNMS
from detkit.registry import CLASS_LOSSES, NORMALIZERS
from detkit.structures import Batch, ClassMap, FeatureShape, Targets
from detkit.train.optim import SGD
from detkit.train.options import TrainOptions
from detkit.train.run_hooks import Checkpoints
from detkit.train.schedule import Constant
from detkit.train.trainer import Trainer

MakeTrainer = Callable[..., Trainer]
CLASSES = ClassMap(("a", "b", "c"), (1, 2, 3))
LOSS_ARGUMENTS = {"EqualizedFocalLoss": {}, "SeesawLoss": {}, "RankSortLoss": {"across": "image"}}
"""Class losses with a memory, and one that compares the anchors of an image with each other."""
APART = "several divisors"
"""Class and quality terms by the running count, box terms by the sum of their weights."""
EACH = pytest.mark.parametrize("part", [*NORMALIZERS.names(), *LOSS_ARGUMENTS, APART])


class OneConvolution(Backbone):
    """Enough of a backbone to learn with."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 16, stride=8, padding=4)
        self.out_shapes = {"c3": FeatureShape(8, 8)}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        # The check of gradients before a distributed run brings single precision.
        return {"c3": self.conv(images.to(self.conv.weight.dtype)).tanh()}


def detector(part: str) -> DenseDetector:
    """A small one in double precision with a normaliser or class loss, whose box loss has a memory as well."""
    apart = part == APART
    torch.manual_seed(0)
    given = LOSS_ARGUMENTS.get(part)
    loss = SigmoidFocalLoss() if given is None else CLASS_LOSSES.build({"type": part, **given})
    backbone, normalizer = OneConvolution(), part if given is None else "PositiveCount"
    neck = FPN(in_shapes=backbone.out_shapes, channels=8, extra_levels=1)
    levels = neck.out_shapes.values()
    anchors = OctaveAnchors(strides=tuple(s.stride for s in levels), scales_per_octave=1)
    head = SharedTowerHead(
        in_channels=tuple(s.channels for s in levels), anchors_per_cell=anchors.per_cell,
        num_columns=loss.num_columns(3), class_bias=loss.initial_bias(3), num_convs=1, with_quality=apart,
    )  # fmt: skip
    model = DenseDetector(
        pixels=PixelOptions(), backbone=backbone, neck=neck, anchors=anchors, head=head, assigner=MaxIoUAssigner(),
        coder=DeltaCoder(), class_loss=loss, box_loss=WiseIoULoss(momentum=0.5),
        normalizer=NORMALIZERS.build({"type": "EmaPositiveCount" if apart else normalizer}),
        options=PostprocessOptions(), nms=HardNMS(),
        box_weight=IoUWeight() if apart or normalizer == "WeightSum" else None,
        box_normalizer=WeightSum() if apart else None, quality_loss=IoUQualityLoss() if apart else None,
        auxiliary=[LateL1Loss(after=0.5)] if apart else [],
    )  # fmt: skip
    return model.double()


def batch(position: int, first: int = 0, images: int = 4) -> Batch:
    """Images `first` and following of four with 3, 0, 1 and 2 boxes, another order in every step."""
    generator = torch.Generator().manual_seed(position)
    pixels = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8, generator=generator).double()
    targets = []
    for i in range(4):
        n = (3, 0, 1, 2)[(i + position) % 4]
        corner, side = torch.rand(n, 2, generator=generator) * 30, 8 + torch.rand(n, 2, generator=generator) * 24
        labels = torch.randint(0, 3, (n,), generator=generator)
        targets.append(Targets(torch.cat([corner, corner + side], 1), labels))
    part, sizes = slice(first, first + images), torch.full((images, 2), 64)
    return Batch(pixels[part], sizes, targets[part], sizes, list(range(images)), ["x.png"] * images)


def batches(step: int = 0, accumulate: int = 1, rank: int = 0, ranks: int = 1) -> Iterator[Batch]:
    images = 4 // (accumulate * ranks)
    for position in itertools.count(step):
        for i in range(accumulate):
            yield batch(position, (rank * accumulate + i) * images, images)


def state(model: nn.Module) -> Tensor:
    return torch.cat([t.detach().flatten().double() for t in model.state_dict().values()])


@EACH
def test_four_images_at_once_by_two_and_by_one_give_the_same_steps(make_trainer: MakeTrainer, part: str) -> None:
    ends, divisors = [], []
    for accumulate in (1, 2, 4):
        trainer = make_trainer(
            detector=detector(part), batches=batches(accumulate=accumulate), optimizer=SGD(lr=0.02),
            accumulate=accumulate,
        )  # fmt: skip
        divisors.append([trainer.train_step().normalizer for _ in range(2)])
        ends.append(state(trainer.detector))
    moved = (ends[0] - state(detector(part))).abs().max()
    assert moved > 1e-3
    for end in ends[1:]:
        assert (end - ends[0]).abs().max() < 1e-6 * moved
    assert divisors[1] == pytest.approx(divisors[0], rel=1e-12)
    assert divisors[2] == pytest.approx(divisors[0], rel=1e-12)
    assert divisors[0][0] >= 4


@EACH
def test_a_resumed_run_ends_with_the_same_bits(make_trainer: MakeTrainer, tmp_path: Path, part: str) -> None:
    def trainer(start: int, hook: Checkpoints) -> Trainer:
        return make_trainer(
            detector=detector(part), batches=batches(start), optimizer=SGD(lr=0.02), hooks=(hook,),
            iterations=3, checkpoint_every=1, keep_last=9,
        )  # fmt: skip

    hook = Checkpoints(tmp_path, {}, CLASSES)
    whole = trainer(0, hook)
    whole.run()
    hook = Checkpoints(tmp_path / "again", {}, CLASSES)
    resumed = trainer(1, hook)
    hook.restore(resumed, read_checkpoint(step_path(tmp_path, 1)))
    resumed.run()
    assert resumed.step == whole.step == 3
    assert torch.equal(state(whole.detector), state(resumed.detector))
    assert whole.detector.box_loss.mean < 1


def run_rank(rank: int, ranks: int, folder: str, part: str) -> None:
    """Two steps of one of `ranks` processes."""
    torch.set_num_threads(1)
    options: dict[str, Any] = {"init_method": f"file://{folder}/{part}", "rank": rank, "world_size": ranks}
    torch.distributed.init_process_group("gloo", **options)
    model = detector(part)
    settings = TrainOptions(iterations=2, tensorboard=False, device="cpu")
    trainer = Trainer(model, batches(rank=rank, ranks=ranks), SGD(lr=0.02).build(model), Constant(), settings)
    trainer.run()
    torch.save(state(model), f"{folder}/{part}-{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="starts processes by spawn and a file store")
@EACH
def test_two_processes_give_the_same_steps(make_trainer: MakeTrainer, tmp_path: Path, part: str) -> None:
    alone = make_trainer(detector=detector(part), batches=batches(), optimizer=SGD(lr=0.02), iterations=2)
    alone.run()
    torch.multiprocessing.spawn(run_rank, (2, str(tmp_path), part), nprocs=2)
    ends = [torch.load(tmp_path / f"{part}-{rank}.pt") for rank in range(2)]
    moved = (state(alone.detector) - state(detector(part))).abs().max()
    assert torch.equal(*ends)
    assert (ends[0] - state(alone.detector)).abs().max() < 1e-6 * moved
