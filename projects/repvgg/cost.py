"""What configs cost on one CPU thread: python projects/repvgg/cost.py projects/repvgg/config.yaml OTHER.yaml

Multiply-adds and parameters are exact. Milliseconds are CPU time, the least of ten, for a batch of 8: a step's forward,
loss and backward, and the forward of an evaluation.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from detkit.config import load_config
from detkit.detectors.build import build_detector
from detkit.detectors.dense import DenseDetector
from detkit.structures import Targets

BATCH, SIDE, CLASSES, REPEATS = 8, 128, 7, 10


def multiply_adds(detector: DenseDetector, images: torch.Tensor) -> float:
    """Of the evaluation of one image, in millions."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        detector.eval()(images[:1])
    return float(counter.get_total_flops()) / 2e6


def milliseconds(work: Callable[[], object]) -> float:
    """The least CPU time of `REPEATS` calls."""
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return 1e3 * min(times)


def main(paths: list[str]) -> None:
    """Prints a line for every config."""
    torch.set_num_threads(1)
    images = torch.randint(0, 256, (BATCH, 3, SIDE, SIDE), dtype=torch.uint8)
    targets = [Targets(torch.tensor([[10.0, 10, 50, 50]]), torch.tensor([1]))] * BATCH
    print(f"{'config':40} {'million MACs':>12} {'M parameters':>12} {'ms a step':>10} {'ms forward':>10}")
    for path in paths:
        detector = build_detector(load_config(path), CLASSES)
        macs, parameters = multiply_adds(detector, images), sum(p.numel() for p in detector.parameters()) / 1e6
        detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

        def step(model: DenseDetector = detector) -> None:
            model.loss(model(images), targets).total().backward()  # type: ignore[no-untyped-call]

        def forward(model: DenseDetector = detector) -> None:
            with torch.inference_mode():
                model(images)

        detector.train()
        learn = milliseconds(step)
        detector.eval()
        print(f"{path:40} {macs:12.0f} {parameters:12.2f} {learn:10.0f} {milliseconds(forward):10.0f}")


if __name__ == "__main__":
    main(sys.argv[1:])
