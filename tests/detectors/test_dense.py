from dataclasses import replace
from typing import Any

import pytest
import torch

from detkit.anchors.grid import OctaveAnchors
from detkit.assigners.max_iou import MaxIoUAssigner
from detkit.backbones.base import Backbone
from detkit.boxes import pairwise_iou
from detkit.coders.delta import DeltaCoder
from detkit.detectors.build import probe
from detkit.detectors.dense import DenseDetector
from detkit.detectors.pixels import PixelOptions, normalize
from detkit.detectors.postprocess import PostprocessOptions
from detkit.heads.shared_tower import SharedTowerHead
from detkit.losses.focal import SigmoidFocalLoss
from detkit.losses.l1 import SmoothL1Loss
from detkit.losses.normalizers import PerImagePositiveCount, PositiveCount
from detkit.necks.fpn import FPN
from detkit.nms.methods import HardNMS
from detkit.structures import IGNORED, FeatureShape, Predictions, Targets
from tests.refusals import Refuses


class TinyBackbone(Backbone):
    def __init__(self, *, channels: Any = (4, 6, 8), declared: Any = (4, 6, 8)) -> None:
        super().__init__()
        self.stages = torch.nn.ModuleList()
        previous = 3
        for i, width in enumerate(channels):
            self.stages.append(torch.nn.Conv2d(previous, width, 3, stride=8 if i == 0 else 2, padding=1))
            previous = width
        self.out_shapes = {f"c{i + 3}": FeatureShape(c, 8 * 2**i) for i, c in enumerate(declared)}

    def forward(self, images: Any) -> Any:
        features = {}
        for name, stage in zip(self.out_shapes, self.stages, strict=True):
            images = features[name] = stage(images).tanh()
        return features


def detector(backbone: Any = None, **options: Any) -> Any:
    torch.manual_seed(0)
    backbone = backbone or TinyBackbone()
    neck = FPN(in_shapes=backbone.out_shapes, channels=8)
    levels = neck.out_shapes.values()
    anchors = OctaveAnchors(strides=tuple(s.stride for s in levels), scales_per_octave=1)
    loss = SigmoidFocalLoss()
    return DenseDetector(
        pixels=PixelOptions(),
        backbone=backbone,
        neck=neck,
        anchors=anchors,
        head=SharedTowerHead(
            in_channels=tuple(s.channels for s in levels),
            anchors_per_cell=anchors.per_cell,
            num_columns=3,
            class_bias=loss.initial_bias(3),
            num_convs=1,
        ),
        assigner=MaxIoUAssigner(),
        coder=DeltaCoder(),
        class_loss=loss,
        box_loss=SmoothL1Loss(),
        normalizer=PositiveCount(),
        options=PostprocessOptions(**options),
        nms=HardNMS(),
    )


def batch(*sizes: Any) -> Any:
    generator = torch.Generator().manual_seed(1)
    side = [max(column) for column in zip(*sizes, strict=True)]
    images = torch.zeros(len(sizes), 3, *(-(-s // 32) * 32 for s in side), dtype=torch.uint8)
    for image, (h, w) in zip(images, sizes, strict=True):
        image[:, :h, :w] = torch.randint(0, 256, (3, h, w), dtype=torch.uint8, generator=generator)
    return images, torch.tensor(sizes)


def boxes_of(n: Any) -> Any:
    corner = torch.arange(n).float()[:, None] * 9 + torch.tensor([3.0, 5.0])
    return Targets(torch.cat((corner, corner + 32), 1), torch.arange(n) % 3)


def test_predictions_have_the_declared_shapes() -> None:
    model = detector()
    pred = model(*batch((64, 96), (60, 70)))
    cells = 8 * 12 + 4 * 6 + 2 * 3 + 1 * 2 + 1
    assert pred.level_sizes == (8 * 12 * 3, 4 * 6 * 3, 2 * 3 * 3, 2 * 3, 3)
    assert pred.logits.shape == (2, cells * 3, 3)
    assert pred.deltas.shape == (2, cells * 3, 4)
    assert pred.anchors.shape == (cells * 3, 4)


def test_padding_does_not_leak_whatever_it_holds() -> None:
    images, sizes = batch((60, 70))
    dirty = images.clone()
    dirty[:, :, 60:] = 255
    dirty[:, :, :, 70:] = 255
    model = detector()
    torch.testing.assert_close(model(images, sizes).logits, model(dirty, sizes).logits, rtol=0, atol=0)
    assert not torch.equal(model(images).logits, model(dirty).logits)


def test_normalize_by_hand(refuses: Refuses) -> None:
    images = torch.tensor([10, 20, 30], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    options = PixelOptions(mean=(28.0, 20.0, 13.0), std=(1.0, 1.0, 3.0), order="bgr")
    out = normalize(images, torch.tensor([[1, 2]]), options)
    assert out[0, :, 0, 0].tolist() == [2, 0, -1]
    assert not out[:, :, 1:].any()
    padded = normalize(images, torch.tensor([[1, 2]]), replace(options, padding=114.0))
    assert (padded[:, :, 1:] == 114).all()
    assert torch.equal(padded[:, :, :1], out[:, :, :1])
    with refuses(ValueError):
        normalize(torch.zeros(1, 4, 2, 2), None, options)


@pytest.mark.parametrize("counts", [(2, 1), (0, 3), (0, 0)])
def test_a_batch_is_the_sum_of_its_images_and_every_parameter_learns(counts: tuple[int, int]) -> None:
    model = detector()
    images, sizes = batch((64, 64), (64, 64))
    targets = [boxes_of(n) for n in counts]
    together = model.loss(model(images, sizes), targets)
    apart = [model.loss(model(images[i : i + 1], sizes[i : i + 1]), targets[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(together.total(), sum(part.total() for part in apart))
    assert together.normalizer == sum(part.normalizer for part in apart)
    assert bool(together.normalizer > 0) is any(counts)
    together.mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_boxes_reach_the_right_image() -> None:
    model = detector()
    images, sizes = batch((64, 64), (64, 64))
    targets = [boxes_of(1), boxes_of(3)]
    swapped = model.loss(model(images.flip(0), sizes), targets[::-1])
    torch.testing.assert_close(model.loss(model(images, sizes), targets).box, swapped.box)


def exact_predictions(model: Any, targets: Any, size: Any) -> Any:
    """Logits and deltas that say exactly what the targets say."""
    images = torch.zeros(1, 3, *size, dtype=torch.uint8)
    pred = model(images)
    assignment = model.assigner(model.candidates(pred, 0), targets)
    logits, deltas = torch.full_like(pred.logits, -9.0), torch.zeros_like(pred.deltas)
    rows = (assignment.labels >= 0).nonzero()[:, 0]
    logits[0, rows, assignment.labels[rows]] = 3.0
    deltas[0, rows] = model.coder.encode(targets.boxes[assignment.matched[rows]], pred.anchors[rows])
    return Predictions(logits, deltas, pred.anchors, pred.level_sizes)


def test_exact_predictions_are_found_exactly() -> None:
    model = detector()
    targets = Targets(torch.tensor([[3.0, 5, 35, 37], [40, 30, 60, 62]]), torch.tensor([2, 0]))
    found = model.detect(exact_predictions(model, targets, (64, 64)), torch.tensor([[64, 64]]))[0]
    order = found.labels.argsort(descending=True)
    assert found.labels[order].tolist() == [2, 0]
    torch.testing.assert_close(found.boxes[order], targets.boxes, rtol=0, atol=1e-3)
    torch.testing.assert_close(found.scores, torch.full((2,), 3.0).sigmoid())


def test_detections_stay_inside_the_image_and_under_the_limits() -> None:
    targets = Targets(torch.tensor([[3.0, 5, 35, 37], [40, 30, 60, 62]]), torch.tensor([2, 0]))
    model = detector(max_detections=1)
    pred = exact_predictions(model, targets, (64, 64))
    found = model.detect(pred, torch.tensor([[20, 30]]))[0]
    assert len(found) == 1
    assert found.boxes[:, 2].max() <= 30
    assert found.boxes[:, 3].max() <= 20
    assert len(detector(score_threshold=0.99).detect(pred, torch.tensor([[64, 64]]))[0]) == 0
    # Every level gives its single best candidate; more than one level holds some of the two objects.
    assert len(detector(topk_per_level=1, max_detections=100).detect(pred, torch.tensor([[64, 64]]))[0]) <= 2


def test_anchors_are_computed_once_a_shape_and_the_cache_is_bounded() -> None:
    model = detector()
    first = model(*batch((64, 64))).anchors
    assert torch.equal(first, model(*batch((64, 64))).anchors)
    for width in range(64, 64 + 32 * 10, 32):
        model(*batch((64, width)))
    assert len(model._anchor_cache) == 8


def test_a_backbone_that_lies_is_shown_in_a_table(refuses: Refuses) -> None:
    lying = TinyBackbone(declared=(4, 6, 9))
    with refuses(ValueError):
        probe(detector(lying))


def test_a_backbone_for_four_channels_is_told_about_three(refuses: Refuses) -> None:
    model = detector()
    model.backbone.stages[0] = torch.nn.Conv2d(4, 4, 3, stride=8, padding=1)
    with refuses(ValueError):
        probe(model)


def test_the_body_knows_no_detector_by_name() -> None:
    import inspect

    import detkit.detectors.dense as dense

    text = inspect.getsource(dense).lower()
    assert "retina" not in text
    assert "ssd" not in text
    assert "isinstance" not in text


@pytest.mark.parametrize(
    "options",
    [{"score_threshold": 1.0}, {"topk_per_level": 0},
     {"max_detections": 0}],
)  # fmt: skip
def test_senseless_options_are_named(refuses: Refuses, options: dict[str, Any]) -> None:
    with refuses(ValueError):
        PostprocessOptions(**options)


def test_a_loss_with_soft_targets_is_told_the_overlap_or_what_the_assigner_says() -> None:
    class Listening(SigmoidFocalLoss):
        uses_quality = True

        def forward(self, logits: Any, labels: Any, quality: Any = None) -> Any:
            self.heard = labels, quality
            return logits.sum() * 0

    model, targets = detector(), [boxes_of(2), boxes_of(0)]
    model.class_loss = Listening()
    pred = model(*batch((64, 64), (64, 64)))
    pred.deltas = torch.zeros_like(pred.deltas)
    model.loss(pred, targets)
    labels, quality = model.class_loss.heard
    found = pairwise_iou(pred.anchors, targets[0].boxes).amax(1)
    positive = labels[0] >= 0
    assert positive.any()
    assert not quality[1].any()
    assert not quality[0][~positive].any()
    torch.testing.assert_close(quality[0][positive], found[positive])

    assign = model.assigner.forward
    model.assigner.forward = lambda *a: replace(assign(*a), quality=torch.full((len(pred.anchors),), 0.25))
    model.loss(pred, targets)
    assert model.class_loss.heard[1][0][positive].unique().tolist() == [0.25]


def test_an_assigner_is_handed_scores_by_the_losss_own_link_when_it_asks() -> None:
    class Half(SigmoidFocalLoss):
        def scores(self, logits: Any) -> Any:
            return logits.softmax(-1) / 2

    model, heard = detector(), []
    model.class_loss, assign = Half(), model.assigner.forward
    model.assigner.forward = lambda candidates, targets: (
        heard.append(candidates.scores()) or assign(candidates, targets)
    )
    pred = model(*batch((64, 64), (64, 64)))
    model.loss(pred, [boxes_of(2), boxes_of(0)])
    torch.testing.assert_close(torch.stack(heard), pred.logits.softmax(-1) / 2)
    assert not heard[0].requires_grad


def test_anchors_in_ignore_regions_take_no_part_unless_the_assigner_has_a_rule_of_its_own() -> None:
    model, targets = detector(), boxes_of(2)
    targets.ignore = torch.tensor([[0.0, 0, 64, 64]])
    pred = model(*batch((64, 64)))
    inside = ((pred.anchors[:, :2] >= 0) & (pred.anchors[:, 2:] <= 64)).all(dim=1)
    assert (model.match(pred, [targets]).labels[0, inside] == IGNORED).all()
    model.assigner.ignore_overlap = None
    assert (model.match(pred, [targets]).labels[0, inside] >= 0).any()


def test_losses_of_each_image_by_its_own_positives_are_what_single_images_give() -> None:
    model = detector()
    images, sizes = batch((64, 64), (64, 64), (64, 64))
    targets = [boxes_of(1), boxes_of(3), boxes_of(0)]
    alone = [model.loss(model(images[i : i + 1], sizes[i : i + 1]), targets[i : i + 1]) for i in range(3)]
    model.normalizer = PerImagePositiveCount()
    together = model.loss(model(images, sizes), targets)
    assert together.normalizer == 3
    divisors = [part.normalizer.clamp(min=1) for part in alone]
    assert len(set(map(int, divisors))) == 3
    for term in ("classification", "box"):
        expected = sum(getattr(part, term) / n for part, n in zip(alone, divisors, strict=True))
        torch.testing.assert_close(getattr(together, term), expected)
    together.mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_image_weights_reach_losses_with_soft_targets_too() -> None:
    class Listening(SigmoidFocalLoss):
        uses_quality = True

        def forward(self, logits: Any, labels: Any, quality: Any = None) -> Any:
            heard.append(quality)
            return logits.sum() * 0

    heard: list[Any] = []
    model, targets = detector(), [boxes_of(2), boxes_of(1)]
    model.class_loss = Listening()
    pred = model(*batch((64, 64), (64, 64)))
    model.loss(pred, targets)
    model.normalizer = PerImagePositiveCount()
    model.loss(pred, targets)
    assert torch.equal(heard[0], torch.cat(heard[1:]))
