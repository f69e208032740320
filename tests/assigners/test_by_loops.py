"""Assigners against plain loops written from the papers, on random and on odd images."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from detkit import registry
from detkit.anchors.grid import OctaveAnchors
from detkit.assigners.base import assign
from detkit.structures import BACKGROUND, IGNORED, Candidates, Targets

LEVELS = ((8, 16), (16, 8), (32, 4))
"""Stride and cells a side of the levels of an image of 128 px."""
TINY = [[3.1, 3.1, 3.9, 3.9]]  # between the points
SCENES: dict[str, dict[str, Any]] = {
    "random": {},
    "crowded": {"count": 14},
    "none": {"boxes": []},
    "tiny": {"boxes": TINY},
    "same": {"boxes": [[20, 24, 70, 80]] * 3, "labels": [1, 1, 0]},
    "huge": {"boxes": [[-60, -50, 300, 280], [30, 30, 90, 80]]},
    "border": {"boxes": [[0, 0, 24, 20], [100, 96, 128, 128], [0, 40, 128, 60]]},
    "ignore": {"ignore": [[0, 0, 70, 70], [90, 90, 92, 92]]},
    "one class": {"classes": 1},
    "one level": {"levels": LEVELS[:1]},
    "all predictions far": {"far": True},
}
EACH = pytest.mark.parametrize("name", SCENES)


class Scene:
    """Anchors as wide as the stride, predictions near the objects, in float32; the same as arrays in float64."""

    def __init__(
        self, boxes: Any = None, labels: Any = None, count: int = 5, ignore: Any = (), classes: int = 3,
        levels: Any = LEVELS, far: bool = False, seed: int = 0,
    ) -> None:  # fmt: skip
        noise = torch.Generator().manual_seed(seed)
        maker = OctaveAnchors(
            strides=tuple(s for s, _ in levels), base_scale=1.0, scales_per_octave=1, aspect_ratios=[1.0], offset=0.5
        )
        by_level = maker([(n, n) for _, n in levels], (128, 128), torch.device("cpu"))
        anchors, self.sizes = torch.cat(by_level), tuple(map(len, by_level))
        if boxes is None:
            corner = torch.rand(count, 2, generator=noise) * 90
            true = torch.cat((corner, corner + 6 + torch.rand(count, 2, generator=noise) * 60), dim=1)
        else:
            true = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        classes_of = torch.arange(len(true)) % classes if labels is None else torch.tensor(labels)
        self.targets = Targets(true, classes_of, torch.tensor(ignore, dtype=torch.float32).reshape(-1, 4))
        scores = torch.rand(len(anchors), classes, generator=noise)
        quality = torch.rand(len(anchors), generator=noise)
        predicted = anchors + 3 * torch.randn(len(anchors), 4, generator=noise)
        if len(true):
            of = torch.randint(len(true), (len(anchors),), generator=noise)
            predicted = true[of] + 0.15 * (true[of, 2:] - true[of, :2]).repeat(1, 2) * torch.randn(
                len(anchors), 4, generator=noise
            )
        predicted = torch.cat(
            (predicted[:, :2].minimum(predicted[:, 2:]), predicted[:, :2].maximum(predicted[:, 2:])), 1
        )
        predicted = predicted + 1e4 if far else predicted
        self.candidates = Candidates(anchors, self.sizes, lambda: scores, lambda: predicted, quality=lambda: quality)
        arrays = (x.double().numpy() for x in (anchors, predicted, scores, quality, true, self.targets.ignore))
        self.anchors, self.predicted, self.scores, self.quality, self.boxes, self.ignore = arrays
        self.labels = classes_of.tolist()
        self.at = (self.anchors[:, :2] + self.anchors[:, 2:]) / 2
        self.stride = self.anchors[:, 2] - self.anchors[:, 0]
        self.ignored = [False] * len(anchors)
        for i, a in enumerate(self.anchors):
            for region in self.ignore:
                self.ignored[i] |= bool(intersection(a, region) > 0.5 * area(a))

    def level_of(self, i: int) -> int:
        return int(np.searchsorted(np.cumsum(self.sizes), i, side="right"))


def area(a: Any) -> float:
    return float(max(a[2] - a[0], 0) * max(a[3] - a[1], 0))


def intersection(a: Any, b: Any) -> float:
    return area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))


def iou(a: Any, b: Any) -> float:
    both = intersection(a, b)
    return both / (area(a) + area(b) - both) if both else 0.0


def giou(a: Any, b: Any) -> float:
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    union = area(a) + area(b) - intersection(a, b)
    return iou(a, b) - (hull - union) / hull


def inside(point: Any, box: Any) -> bool:
    return bool(box[0] < point[0] < box[2] and box[1] < point[1] < box[3])


def middle(box: Any) -> Any:
    return (box[:2] + box[2:]) / 2


def log(x: float) -> float:
    return max(math.log(x), -100.0) if x > 0 else -100.0


def dynamic_k(
    scene: Scene, eligible: Callable[[int, Any], bool], cost: Callable[[int, int, float], float], topk: int
) -> tuple[list[int], dict[int, int]]:
    """2107.08430, section 2.1: k cheapest points of every object; a point of several goes to the cheapest object."""
    rows = [
        i for i in range(len(scene.anchors))
        if not scene.ignored[i] and any(eligible(i, box) for box in scene.boxes)
    ]  # fmt: skip
    takers: dict[int, list[int]] = {i: [] for i in rows}
    costs = {}
    for g, box in enumerate(scene.boxes):
        overlaps = {i: iou(box, scene.predicted[i]) for i in rows}
        for i in rows:
            costs[g, i] = cost(i, g, overlaps[i]) - 3 * min(0.0, math.log(overlaps[i] + 1e-7))
        k = max(1, int(sum(sorted(overlaps.values())[::-1][:topk])))
        for i in sorted(rows, key=lambda i: (costs[g, i], i))[: min(k, topk)]:
            takers[i].append(g)
    everyone = range(len(scene.boxes))
    taken = {
        i: gs[0] if len(gs) == 1 else min(everyone, key=lambda g: costs[g, i])
        for i, gs in takers.items() if gs
    }  # fmt: skip
    labels = [BACKGROUND] * len(scene.anchors)
    for i, g in taken.items():
        labels[i] = scene.labels[g]
    return labels, taken


def simota(scene: Scene) -> tuple[list[int], dict[int, int]]:
    at = scene.at + 0.5 * scene.stride[:, None]
    score = np.sqrt(scene.scores * scene.quality[:, None])

    def central(i: int, box: Any) -> bool:
        return bool((abs(at[i] - middle(box)) < 2.5 * scene.stride[i]).all())

    def cost(i: int, g: int, overlap: float) -> float:
        own = scene.labels[g]
        entropy = sum(-log(p) if k == own else -log(1 - p) for k, p in enumerate(score[i]))
        both = inside(at[i], scene.boxes[g]) and central(i, scene.boxes[g])
        return float(entropy) + (0 if both else 1e5)

    return dynamic_k(scene, lambda i, box: inside(at[i], box) or central(i, box), cost, 10)


def soft_label(scene: Scene) -> tuple[list[int], dict[int, int]]:
    def cost(i: int, g: int, overlap: float) -> float:
        total = 0.0
        for k, p in enumerate(scene.scores[i]):
            y = overlap if k == scene.labels[g] else 0.0
            total += -(y * log(p) + (1 - y) * log(1 - p)) * (y - p) ** 2
        distance = math.dist(scene.at[i], middle(scene.boxes[g])) / scene.stride[i]
        return float(total) + 10 ** (distance - 3)

    return dynamic_k(scene, lambda i, box: inside(scene.at[i], box), cost, 13)


def check(scene: Scene, found: Any, labels: list[int], matched: dict[int, int], ignored: Any = None) -> None:
    ignored = scene.ignored if ignored is None else ignored
    wanted = [IGNORED if out else label for label, out in zip(labels, ignored, strict=True)]
    assert found.labels.tolist() == wanted
    assert {i: int(found.matched[i]) for i in (found.labels >= 0).nonzero()[:, 0].tolist()} == {
        i: g for i, g in matched.items() if not ignored[i]
    }


def run(name: str, node: dict[str, Any]) -> tuple[Scene, Any]:
    scene = Scene(**SCENES[name])
    return scene, assign(registry.ASSIGNERS.build(node), scene.candidates, scene.targets)


@EACH
@pytest.mark.parametrize(("kind", "loops"), [("SimOTAAssigner", simota), ("DynamicSoftLabelAssigner", soft_label)])
def test_dynamic_k(name: str, kind: str, loops: Any) -> None:
    scene, found = run(name, {"type": kind})
    labels, taken = loops(scene)
    check(scene, found, labels, taken)
    for i, g in taken.items():
        assert float(found.quality[i]) == pytest.approx(iou(scene.predicted[i], scene.boxes[g]), abs=1e-5)


@EACH
def test_uniform(name: str) -> None:
    """2103.09460, section 4.2: the 4 nearest predictions and the 4 nearest anchors of each object."""
    scene, found = run(name, {"type": "UniformAssigner"})

    def shape(box: Any) -> Any:
        return np.concatenate((middle(box), box[2:] - box[:2]))

    claims: list[tuple[int, int, int, int]] = []
    for g, box in enumerate(scene.boxes):
        for kind, shapes in enumerate((scene.predicted, scene.anchors)):
            distance = [float(abs(shape(box) - shape(x)).sum()) for x in shapes]
            for rank, i in enumerate(sorted(range(len(shapes)), key=lambda i: (distance[i], -i))[:4]):
                claims.append((rank, kind, g, i))
    labels = [BACKGROUND] * len(scene.anchors)
    for i, p in enumerate(scene.predicted):
        if any(iou(p, box) > 0.7 for box in scene.boxes):
            labels[i] = IGNORED
    pairs = []
    for _, _, g, i in sorted(claims):
        good = iou(scene.anchors[i], scene.boxes[g]) >= 0.15
        labels[i] = scene.labels[g] if good else IGNORED
        pairs += [(i, g)] if good and not scene.ignored[i] else []
    assert found.labels.tolist() == [IGNORED if out else x for x, out in zip(labels, scene.ignored, strict=True)]
    assert sorted(zip(*(x.tolist() for x in found.pairs), strict=True)) == sorted(pairs)


@EACH
@pytest.mark.parametrize("radius", [None, 1.5])
def test_points(name: str, radius: float | None) -> None:
    """1904.01355, section 3.2."""
    scene, found = run(name, {"type": "PointAssigner", "radius": radius})
    labels, matched, ignored = [BACKGROUND] * len(scene.anchors), {}, []
    for i, (x, y) in enumerate(scene.at):
        level, stride, good = scene.level_of(i), scene.stride[i], []
        least = 0 if level == 0 else 4 * stride
        most = math.inf if level == len(scene.sizes) - 1 else 8 * stride
        for g, (x1, y1, x2, y2) in enumerate(scene.boxes):
            sides = (x - x1, y - y1, x2 - x, y2 - y)
            near = radius is None or (abs(scene.at[i] - middle(scene.boxes[g])) < radius * stride).all()
            if min(sides) > 0 and least <= max(sides) <= most and near:
                good.append((area(scene.boxes[g]), g))
        if good:
            matched[i] = min(good)[1]
            labels[i] = scene.labels[matched[i]]
        ignored.append(not good and any(inside((x, y), region) for region in scene.ignore))
    check(scene, found, labels, matched, ignored)


@EACH
def test_central_region(name: str) -> None:
    """1904.03797, section 3.2: the middle 0.4 of an object, on the levels that take its size."""
    scene, found = run(name, {"type": "CentralRegionAssigner"})
    labels, matched, ignored = [BACKGROUND] * len(scene.anchors), {}, []
    for i, point in enumerate(scene.at):
        level, stride, good = scene.level_of(i), scene.stride[i], []
        for g, box in enumerate(scene.boxes):
            size = math.sqrt(area(box))
            fits = (level == 0 or size >= 2 * stride) and (level == len(scene.sizes) - 1 or size <= 8 * stride)
            if fits and (abs(point - middle(box)) <= 0.2 * (box[2:] - box[:2])).all():
                good.append((area(box), g))
        if good:
            matched[i] = min(good)[1]
            labels[i] = scene.labels[matched[i]]
        ignored.append(not good and any(inside(point, region) for region in scene.ignore))
    check(scene, found, labels, matched, ignored)


@EACH
@pytest.mark.parametrize("alpha", [None, 0.8])
def test_atss(name: str, alpha: float | None) -> None:
    """1912.02424, algorithm 1; with alpha the overlap of 2107.02963."""
    scene, found = run(name, {"type": "ATSSAssigner", "alpha": alpha})
    claims: dict[int, list[tuple[float, int]]] = {}
    for g, box in enumerate(scene.boxes):
        near, start = [], 0
        for size in scene.sizes:
            rows = range(start, start + size)
            near += sorted(rows, key=lambda i: (float(((scene.at[i] - middle(box)) ** 2).sum()), i))[:9]
            start += size

        def overlap(i: int, g: int = g) -> float:
            if alpha is None:
                return iou(scene.anchors[i], scene.boxes[g])
            score = scene.scores[i][scene.labels[g]]
            return float(score ** (1 - alpha) * iou(scene.predicted[i], scene.boxes[g]) ** alpha)

        overlaps = [overlap(i) for i in near]
        threshold = np.mean(overlaps) + np.std(overlaps, ddof=1)
        for i, value in zip(near, overlaps, strict=True):
            if value >= threshold - 1e-9 and inside(scene.at[i], box):
                claims.setdefault(i, []).append((-value, g))
    matched = {i: min(of)[1] for i, of in claims.items()}
    labels = [scene.labels[matched[i]] if i in matched else BACKGROUND for i in range(len(scene.anchors))]
    check(scene, found, labels, matched)


def normal(x: float, mean: float, variance: float) -> float:
    return math.exp(-((x - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)


def split(costs: list[float]) -> int:
    """2007.08103, section 3.2: how many of ascending costs are those of the better Gaussian, up to the densest."""
    if len(costs) < 2:
        return 0
    weight, mean, variance = [0.5, 0.5], [costs[0], costs[-1]], [1.0, 1.0]
    before = -math.inf
    for _ in range(100):
        joint = [[weight[k] * normal(x, mean[k], variance[k]) for k in (0, 1)] for x in costs]
        likelihood = sum(math.log(sum(row)) for row in joint) / len(costs)
        for k in (0, 1):
            shares = [row[k] / sum(row) for row in joint]
            mean[k] = sum(s * x for s, x in zip(shares, costs, strict=True)) / sum(shares)
            variance[k] = sum(s * (x - mean[k]) ** 2 for s, x in zip(shares, costs, strict=True)) / sum(shares) + 1e-6
            weight[k] = sum(shares) / len(costs)
        if abs(likelihood - before) < 1e-3:
            break
        before = likelihood
    joint = [[weight[k] * normal(x, mean[k], variance[k]) for k in (0, 1)] for x in costs]
    better = [i for i, row in enumerate(joint) if row[0] >= row[1]]
    if not better:
        return 0
    densest = max(better, key=lambda i: sum(joint[i]))
    return len([i for i in better if i <= densest])


@EACH
def test_mixture(name: str) -> None:
    node = {"type": "MaxIoUAssigner", "positive": 0.1, "negative": 0.1}
    scene, found = run(name, {"type": "MixtureAssigner", "assigner": node})
    proposed = assign(registry.ASSIGNERS.build(node), scene.candidates, scene.targets)
    labels, matched = [BACKGROUND] * len(scene.anchors), {}
    for g, box in enumerate(scene.boxes):
        chosen: list[tuple[float, int]] = []
        for level in range(len(scene.sizes)):
            costs = []
            for i in range(len(scene.anchors)):
                mine = int(proposed.labels[i]) >= 0 and int(proposed.matched[i]) == g
                if scene.level_of(i) != level or not mine:
                    continue
                classes = sum(
                    -0.25 * (1 - p) ** 2 * math.log(p) if k == scene.labels[g] else -0.75 * p**2 * math.log(1 - p)
                    for k, p in enumerate(scene.scores[i])
                )
                costs.append((float(classes) + 1.3 * (1 - giou(scene.predicted[i], box)), i))
            chosen += sorted(costs)[:9]
        chosen.sort()
        for _, i in chosen[: split([cost for cost, _ in chosen])]:
            labels[i], matched[i] = scene.labels[g], g
    check(scene, found, labels, matched)
