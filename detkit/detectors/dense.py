"""The detector: every dense detector is this class with other parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from detkit import boxes as box_ops
from detkit.anchors.base import AnchorGenerator
from detkit.assigners.base import Assigner, assign, pairs_of
from detkit.backbones.base import Backbone
from detkit.coders.base import BoxCoder
from detkit.config import Config
from detkit.detectors.fit import check_together
from detkit.detectors.pixels import PixelOptions, normalize
from detkit.detectors.postprocess import PostprocessOptions, postprocess
from detkit.detectors.terms import LossParts, joint_losses, loss_inputs, losses_of
from detkit.heads.base import Head, HeadOutputs
from detkit.losses.base import AuxiliaryLoss, BoxLoss, BoxWeight, ClassificationLoss, Normalizer, QualityLoss
from detkit.necks.base import Neck
from detkit.nms.base import NonMaxSuppression
from detkit.structures import Assignment, Candidates, Detections, Losses, Match, Predictions, Targets

ANCHOR_CACHE = 8
"""Number of input shapes whose anchors are cached."""


class DenseDetector(nn.Module):
    """Predicts a class and a box for every anchor; ARCHITECTURE.md describes how its parts work together.

    config, num_classes: what `build_detector` made it of; None for a detector that was put together by hand.
    progress: fraction of the training that is done, which the trainer sets before a step.
    box_assigner: chooses the positives of the box losses where `assigner` does not.
    """

    config: Config | None = None
    num_classes: int | None = None
    progress: float = 0.0

    def __init__(
        self,
        *,
        pixels: PixelOptions,
        backbone: Backbone,
        neck: Neck,
        anchors: AnchorGenerator,
        head: Head,
        assigner: Assigner,
        coder: BoxCoder,
        class_loss: ClassificationLoss,
        box_loss: BoxLoss | None,
        normalizer: Normalizer,
        options: PostprocessOptions,
        nms: NonMaxSuppression,
        box_assigner: Assigner | None = None,
        box_normalizer: Normalizer | None = None,
        box_weight: BoxWeight | None = None,
        quality_loss: QualityLoss | None = None,
        quality_normalizer: Normalizer | None = None,
        auxiliary: Sequence[AuxiliaryLoss] = (),
    ) -> None:
        super().__init__()
        self.pixels, self.options = pixels, options
        self.backbone, self.neck, self.anchors, self.head = backbone, neck, anchors, head
        self.assigner, self.coder, self.nms = assigner, coder, nms
        self.class_loss, self.box_loss, self.normalizer = class_loss, box_loss, normalizer
        self.box_assigner, self.box_normalizer, self.box_weight = box_assigner, box_normalizer, box_weight
        self.quality_loss, self.quality_normalizer = quality_loss, quality_normalizer
        self.auxiliary = nn.ModuleList(auxiliary)
        check_together(self.loss_parts, coder, assigner)
        self._anchor_cache: dict[tuple[object, ...], list[Tensor]] = {}

    def forward(self, images: Tensor, sizes: Tensor | None = None) -> Predictions:
        """Images (B, 3, H, W), 0..255 RGB, and their (B, 2) sizes inside the padding -> raw predictions."""
        features = list(self.neck(self.backbone(normalize(images, sizes, self.pixels))).values())
        outputs = HeadOutputs(*self.head(features))
        height, width = images.shape[-2:]
        anchors = self._anchors_for([(f.shape[-2], f.shape[-1]) for f in features], (height, width), images.device)
        return Predictions(
            torch.cat(outputs.logits, dim=1),
            torch.cat(outputs.deltas, dim=1),
            torch.cat(anchors),
            tuple(map(len, anchors)),
            None if outputs.quality is None else torch.cat(outputs.quality, dim=1),
            sizes,
            None if outputs.first is None else torch.cat(outputs.first, dim=1),
        )

    @property
    def loss_parts(self) -> LossParts:
        """The parts of the losses."""
        return LossParts(
            self.class_loss,
            self.box_loss,
            self.normalizer,
            self.box_normalizer,
            self.box_weight,
            self.quality_loss,
            tuple(self.auxiliary),  # type: ignore[arg-type]
            self.quality_normalizer,
        )

    def loss(self, pred: Predictions, targets: list[Targets]) -> Losses:
        """Sums of the loss terms over the batch, with what it adds to their divisors."""
        parts = self.loss_parts
        if parts.classification.joint:
            return joint_losses(parts, self.coder, pred, targets)
        match = self.match(pred, targets)
        box_match = match if self.box_assigner is None else self.match(pred, targets, self.box_assigner)
        inputs = loss_inputs(parts, self.coder, pred, match, box_match, self.progress)
        return losses_of(parts, self.coder, inputs, match, box_match, pred.level_sizes)

    def candidates(self, pred: Predictions, image: int) -> Candidates:
        """The anchors of one image of the batch, with its predictions, as an assigner takes them."""
        logits, deltas, anchors = pred.logits[image].detach(), pred.deltas[image].detach(), pred.anchors
        quality = None if pred.quality is None else pred.quality[image].detach()
        return Candidates(
            anchors,
            pred.level_sizes,
            scores=lambda: self.class_loss.scores(logits.float()),
            boxes=lambda: self.coder.decode(deltas.to(anchors.dtype), anchors),
            quality=lambda: anchors.new_ones(len(anchors)) if quality is None else quality.float().sigmoid()[:, 0],
            progress=self.progress,
            size=None if pred.sizes is None else (int(pred.sizes[image, 0]), int(pred.sizes[image, 1])),
        )

    @torch.no_grad()
    def match(self, pred: Predictions, targets: list[Targets], assigner: Assigner | None = None) -> Match:
        """Matches the anchors of the batch to the objects, by `assigner` in place of the detector's if given."""
        rule = assigner or self.assigner
        assigned = [assign(rule, self.candidates(pred, image), target) for image, target in enumerate(targets)]
        labels = torch.stack([a.labels for a in assigned])
        image, row, matched = pairs_of(assigned, labels)
        # Boxes of all images in one list; `first` is the index of each image's first box.
        first = torch.tensor([0, *(len(t.boxes) for t in targets[:-1])]).cumsum(0).to(labels.device)
        matched = matched + first[image]
        boxes, classes = torch.cat([t.boxes for t in targets])[matched], torch.cat([t.labels for t in targets])[matched]
        quality = None
        if self.loss_parts.uses_quality:
            predicted = self.coder.decode(pred.deltas.detach()[image, row].float(), pred.anchors[row])
            quality = quality_of(assigned, image, row, box_ops.paired_iou(predicted, boxes)).where(labels >= 0, 0)
        return Match(labels, image, row, boxes, classes, quality)

    @property
    def divisors(self) -> tuple[str, ...]:
        """Names of the divisors of the loss terms, see `Losses`."""
        return tuple(self.loss_parts.normalizers())

    @torch.no_grad()
    def divide(self, normalizers: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Totals over micro-batches and ranks by divisor, see `Losses` -> the divisors. Call it once a step."""
        return {name: part.divisor(normalizers[name]) for name, part in self.loss_parts.normalizers().items()}

    @torch.no_grad()
    def update_losses(self, totals: Sequence[Tensor]) -> None:
        """Lets losses with running statistics update them.

        totals: those of `take_accumulated` over micro-batches and ranks.
        """
        for part, sums in zip(self.loss_parts.losses().values(), totals, strict=True):
            part.end_step(sums)

    def end_step(self, normalizers: Mapping[str, Tensor], totals: Sequence[Tensor]) -> dict[str, Tensor]:
        """Ends a step: `update_losses` and `divide`. Returns the divisors, for `Losses.over`."""
        self.update_losses(totals)
        return self.divide(normalizers)

    def take_accumulated(self) -> list[Tensor]:
        """Sums that the losses of this process accumulated in the step, see `Loss`."""
        return [loss.take_accumulated() for loss in self.loss_parts.losses().values()]

    @torch.no_grad()
    def detect(self, pred: Predictions, sizes: Tensor) -> list[Detections]:
        """One `Detections` per image, in pixels of the network's input."""
        return postprocess(pred, sizes, self.options, self.class_loss, self.coder, self.nms, self.quality_loss)

    def _anchors_for(
        self, shapes: list[tuple[int, int]], image_shape: tuple[int, int], device: torch.device
    ) -> list[Tensor]:
        key, known = (*shapes, image_shape, device), self._anchor_cache
        if key not in known:
            # Not as inference tensors, even in inference mode: training reads them later.
            with torch.inference_mode(False), torch.no_grad():
                anchors = self.anchors(shapes, image_shape, device)
            # A new table instead of a changed one, which other threads may be reading.
            known = {**dict(list(known.items())[1 - ANCHOR_CACHE :]), key: anchors}
            self._anchor_cache = known
        return known[key]


def quality_of(assigned: list[Assignment], image: Tensor, row: Tensor, overlap: Tensor) -> Tensor:
    """(B, A) target score of each positive (image, row): the assigner's quality, else `overlap` (P,)."""
    given = [a.quality for a in assigned if a.quality is not None]
    scores = torch.stack(given)[image, row] if len(given) == len(assigned) else overlap
    count = len(assigned[0].labels)
    # The greatest, where an anchor stands for several objects.
    flat = torch.zeros(len(assigned) * count, device=overlap.device)
    return flat.scatter_reduce_(0, image * count + row, scores.clamp(0, 1), "amax").view(-1, count)
