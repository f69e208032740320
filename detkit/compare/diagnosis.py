"""How a class loss weighs foreground and background, on a trained detector. Letters as in ARCHITECTURE.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from detkit.detectors.dense import DenseDetector
from detkit.evaluate.arrays import GroundTruth, Shard
from detkit.evaluate.calibration import SCORE_EDGES, box_quality, calibration, rounded
from detkit.evaluate.errors import cost_of_errors, count_errors, judge
from detkit.structures import BACKGROUND, Batch
from detkit.utils.types import Tree, Value

EASY_BELOW = 0.1
"""A background anchor is easy if its highest class score is below this."""
HARDEST, SAMPLED = 256, 256
"""Background anchors of an image whose loss is computed: those of the largest gradient, and a sample of the rest."""
FRACTIONS = np.linspace(0, 1, 101)


def diagnose(
    detector: DenseDetector, loader: Iterable[Batch], truth: GroundTruth, detections: Shard, *, images: int = 32
) -> Tree:
    """Diagnoses a trained detector, as plain data for results.json (docs/compare.md describes the keys).

    loader: batches with targets; the anchors of the first `images` images are examined one by one. detections: of the
    detector on all images of `truth`.
    """
    anchors = examine_anchors(detector, loader, images)
    judged = judge(truth, detections)
    return {
        "easy_below": EASY_BELOW,
        **anchors,
        "calibration": calibration(judged),
        "box_quality": box_quality(judged),
        "errors": {"counts": count_errors(judged), "dap": cost_of_errors(judged)},
    }


class AnchorTotals:
    """Losses, gradients and scores of the foreground or background anchors, summed image by image."""

    def __init__(self) -> None:
        self.gradient = self.easy_gradient = 0.0
        self.histogram = np.zeros(len(SCORE_EDGES) - 1)
        self.samples: list[tuple[Tensor, Tensor, Tensor]] = []
        """Of each image, (S,): loss of sampled anchors, number of anchors each represents, whether it is easy."""

    def total(self, *, easy: bool) -> float:
        """Summed loss of the easy anchors, or of the others."""
        loss, weight, is_easy = map(torch.cat, zip(*self.samples, strict=True))
        return float((loss * weight)[is_easy == easy].sum())

    def cumulative(self) -> dict[str, list[float]] | None:
        """Share of the loss in the fraction of anchors with the lowest loss; None without anchors or loss."""
        if not self.samples:
            return None
        loss, weight = (torch.cat(values).double().numpy() for values in list(zip(*self.samples, strict=True))[:2])
        if not (loss * weight).sum() > 0:
            return None
        order = np.argsort(loss, kind="stable")
        below_loss, below = np.cumsum((loss * weight)[order]), np.cumsum(weight[order])
        loss_fraction = np.interp(
            FRACTIONS, np.concatenate(([0], below / below[-1])), np.concatenate(([0], below_loss / below_loss[-1]))
        )
        return {"fraction": rounded(FRACTIONS), "loss": rounded(loss_fraction)}


def examine_anchors(detector: DenseDetector, loader: Iterable[Batch], images: int) -> Tree:
    """The part of `diagnose` that needs the network.

    One call of the class loss per anchor: for all foreground anchors, the background anchors of largest gradient, and
    a random sample of the rest, each of which then represents several.
    """
    sides = {"foreground": AnchorTotals(), "background": AnchorTotals()}
    per_level, summed, seen, count = np.zeros(len(detector.neck.out_shapes)), 0.0, 0, 0
    generator = torch.Generator().manual_seed(0)
    was_training = detector.training
    detector.eval()
    try:
        for logits, labels, quality, level_sizes in _per_image(detector, loader, images):
            summed += _one_image(detector, logits, labels, quality, sides, generator)
            per_level += [float((part >= 0).sum()) for part in torch.split(labels[0], list(level_sizes))]
            seen, count = seen + 1, count + labels.numel()
    finally:
        detector.train(was_training)
    if not seen:
        raise ValueError("diagnosis: the loader has no images")
    fore, back = sides["foreground"], sides["background"]
    parts = (
        (fore.total(easy=True) + fore.total(easy=False), fore.gradient),
        (back.total(easy=False), back.gradient - back.easy_gradient),
        (back.total(easy=True), back.easy_gradient),
    )
    explained = sum(loss for loss, _ in parts)
    return {
        "num_images": seen,
        "num_anchors": count,
        "closure": explained / summed if summed > 0 and not detector.class_loss.needs_positives else None,
        "cumulative": {name: side.cumulative() for name, side in sides.items()},
        "share": {"loss": _shares([loss for loss, _ in parts]), "gradient": _shares([size for _, size in parts])},
        "scores": {"edges": rounded(SCORE_EDGES)}
        | {name: rounded(side.histogram / max(side.histogram.sum(), 1)) for name, side in sides.items()},
        "positives_per_level": [
            {"level": name, "per_image": round(n / seen, 4)}
            for name, n in zip(detector.neck.out_shapes, per_level.tolist(), strict=True)
        ],
    }


def _per_image(
    detector: DenseDetector, loader: Iterable[Batch], images: int
) -> Iterator[tuple[Tensor, Tensor, Tensor | None, tuple[int, ...]]]:
    """Yields logits (1, A, C), labels (1, A), quality (1, A) or None, and anchors per level of the first images."""
    device, left = next(detector.parameters()).device, images
    for batch in loader:
        batch = batch.to(device)
        with torch.no_grad():
            pred = detector(batch.images, batch.sizes)
            match = detector.match(pred, batch.targets)
        for i in range(min(len(batch), left)):
            quality = None if match.quality is None else match.quality[i : i + 1]
            yield pred.logits[i : i + 1].float(), match.labels[i : i + 1], quality, pred.level_sizes
        left -= len(batch)
        if left <= 0:
            return


def _one_image(
    detector: DenseDetector, logits: Tensor, labels: Tensor, quality: Tensor | None, sides: dict[str, AnchorTotals],
    generator: torch.Generator,
) -> float:  # fmt: skip
    """Adds one image to both sides; returns its loss."""
    loss = detector.class_loss
    with torch.enable_grad():
        leaf = logits.detach().requires_grad_()
        total = loss(leaf, labels, quality)
        (gradient,) = torch.autograd.grad(total, leaf)
    size = gradient[0].abs().sum(dim=-1).double().cpu()
    scores = loss.scores(logits[0]).cpu()
    assigned = labels[0].cpu()
    highest = scores.amax(dim=-1)
    for name, rows in (("foreground", assigned >= 0), ("background", assigned == BACKGROUND)):
        side = sides[name]
        index = rows.nonzero()[:, 0]
        score = scores[index, assigned[index]] if name == "foreground" else highest[index]
        side.histogram += np.histogram(score.clamp(0, 1).numpy(), SCORE_EDGES)[0]
        easy = highest < EASY_BELOW
        side.gradient += float(size[index].sum())
        side.easy_gradient += float(size[index][easy[index]].sum())
        chosen, weight = _sample(index, size, name == "foreground", generator)
        losses = torch.tensor(
            [_anchor_loss(detector, logits, labels, quality, int(a)) if size[a] > 0 else 0.0 for a in chosen]
        )
        side.samples.append((losses.double(), weight, easy[chosen]))
    return float(total.detach())


def _anchor_loss(detector: DenseDetector, logits: Tensor, labels: Tensor, quality: Tensor | None, anchor: int) -> float:
    """The class loss of a single anchor. A batched call would add up in another order, and a loss may mine.

    0 if the loss compares anchors with each other: alone one has no loss.
    """
    if detector.class_loss.needs_positives:
        return 0.0
    one = slice(anchor, anchor + 1)
    with torch.no_grad():
        return float(detector.class_loss(logits[:, one], labels[:, one], None if quality is None else quality[:, one]))


def _sample(index: Tensor, size: Tensor, every: bool, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Anchors whose loss is computed, and the number of anchors each represents. every: take all of them."""
    if every or len(index) <= HARDEST + SAMPLED:
        return index, torch.ones(len(index), dtype=torch.float64)
    order = index[size[index].argsort(descending=True, stable=True)]
    rest = order[HARDEST:]
    drawn = rest[torch.randperm(len(rest), generator=generator)[:SAMPLED]]
    weight = torch.cat((torch.ones(HARDEST), torch.full((SAMPLED,), len(rest) / SAMPLED))).double()
    return torch.cat((order[:HARDEST], drawn)), weight


def _shares(parts: list[float]) -> dict[str, float] | None:
    total = sum(parts)
    names = ("foreground", "hard_background", "easy_background")
    return {name: part / total for name, part in zip(names, parts, strict=True)} if total > 0 else None


def average(values: list[Value]) -> Value:
    """The mean of diagnoses, figure by figure; None where no diagnosis has one."""
    values = [v for v in values if v is not None]
    if not values:
        return None
    first = values[0]
    if all(value == first for value in values):
        return first
    if isinstance(first, dict):
        return {key: average([v[key] for v in values]) for key in first}
    if isinstance(first, list):
        return [average(list(column)) for column in zip(*values, strict=True)]
    return sum(values) / len(values) if isinstance(first, (int, float)) else first
