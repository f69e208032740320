"""Contracts of assigners, coders and suppression."""

from __future__ import annotations

import torch
from torch import Tensor

from detkit.anchors.grid import OctaveAnchors
from detkit.assigners.base import Assigner, assign
from detkit.coders.delta import DeltaCoder
from detkit.structures import BACKGROUND, IGNORED, Assignment, Candidates, Targets
from detkit.testing.contract import (
    Contract,
    Nest,
    Subject,
    TestedPart,
    expect,
    must_not_draw,
    must_not_raise,
    must_not_write,
)
from detkit.testing.memory import add_memory_checks
from detkit.testing.modules import Largest

SIDE, CLASSES = 256, 3
LIMIT = 200 * 2**20
CROWD = 700
"""Number of boxes whose full float32 matrix is larger than LIMIT."""

check_assigner = Contract("assigners", "assigner")
check_coder = Contract("coders", "coder")
check_nms = Contract("nms", "nms")


def _anchors(side: int = SIDE) -> tuple[Tensor, tuple[int, ...]]:
    strides = (8, 16, 32, 64, 128)
    shapes = [(side // t, side // t) for t in strides]
    levels = OctaveAnchors(strides=strides)(shapes, (side, side), torch.device("cpu"))
    return torch.cat(levels), tuple(map(len, levels))


def _boxes(count: int, side: int = SIDE) -> Tensor:
    corner = torch.rand(count, 2) * side * 0.7
    return torch.cat((corner, corner + side * (0.08 + 0.2 * torch.rand(count, 2))), dim=1)


def _targets(count: int = 5, ignore: Tensor | None = None) -> Targets:
    return Targets(_boxes(count), torch.arange(count) % CLASSES, torch.zeros(0, 4) if ignore is None else ignore)


@torch.no_grad()
def _assign_with(
    part: Assigner, grid: tuple[Tensor, tuple[int, ...]], targets: Targets, generator: torch.Generator | None = None
) -> Assignment:
    """The assignment for random predictions at the anchors of a grid."""
    anchors, sizes = grid
    scores = torch.rand(len(anchors), CLASSES, generator=generator)
    boxes = DeltaCoder().decode(0.1 * torch.randn(len(anchors), 4, generator=generator), anchors)
    return assign(part, Candidates(anchors, sizes, lambda: scores, lambda: boxes), targets)


def _assign(s: Subject, targets: Targets, grid: tuple[Tensor, tuple[int, ...]] | None = None) -> Assignment:
    grid = grid or _anchors()
    assignment = _assign_with(s.part, grid, targets, torch.Generator().manual_seed(3))
    for what, tensor in (("labels", assignment.labels), ("matched", assignment.matched)):
        expect(tensor.dtype == torch.int64, f"{what} is {tensor.dtype}, not int64")
        expect(
            len(tensor) == tensor.numel() == len(grid[0]), f"{what} is {tuple(tensor.shape)}, want ({len(grid[0])},)"
        )
    return assignment


@check_assigner.check("a wrong label trains the wrong class, or crashes the loss on the GPU without a message.")
def labels_are_those_of_the_matched_boxes(s: Subject) -> None:
    targets = _targets()
    assignment = _assign(s, targets)
    positive = assignment.labels >= 0
    other = assignment.labels[~positive]
    expect(((other == BACKGROUND) | (other == IGNORED)).all(), f"labels below 0 are {sorted(set(other.tolist()))}")
    expect(((assignment.matched >= 0) & (assignment.matched < 5)).all(), "matched has rows that no box has (5 boxes)")
    want = targets.labels[assignment.matched[positive]]
    expect(torch.equal(assignment.labels[positive], want), "the label of a positive is not that of its matched box")


@check_assigner.check("an object without a positive is never learnt; a positive far from its box learns nonsense.")
def positives_overlap_their_boxes(s: Subject) -> None:
    targets, (anchors, _) = _targets(), _anchors()
    assignment = _assign(s, targets)
    positive = assignment.labels >= 0
    expect(positive.any(), "five boxes of usual sizes, and no positive")
    expect((assignment.labels == BACKGROUND).any(), "five small boxes, and no background")
    boxes, matched = targets.boxes[assignment.matched[positive]], anchors[positive]
    apart = (torch.maximum(boxes[:, :2], matched[:, :2]) >= torch.minimum(boxes[:, 2:], matched[:, 2:])).any(dim=1)
    expect(not apart.any(), f"{int(apart.sum())} of {len(matched)} positives do not touch their box")


@check_assigner.check("an image without objects must train as background, not crash.")
def no_box_gives_no_positive(s: Subject) -> None:
    with must_not_raise("assigning an image without boxes"):
        assignment = _assign(s, _targets(0))
    labels = set(assignment.labels.tolist())
    expect(labels == {BACKGROUND}, f"labels without a box are {sorted(labels)}, want -1 only")


@check_assigner.check("objects in a crowd would be taught as background.")
def ignore_regions_are_no_background(s: Subject) -> None:
    anchors, _ = _anchors()
    region = torch.tensor([[0.0, 0.0, SIDE, SIDE]])
    inside = ((anchors[:, :2] >= 0) & (anchors[:, 2:] <= SIDE)).all(dim=1)
    assignment = _assign(s, _targets(0, region))
    wrong = int((assignment.labels[inside] != IGNORED).sum())
    expect(wrong == 0, f"{wrong} of {int(inside.sum())} anchors inside an ignore region are not ignored")


@check_assigner.check("the order in which an annotator drew boxes must not change what is learnt.")
def order_of_boxes_does_not_matter(s: Subject) -> None:
    targets = _targets()
    order = torch.tensor([3, 0, 4, 1, 2])
    first = _assign(s, targets)
    second = _assign(s, Targets(targets.boxes[order], targets.labels[order]))
    positive = first.labels >= 0
    expect(torch.equal(first.labels, second.labels), "labels change with the order of the boxes")
    same = torch.equal(order[second.matched[positive]], first.matched[positive])
    expect(same, "other boxes are matched when their order changes")


@check_assigner.check("an invalid quality makes the class loss train towards nonsense.")
def quality_is_a_score(s: Subject) -> None:
    assignment = _assign(s, _targets())
    if assignment.quality is not None:
        q = assignment.quality[assignment.labels >= 0]
        expect(((q >= 0) & (q <= 1)).all(), "quality of a positive is outside [0, 1]")


@check_assigner.check("the box losses would compare a prediction with no box, or teach in a crowd.")
def pairs_are_anchors_and_boxes(s: Subject) -> None:
    grid = _anchors()
    for targets in (_targets(), _targets(0), _targets(5, torch.tensor([[0.0, 0.0, SIDE, SIDE]]))):
        pairs = _assign(s, targets, grid).pairs
        for what, index, limit in zip(
            ("anchors", "boxes"), pairs or (), (len(grid[0]), len(targets.boxes)), strict=False
        ):
            inside = ((index >= 0) & (index < limit)).all()
            expect(inside and len(index) == len(pairs[0]), f"pairs has {what} that are none, of {limit}")  # type: ignore[index]


@check_assigner.check("the same image must give the same targets, in every run.")
def assigns_the_same_twice(s: Subject) -> None:
    targets = _targets()
    with must_not_draw():
        a, b = _assign(s, targets), _assign(s, targets)
    expect(torch.equal(a.labels, b.labels) and torch.equal(a.matched, b.matched), "two calls differ")


@check_assigner.check("anchors are kept and used again by every image of that shape, and the losses read the boxes.")
def inputs_are_left_alone(s: Subject) -> None:
    grid, targets = _anchors(), _targets(ignore=torch.tensor([[0.0, 0.0, 40.0, 40.0]]))
    with must_not_write(anchors=grid[0], boxes=targets.boxes, labels=targets.labels, ignore=targets.ignore):
        _assign(s, targets, grid)


@check_assigner.check("a crowded image would end a run on a big machine for lack of memory.")
def makes_no_anchors_by_boxes_matrix(s: Subject) -> None:
    grid, targets = _anchors(640), _targets(CROWD)
    with Largest() as seen:  # type: ignore[no-untyped-call]
        _assign(s, targets, grid)
    size = f"{seen.bytes / 2**20:.0f} MB for {len(grid[0])} anchors and {CROWD} boxes"
    expect(seen.bytes < LIMIT, f"a tensor of {size}; {LIMIT / 2**20:.0f} is the limit")


@check_coder.check("boxes would be learnt in one place and drawn in another.")
def decode_undoes_encode(s: Subject) -> None:
    anchors, boxes = _boxes(50), _boxes(50)
    if s.part.needs_inside:  # up to a side of the anchor away from its middle
        reach = (anchors[:, 2:] - anchors[:, :2]).amin(dim=1)[:, None] * torch.rand(50, 4).clamp(min=0.01)
        middle = (anchors[:, :2] + anchors[:, 2:]) / 2
        boxes = torch.cat((middle - reach[:, :2], middle + reach[:, 2:]), dim=1)
    encoded = s.part.encode(boxes, anchors)
    expect(tuple(encoded.shape) == (50, 4), f"encode gives {tuple(encoded.shape)}, want (50, 4)")
    deltas, columns = s.part.columns(encoded), s.part.num_columns
    expect(tuple(deltas.shape) == (50, columns), f"columns gives {tuple(deltas.shape)}, want (50, {columns})")
    gap = float((s.part.decode(deltas, anchors) - boxes).abs().max())
    expect(gap < 0.01, f"decode(encode(box)) is up to {gap:.3g} px beside the box")


@check_coder.check("detection decodes complete batches at once.")
def decode_takes_batches(s: Subject) -> None:
    columns = s.part.num_columns
    anchors, deltas = _boxes(6), 0.1 * torch.randn(2, 6, columns)
    with must_not_raise(f"decode of (2, 6, {columns}) deltas and (6, 4) anchors"):
        both = s.part.decode(deltas, anchors)
    expect(tuple(both.shape) == (2, 6, 4), f"decode of (2, 6, {columns}) gives {tuple(both.shape)}")
    expect(torch.allclose(both[1], s.part.decode(deltas[1], anchors)), "a batch decodes otherwise than its images")


@check_coder.check("one wild prediction would give infinite boxes and losses.")
def decode_is_finite(s: Subject) -> None:
    deltas = (100 * torch.randn(40, s.part.num_columns)).requires_grad_()
    boxes = s.part.decode(deltas, _boxes(40))
    expect(boxes.isfinite().all(), "decode of deltas of size 100 is not finite")
    boxes.sum().backward()
    expect(deltas.grad is not None and deltas.grad.isfinite().all(), "its gradient is not finite")


@check_coder.check("images without objects have nothing to encode.")
def takes_no_boxes(s: Subject) -> None:
    nothing = torch.zeros(0, 4)
    for what, width in (("encode", 4), ("decode", s.part.num_columns)):
        with must_not_raise(f"{what} of no box"):
            shape = tuple(getattr(s.part, what)(torch.zeros(0, width), nothing).shape)
        expect(shape == (0, 4), f"{what} of no box gives {shape}, want (0, 4)")


def _suppress(s: Subject, boxes: Tensor, scores: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    keep, kept_scores = s.part(boxes, scores, groups)
    expect(keep.dtype == torch.int64, f"indices are {keep.dtype}, not int64")
    expect(keep.shape == kept_scores.shape, f"{tuple(keep.shape)} indices but {tuple(kept_scores.shape)} scores")
    expect(len(keep.unique()) == len(keep), "a box is kept twice")
    expect((kept_scores[1:] <= kept_scores[:-1]).all(), "scores are not descending")
    within = (kept_scores <= scores[keep] + 1e-6) & (kept_scores >= 0)
    expect(within.all(), "a score is above what it was, or below 0")
    return keep, kept_scores


@check_nms.check("detections are cut to the best max_detections: order and scores must agree.")
def keeps_in_order_of_scores(s: Subject) -> None:
    _suppress(s, _boxes(100), torch.rand(100), torch.arange(100) % 3)


@check_nms.check("every object would be drawn twice.")
def duplicates_go_or_sink(s: Subject) -> None:
    boxes = _boxes(1).repeat(2, 1)
    keep, kept_scores = _suppress(s, boxes, torch.tensor([0.9, 0.8]), torch.zeros(2, dtype=torch.int64))
    stays = len(keep) and int(keep[0]) == 0 and float(kept_scores[0]) > 0.89
    expect(stays, "the better of two equal boxes does not stay")
    expect(len(keep) == 1 or float(kept_scores[1]) < 0.79, "the worse of two equal boxes stays with its score")


@check_nms.check("objects side by side would be lost.")
def boxes_apart_stay(s: Subject) -> None:
    corner = torch.tensor([[0.0, 0.0], [100.0, 0.0], [0.0, 100.0]])
    scores = torch.tensor([0.5, 0.9, 0.7])
    keep, kept_scores = _suppress(s, torch.cat((corner, corner + 30), dim=1), scores, torch.zeros(3, dtype=torch.int64))
    expect(keep.tolist() == [1, 2, 0], f"three boxes that do not overlap: kept {keep.tolist()}, want [1, 2, 0]")
    expect(torch.allclose(kept_scores, scores[keep]), "scores of boxes that do not overlap change")


@check_nms.check("an image without detections must not crash.")
def takes_nothing(s: Subject) -> None:
    with must_not_raise("suppression of no box"):
        keep, _ = _suppress(s, torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    expect(len(keep) == 0, f"{len(keep)} boxes kept of none")


def _assign_call(s: Subject, part: TestedPart, k: int) -> Nest:
    assignment = _assign_with(part, _anchors(128), _targets(k % 6))
    return [assignment.labels, assignment.matched, *([] if assignment.quality is None else [assignment.quality])]


def _code_call(s: Subject, part: TestedPart, k: int) -> Nest:
    anchors, boxes = _boxes(5 + k % 3), _boxes(5 + k % 3)
    return [part.encode(boxes, anchors), part.decode(0.1 * torch.randn(len(boxes), part.num_columns), anchors)]


def _suppress_call(s: Subject, part: TestedPart, k: int) -> Nest:
    count = 20 + k % 5
    return list(part(_boxes(count), torch.rand(count), torch.arange(count) % CLASSES))


add_memory_checks(check_assigner, _assign_call)
add_memory_checks(check_coder, _code_call)
add_memory_checks(check_nms, _suppress_call)
