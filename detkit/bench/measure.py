"""Times of the stages of inference, and the memory that they take."""

from __future__ import annotations

import contextlib
import re
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detkit.bench.runners import Runner
from detkit.data.loader import collate_images
from detkit.data.transforms.base import transform_image
from detkit.predict.detections import open_image
from detkit.predict.predictor import Predictor
from detkit.predict.rescale import to_original
from detkit.runs.environment import peak_memory_mb
from detkit.utils.types import Tree

STAGES = ("read", "resize", "network", "postprocess")


class Bench:
    """Batches of image files through a predictor. files: of one batch. size: of the batch that the network gets."""

    def __init__(self, predictor: Predictor, files: Sequence[str]) -> None:
        self.predictor, self.files = predictor, list(files)
        self.images, self.sizes, _ = self.prepared(self.read())

    def read(self) -> list[Any]:
        """The images, decoded."""
        return [open_image(file, self.predictor.image_options) for file in self.files]

    def prepared(self, images: Sequence[Any]) -> tuple[Tensor, Tensor, Tensor]:
        """The batch on the device, sizes inside its padding, and those of the images on disk."""
        tensors = [transform_image(self.predictor.transforms, image) for image in images]
        batch, sizes = collate_images(tensors, self.predictor.backend.rules.size_divisor)
        return batch.to(self.predictor.device), sizes, torch.tensor([(image.height, image.width) for image in images])

    def run(self, runner: Runner, steps: int, warmup: int) -> Tree:
        """Medians of the stages over `steps` batches, after `warmup` that do not count."""
        device = self.predictor.device
        reset_peak_memory(device)
        started = time.perf_counter()
        network, postprocess = runner.prepare(self.predictor, self.images, self.sizes)
        prepared = time.perf_counter() - started
        laps: list[list[float]] = []
        found = 0
        with torch.inference_mode():
            for step in range(warmup + steps):
                times = [time.perf_counter()]
                images = self.read()
                times.append(self.lap(device))
                batch, sizes, original = self.prepared(images)
                times.append(self.lap(device))
                raw = network(batch, sizes)
                times.append(self.lap(device))
                detections = postprocess(raw, sizes)
                if isinstance(detections, list):
                    detections = to_original(detections, sizes, original)
                times.append(self.lap(device))
                found = sum(map(len, detections)) if isinstance(detections, list) else found
                if step >= warmup:
                    laps.append([b - a for a, b in pairwise(times)])
        stages = {name: milliseconds([lap[n] for lap in laps]) for n, name in enumerate(STAGES)}
        total = milliseconds([sum(lap) for lap in laps])
        return {
            "how": runner.name,
            "stages": stages,
            "total": total,
            "images_per_second": round(1000 * len(self.files) / total["median"], 2),
            "prepare_seconds": round(prepared, 2),
            "peak_memory_mb": peak_of(device),
            "detections": found,
        }

    @staticmethod
    def lap(device: torch.device) -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()


def milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    """Median and extremes, in milliseconds."""
    figures: dict[str, Callable[[Sequence[float]], float]] = {"median": statistics.median, "low": min, "high": max}
    return {name: round(1000 * figure(seconds), 3) for name, figure in figures.items()}


def reset_peak_memory(device: torch.device) -> None:
    """Starts the count of the peak anew, where that can be done: on a GPU, and of a process of Linux."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def peak_of(device: torch.device) -> float:
    """Peak since `reset_peak_memory`, MB: of tensors on the GPU, else of the process."""
    if device.type != "cuda":
        with contextlib.suppress(OSError):
            text = Path("/proc/self/status").read_text(encoding="utf-8")
            if match := re.search(r"^VmHWM:\s+(\d+) kB", text, re.MULTILINE):
                return round(int(match[1]) / 2**10, 1)
    return peak_memory_mb(device)
