"""The report on a loss or gradient that is not finite."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from detkit import boxes as box_ops
from detkit.structures import Batch
from detkit.train.sums import Layout
from detkit.utils.exit_codes import ExitCode

NAMED = 4
"""Most ranks whose images the report lists."""


class NonFiniteLossError(FloatingPointError):
    """A loss or gradient became infinite or NaN; the step was not applied."""

    exit_code = ExitCode.DIVERGED


def describe_terms(micro: list[Batch], layout: Layout, own: list[float]) -> tuple[bool, list[str]]:
    """Whether a process's own rows, (M, W) and flat, are finite, and lines about its micro-batches."""
    lines = []
    width = len(own) // len(micro)
    for i, batch in enumerate(micro):
        row = own[width * i : width * (i + 1)]
        terms, numbers = row[: len(layout.terms)], row[len(layout.terms) :]
        bad = "" if math.isfinite(sum(terms)) else "  <- here"
        sums = " ".join(f"{name} {value:g}" for name, value in zip(layout.terms, terms, strict=True))
        lines.append(f"  micro-batch {i + 1}: {sums} (sums), normaliser {' '.join(f'{n:g}' for n in numbers)}{bad}")
        lines.append(f"    image ids {', '.join(map(str, batch.image_ids))}")
    lines.append(f"    boxes of these images: {find_bad_boxes(micro) or 'all finite and of positive area'}")
    return all(map(math.isfinite, own)), lines


def describe_non_finite(
    step: int, lr: float, gradient_norm: float, ranks: list[tuple[bool, list[str]]], checkpoint: Path | None
) -> str:
    """The report on a loss that is not finite. ranks: `describe_terms` of each."""
    lines = [f"the loss is not finite at step {step}; it was not applied"]
    guilty = [rank for rank, (finite, _) in enumerate(ranks) if not finite]
    # Where every rank's loss was finite and the gradient wasn't, nothing points to one of them.
    for rank in (shown := (guilty or list(range(len(ranks))))[:NAMED]):
        lines += [f"  rank {rank}:"] * (len(ranks) > 1) + ranks[rank][1]
    if len(guilty) > len(shown):
        lines.append(f"  and {len(guilty) - len(shown)} ranks more")
    lines += [
        f"  learning rate {lr:g}, gradient norm {gradient_norm:g}",
        f"  last good checkpoint: {checkpoint or 'none yet'}",
        "What usually helps: a lower optimizer.lr, a longer schedule.warmup_iterations, "
        "train.clip_norm=10; with fp16, train.precision=bf16 or fp32.",
    ]
    return "\n".join(lines)


def find_bad_boxes(micro: list[Batch]) -> str:
    """Names images with a box that is not finite or has no area; empty if there is none."""
    found = []
    for batch in micro:
        for image_id, path, target in zip(batch.image_ids, batch.paths, batch.targets, strict=True):
            bad = ~(torch.isfinite(target.boxes).all(1) & (box_ops.sides(target.boxes) > 0).all(1))
            if bool(bad.any()):
                found.append(f"image {image_id} ({path}): {target.boxes[bad][0].tolist()}")
    return "; ".join(found)
