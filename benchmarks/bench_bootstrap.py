"""How long the loss bench takes to compute AP on resampled images.

    python -m benchmarks.bench_bootstrap            # 5,000 images, 500,000 detections, 80 classes, 1,000 resamples

Which detections are right is drawn at random; that the figures are the evaluator's is for the tests.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from benchmarks.common import json_output, machine_line
from detkit.evaluate.bootstrap import average_precision, resample
from detkit.evaluate.matches import THRESHOLDS, ClassMatches, Matches
from detkit.utils.outputs import write_marked_json


def made_up(random: np.random.Generator, images: int, detections: int, objects: int) -> ClassMatches:
    """One class: as many right detections as there are objects at most, fewer at higher thresholds."""
    rows = tuple(
        np.sort(random.choice(detections, int(objects * (0.75 - 0.06 * t)), replace=False))
        for t in range(len(THRESHOLDS))
    )
    return ClassMatches(
        image=random.integers(0, images, detections).astype(np.int32),
        base=np.ones(detections, bool),
        twin=np.zeros(detections, bool),
        rows=rows,
        right=tuple(np.ones(len(r), bool) for r in rows),
        change=tuple(np.zeros(len(r), np.int8) for r in rows),
        objects=np.bincount(random.integers(0, images, objects), minlength=images).astype(np.int64),
    )


def main() -> None:
    """Times it and prints seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--detections", type=int, default=500_000)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--json", type=json_output, metavar="FILE")
    args = parser.parse_args()
    random = np.random.default_rng(0)
    each, objects = args.detections // args.classes, 7 * args.images // args.classes
    # All areas, then small, medium, large: every detection is in all and in one of the three.
    parts = tuple(
        tuple(made_up(random, args.images, each, n) for n in (objects, objects // 3, objects // 3, objects // 3))
        for _ in range(args.classes)
    )
    weights = resample(args.images, args.resamples)
    started = time.perf_counter()
    average_precision(Matches(parts, args.images), weights, tuple(map(str, range(args.classes))))
    seconds = time.perf_counter() - started
    line = machine_line()
    print(line)
    print(
        f"{args.resamples} resamples of {args.images} images, {args.detections} detections, {args.classes} classes, "
        f"10 thresholds, 4 area ranges: {seconds:.1f} s, {1000 * seconds / args.resamples:.1f} ms each"
    )
    if args.json:
        content = {
            "machine": line,
            **{k: v for k, v in vars(args).items() if k != "json"},
            "seconds": round(seconds, 2),
        }
        write_marked_json(args.json, content)


if __name__ == "__main__":
    main()
