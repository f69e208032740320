"""The detector: every dense detector is this class with other parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from detkit import boxes as box_ops
from detkit.anchors.base import AnchorGenerator
from detkit.assigners.base import Assigner, assign
from detkit.backbones.base import Backbone
from detkit.coders.base import BoxCoder
from detkit.config import Config
from detkit.detectors.pixels import PixelOptions, normalize
from detkit.detectors.postprocess import PostprocessOptions, postprocess
from detkit.heads.base import Head
from detkit.losses.base import BoxLoss, ClassificationLoss, Normalizer
from detkit.necks.base import Neck
from detkit.nms.base import NonMaxSuppression
from detkit.structures import Assignment, Candidates, Detections, Losses, Match, Predictions, Targets

ANCHOR_CACHE = 8
"""Number of input shapes whose anchors are cached."""
LossInputs = tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor, Tensor]
"""Logits, labels and quality (B, A, ...) of a batch; deltas, anchors and true boxes (P, 4) of its positives."""


class DenseDetector(nn.Module):
    """Predicts a class and a box for every anchor; ARCHITECTURE.md describes how its parts work together.

    config, num_classes: what `build_detector` made it of; None for a detector that was put together by hand.
    """

    config: Config | None = None
    num_classes: int | None = None

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
        box_loss: BoxLoss,
        normalizer: Normalizer,
        options: PostprocessOptions,
        nms: NonMaxSuppression,
    ) -> None:
        super().__init__()
        self.pixels, self.options = pixels, options
        self.backbone, self.neck, self.anchors, self.head = backbone, neck, anchors, head
        self.assigner, self.coder, self.nms = assigner, coder, nms
        self.class_loss, self.box_loss, self.normalizer = class_loss, box_loss, normalizer
        self._anchor_cache: dict[tuple[object, ...], list[Tensor]] = {}

    def forward(self, images: Tensor, sizes: Tensor | None = None) -> Predictions:
        """Images (B, 3, H, W), 0..255 RGB, and their (B, 2) sizes inside the padding -> raw predictions."""
        features = list(self.neck(self.backbone(normalize(images, sizes, self.pixels))).values())
        logits, deltas = self.head(features)
        height, width = images.shape[-2:]
        anchors = self._anchors_for([(f.shape[-2], f.shape[-1]) for f in features], (height, width), images.device)
        return Predictions(
            torch.cat(logits, dim=1), torch.cat(deltas, dim=1), torch.cat(anchors), tuple(map(len, anchors))
        )

    def loss(self, pred: Predictions, targets: list[Targets]) -> Losses:
        """Sums of the loss terms over the batch, with the normalizer."""
        match = self.match(pred, targets)
        weights = self.normalizer.image_weights(match.labels)
        deltas, anchors = pred.deltas[match.image, match.row], pred.anchors[match.row]
        inputs: LossInputs = (pred.logits, match.labels, match.quality, deltas, anchors, match.boxes)
        if weights is None:
            sums = self._sums(*inputs)
        else:
            of_images = torch.stack([torch.stack(self._sums(*image)) for image in image_by_image(inputs)])
            sums = (weights[:, None] * of_images).sum(dim=0).unbind()
        classification, box = sums
        return Losses(classification, box, self.normalizer(match.labels))

    def candidates(self, pred: Predictions, image: int) -> Candidates:
        """The anchors of one image of the batch, with its predictions, as an assigner takes them."""
        logits, deltas, anchors = pred.logits[image].detach(), pred.deltas[image].detach(), pred.anchors
        return Candidates(
            anchors,
            pred.level_sizes,
            scores=lambda: self.class_loss.scores(logits.float()),
            boxes=lambda: self.coder.decode(deltas.to(anchors.dtype), anchors),
        )

    @torch.no_grad()
    def match(self, pred: Predictions, targets: list[Targets]) -> Match:
        """Matches the anchors of the batch to the objects."""
        assigned = [assign(self.assigner, self.candidates(pred, image), target) for image, target in enumerate(targets)]
        labels = torch.stack([a.labels for a in assigned])
        image, row = (labels >= 0).nonzero(as_tuple=True)
        # Boxes of all images in one list; `first` is the index of each image's first box.
        first = torch.tensor([0, *(len(t.boxes) for t in targets[:-1])]).cumsum(0).to(labels.device)
        matched = torch.stack([a.matched for a in assigned])[image, row] + first[image]
        boxes = torch.cat([t.boxes for t in targets])[matched]
        quality = None
        if self.class_loss.uses_quality:
            predicted = self.coder.decode(pred.deltas.detach()[image, row].float(), pred.anchors[row])
            quality = quality_of(assigned, image, row, box_ops.paired_iou(predicted, boxes))
        return Match(labels, image, row, boxes, quality)

    def end_step(self, normalizer: Tensor, totals: Sequence[Tensor]) -> Tensor:
        """Ends a step: lets the parts update their running statistics and returns the divisor of the gradients.

        normalizer, totals: totals over micro-batches and ranks of the normalizer and of `take_accumulated`.
        """
        with torch.no_grad():
            for part, sums in zip((self.class_loss, self.box_loss), totals, strict=True):
                part.end_step(sums)
            return self.normalizer.divisor(normalizer)

    def take_accumulated(self) -> list[Tensor]:
        """Sums that the losses of this process accumulated in the step, see `Loss`."""
        return [self.class_loss.take_accumulated(), self.box_loss.take_accumulated()]

    def _sums(
        self, logits: Tensor, labels: Tensor, quality: Tensor | None, deltas: Tensor, anchors: Tensor, boxes: Tensor
    ) -> tuple[Tensor, ...]:
        return self.class_loss(logits, labels, quality), self.box_loss(deltas, anchors, boxes, self.coder)

    @torch.no_grad()
    def detect(self, pred: Predictions, sizes: Tensor) -> list[Detections]:
        """One `Detections` per image, in pixels of the network's input."""
        return postprocess(pred, sizes, self.options, self.class_loss, self.coder, self.nms)

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
    shape = (len(assigned), len(assigned[0].labels))
    return torch.zeros(shape, device=overlap.device).index_put_((image, row), scores.clamp(0, 1))


def image_by_image(inputs: LossInputs) -> Iterator[LossInputs]:
    """Splits the inputs of the losses of a batch into those of each image."""
    logits, labels, quality, *positives = inputs
    counts = (labels >= 0).sum(dim=1).tolist()
    for i, (deltas, anchors, boxes) in enumerate(zip(*(torch.split(p, counts) for p in positives), strict=True)):
        one = slice(i, i + 1)
        yield logits[one], labels[one], None if quality is None else quality[one], deltas, anchors, boxes
