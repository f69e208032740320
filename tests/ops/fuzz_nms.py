"""Random cases of detkit's suppression ops: `python tests/ops/fuzz_nms.py`.

nms and batched_nms against torchvision, nms_padded against those, soft_nms and diou_nms against plain PyTorch.

Compares indices, order and scores; where torchvision does not load, with the plain PyTorch reference. torchvision's
nms is called group by group for the batched cases, because its own batched_nms shifts coordinates and leaves
the order of equal scores open. Stops at the first difference and saves it; `--replay FILE` runs that case again.
"""

from __future__ import annotations

import argparse
import math
import time
from typing import Any

import torch
from torch import Tensor

from detkit.native.library import native
from detkit.ops import batched_nms, diou_nms, nms, nms_padded, soft_nms
from detkit.ops.suppression import diou, soft
from detkit.ops.suppression.hard import reference_mask

try:
    from torchvision.ops import nms as torchvision_nms
except (ImportError, RuntimeError):  # there are torch releases that no torchvision loads under
    torchvision_nms = None

SIZES = (0, 1, 2, 3, 8, 9, 31, 63, 64, 65, 100, 200)
LARGE = (700, 1000, 3000)
THRESHOLDS = (0.5, 0.3, 0.25, 0.7, 1 / 3, 0.6, 0.75, 0.1, 0.9, 0.0, 1.0, -0.1, 1e-7, 1.5, math.inf, -math.inf)
KINDS = ("cluster", "uniform", "integer", "identical", "degenerate", "huge", "tiny", "far", "thin", "special")


def boxes_of(kind: str, n: int, g: torch.Generator) -> Tensor:
    """(n, 4) float64 boxes of one kind."""

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=g, dtype=torch.float64)

    centers, sides = rand(n, 2) * torch.tensor([1333.0, 800.0]), torch.exp(rand(n, 2) * 3 + 2)
    if kind in ("cluster", "special", "far") and n:
        pick = torch.randint(max(1, n // 20), (n,), generator=g)
        jitter = torch.randn(n, 2, generator=g, dtype=torch.float64)
        sides = sides[pick] * torch.exp(jitter.flip(1) * 0.15)
        centers = centers[pick] + jitter * 0.1 * sides
    boxes = torch.cat([centers - sides / 2, centers + sides / 2], 1)
    if kind == "integer":  # many IoUs exactly at a threshold
        low = torch.randint(0, 12, (n, 2), generator=g).double()
        boxes = torch.cat([low, low + torch.randint(-1, 7, (n, 2), generator=g)], 1)
    elif kind == "identical" and n:
        boxes = boxes[torch.randint(max(1, n // 8), (n,), generator=g)]
    elif kind == "degenerate":  # zero-area and inverted ones among the others
        boxes[:, 2:] = torch.where(rand(n, 2) < 0.3, boxes[:, :2] - (rand(n, 2) * 30).round(), boxes[:, 2:])
    elif kind == "huge":
        boxes = boxes * 10 ** (rand(n, 1) * 36)
    elif kind == "tiny":
        boxes = boxes * 10 ** -(rand(n, 1) * 3 + 18)
    elif kind == "far":  # hardly any digits left for the sides
        boxes = boxes + 1e7
    elif kind == "thin":
        boxes[:, 3] = boxes[:, 1] + 10 ** (rand(n) * 6 - 3)
    elif kind == "special":
        values = torch.tensor([math.inf, -math.inf, math.nan, 0.0, -0.0, 1e38, -1e38])
        spoil = rand(n, 4) < 0.05
        boxes[spoil] = values[torch.randint(7, (int(spoil.sum()),), generator=g)].double()
    return boxes


def scores_of(n: int, g: torch.Generator) -> Tensor:
    """Distinct, quantised, constant or special scores."""
    style = int(torch.randint(4, (1,), generator=g))
    scores = torch.rand(n, generator=g)
    if style == 1:
        scores = (scores * 5).round() / 5
    elif style == 2:
        scores = torch.zeros(n)
    elif style == 3:
        special = torch.tensor([math.nan, math.inf, -math.inf, -0.0, 0.0])
        spoil = torch.rand(n, generator=g) < 0.2
        scores[spoil] = special[torch.randint(5, (int(spoil.sum()),), generator=g)]
    return scores


def threshold_of(boxes: Tensor, g: torch.Generator) -> float:
    """One of the list, or the very IoU of two of the boxes, or one ulp beside it."""
    if len(boxes) > 1 and torch.rand(1, generator=g) < 0.4:
        i, j = torch.randint(len(boxes), (2,), generator=g).tolist()
        a, b = boxes[i], boxes[j]
        inter = (torch.minimum(a[2:], b[2:]) - torch.maximum(a[:2], b[:2])).clamp(min=0).prod()
        value = inter / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - inter)
        step = int(torch.randint(3, (1,), generator=g))
        if step and torch.isfinite(value):
            value = torch.nextafter(value, value.new_tensor(math.inf if step == 1 else -math.inf))
        if torch.isfinite(value):
            return float(value)
    return THRESHOLDS[int(torch.randint(len(THRESHOLDS), (1,), generator=g))]


def plain_nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """torchvision's nms in plain PyTorch."""
    order = scores.sort(stable=True, descending=True).indices
    return order[reference_mask(boxes[order], None, threshold)]


def expected(boxes: Tensor, scores: Tensor, groups: Tensor | None, threshold: float) -> Tensor:
    """torchvision's answer, by descending score, then index."""
    suppress = torchvision_nms or plain_nms
    order = scores.sort(stable=True, descending=True).indices
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(order))
    keep = []
    for group in [None] if groups is None else groups.unique().tolist():
        own = torch.arange(len(boxes)) if group is None else (groups == group).nonzero()[:, 0]
        keep.append(own[suppress(boxes[own], -ranks[own].to(boxes.dtype), threshold)])
    found = torch.cat(keep) if keep else order
    return found[ranks[found].argsort()]


def case(seed: int, large: bool) -> tuple[Tensor, Tensor, Tensor | None, float]:
    """Everything of a case follows from its seed."""
    g = torch.Generator().manual_seed(seed)

    def choose(options: tuple[Any, ...]) -> Any:
        return options[int(torch.randint(len(options), (1,), generator=g))]

    n = choose(LARGE if large else SIZES)
    dtype = torch.float64 if torch.rand(1, generator=g) < 0.2 else torch.float32
    boxes = boxes_of(choose(KINDS), n, g).to(dtype)
    scores = scores_of(n, g)
    groups = None
    if torch.rand(1, generator=g) < 0.4:
        groups = torch.randint(-3, int(choose((1, 2, 10, 80))), (n,), generator=g)
        if torch.rand(1, generator=g) < 0.2:
            groups = groups * 2**55
    return boxes, scores, groups, threshold_of(boxes, g)


def same(boxes: Tensor, scores: Tensor, groups: Tensor | None, threshold: float) -> bool:
    """Whether both give the same indices in the same order."""
    plain = groups is None
    got = nms(boxes, scores, threshold) if plain else batched_nms(boxes, scores, groups, threshold)
    return torch.equal(got, expected(boxes, scores, groups, threshold))


def same_padded(boxes: Tensor, scores: Tensor, groups: Tensor | None, threshold: float, size: int) -> bool:
    """Whether the padded op gives the first of the same indices, then -1."""
    wanted = expected(boxes, scores, groups, threshold)[:size]
    indices, count = nms_padded(boxes, scores, threshold, size, groups)
    filled = torch.cat([wanted, wanted.new_full((size - len(wanted),), -1)])
    return int(count) == len(wanted) and torch.equal(indices, filled)


def same_soft(boxes: Tensor, scores: Tensor, groups: Any, threshold: float, method: Any, floor: float) -> bool:
    """Whether soft-NMS gives the reference's boxes and scores; in the very same order where no exp is rounded."""
    options = {"iou_threshold": threshold, "sigma": 0.5, "min_score": floor}
    keep, lowered = soft_nms(boxes, scores, groups, method=method, **options)
    rows, wanted = soft.reference(boxes, scores, groups, method == "gaussian", **options)
    if method == "linear":
        return torch.equal(keep, rows) and torch.equal(lowered, wanted)
    if not torch.equal(keep.sort().values, rows.sort().values):
        return False
    return torch.allclose(lowered[keep.argsort()], wanted[rows.argsort()], rtol=1e-6, atol=0)


def same_diou(boxes: Tensor, scores: Tensor, groups: Tensor | None, threshold: float) -> bool:
    """Whether DIoU-NMS gives the reference's indices in the same order."""
    wanted = diou.reference(boxes, scores, groups, threshold)
    return torch.equal(diou_nms(boxes, scores, threshold, groups), wanted)


def difference(boxes: Tensor, scores: Tensor, groups: Tensor | None, threshold: float, variants: bool) -> str | None:
    """The op that differs, if one does."""
    drawn = boxes, scores, groups, threshold
    if not same(*drawn):
        return "nms" if groups is None else "batched_nms"
    if variants and not same_padded(*drawn, size=7):
        return "nms_padded"
    for method in ("linear", "gaussian") if variants else ():
        if not same_soft(*drawn, method=method, floor=0.01):
            return f"soft_nms, {method}"
    return "diou_nms" if variants and not same_diou(*drawn) else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0, help="first case")
    parser.add_argument("--large-every", type=int, default=100, help="one case in so many has many boxes")
    parser.add_argument(
        "--variants-every", type=int, default=20, help="one case in so many goes to the slow references"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--replay", metavar="FILE", help="run one saved case")
    args = parser.parse_args()
    if native.cpu_problem:
        raise SystemExit(f"nothing to try: {native.cpu_problem}")
    if args.replay:
        saved = torch.load(args.replay, weights_only=True)
        found = difference(*saved, variants=True)  # type: ignore[misc]
        print(f"DIFFERENT: {found}" if found else "same")
        return int(bool(found))
    torch.set_num_threads(args.threads)
    lanes = torch.ops.detkit.cpu_lanes()
    start = time.perf_counter()
    for seed in range(args.seed, args.seed + args.cases):
        large = seed % args.large_every == args.large_every - 1
        drawn = case(seed, large)
        found = difference(*drawn, variants=not large and seed % args.variants_every == 0)
        if found:
            path = f"nms_case_{seed}.pt"
            torch.save(drawn, path)
            print(f"DIFFERENT: {found}, case {seed}, n {len(drawn[0])}, threshold {drawn[3]!r}, saved to {path}")
            return 1
        if (seed + 1) % 50_000 == 0:
            print(f"{seed + 1 - args.seed} cases, {time.perf_counter() - start:.0f} s", flush=True)
    print(f"{args.cases} cases from seed {args.seed}: no difference ({lanes} lanes)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
