"""Data-parallel helpers: DDP wrapping, buffer broadcast, gradient check."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from detkit.detectors.dense import DenseDetector
from detkit.distributed import comm
from detkit.layers.norms import SyncBatchNorm2d
from detkit.structures import Batch, Targets
from detkit.train.options import TrainOptions
from detkit.utils.console import plural, shorten_list

log = logging.getLogger("detkit")

FEW_IMAGES = 4
"""Batch normalisation over fewer images is poor."""
CHECK_SIDE = 64
"""Pixels of the images that `check_gradients` uses."""


def wrap_forward(detector: DenseDetector, options: TrainOptions, world_size: int) -> Any:
    """The detector as the forward pass calls it: unchanged, compiled, or wrapped in DDP.

    Every parameter takes part in every step (`check_gradients`), so DDP need not look for unused ones.
    Buffers are broadcast only where a step changes them.
    """
    forward: Any = detector
    if options.compile:
        forward = torch.compile(forward)
    if world_size == 1 or options.parallel == "fsdp":
        return forward
    forward = nn.parallel.DistributedDataParallel(
        forward,
        gradient_as_bucket_view=True,
        # Not static_graph: it looks for tensors in what forward returns, finds none in a dataclass, and then
        # leaves out the exchange of the first step without a word.
        broadcast_buffers=has_own_statistics(detector),
    )
    if options.gradient_compression == "bf16":
        from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook

        forward.register_comm_hook(None, bf16_compress_hook)
    return forward


def has_own_statistics(model: nn.Module) -> bool:
    """Whether a layer that is not frozen normalises over the images of this process alone."""
    was_training = model.training
    model.train()
    try:
        return any(
            m.training
            and isinstance(m, nn.modules.batchnorm._BatchNorm)
            and not isinstance(m, (nn.SyncBatchNorm, SyncBatchNorm2d))
            for m in model.modules()
        )
    finally:
        model.train(was_training)


@torch.no_grad()
def share_buffers(model: nn.Module) -> None:
    """Broadcasts rank 0's buffers, so that all ranks evaluate the model that rank 0 writes to disk."""
    if comm.world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def largest_image(micro: Sequence[Batch], device: torch.device, world_size: int) -> tuple[int, int]:
    """Largest height and width in a step, over its micro-batches and all ranks."""
    sides = torch.tensor([max(b.images.shape[-2] for b in micro), max(b.images.shape[-1] for b in micro)])
    if world_size == 1:
        height, width = sides.tolist()
        return int(height), int(width)
    # A separate stream, so that the host waits for the other ranks only, not for the rest of the step before.
    with torch.cuda.stream(torch.cuda.Stream(device) if device.type == "cuda" else None):  # type: ignore[no-untyped-call]
        sides = sides.to(device)
        dist.all_reduce(sides, op=dist.ReduceOp.MAX)
        height, width = sides.tolist()
    return int(height), int(width)


def pad_to(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Pads (B, C, H, W) to (B, C, *size), with zeros right and below."""
    height, width = size[0] - images.shape[-2], size[1] - images.shape[-1]
    return F.pad(images, (0, width, 0, height)) if height or width else images


def check_gradients(detector: DenseDetector, device: torch.device) -> bool:
    """Raises ValueError with the names of trainable parameters that get no gradient from an image.

    Ranks exchange the gradient of every parameter, so one that is missing on one rank stops all of them.
    A copy of the detector is tried on images without objects and on images that an object fills. Returns whether
    the copy drew random numbers, as dropout does; the generators are left as they were.
    """
    model = copy.deepcopy(detector).train()
    full_box = torch.tensor([[0, 0, CHECK_SIDE, CHECK_SIDE]], dtype=torch.float32)
    cases = {"without objects": full_box[:0], "with an object": full_box}
    names, parameters = zip(*((n, p) for n, p in model.named_parameters() if p.requires_grad), strict=True)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        before = generator_state(device)
        for case, boxes in cases.items():
            # Two images: batch normalisation has nothing to normalise over a single cell.
            images = torch.zeros(2, len(model.pixels.mean), CHECK_SIDE, CHECK_SIDE, dtype=torch.uint8, device=device)
            target = Targets(boxes, torch.zeros(len(boxes), dtype=torch.int64)).to(device)
            losses = model.loss(model(images, torch.full((2, 2), CHECK_SIDE)), [target, target])
            gradients = torch.autograd.grad(losses.total(), parameters, allow_unused=True)
            missing = [name for name, gradient in zip(names, gradients, strict=True) if gradient is None]
            if missing:
                raise ValueError(
                    f"these parameters get no gradient from images {case}: {shorten_list(missing, 10)}. "
                    "With several processes every parameter must take part in every step: use it in forward (times "
                    "zero at least), or switch it off by requires_grad_(False)"
                )
        return not torch.equal(before, generator_state(device))


def generator_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def warn_of_the_split(detector: DenseDetector, parts: int, images: int, draws_numbers: bool = False) -> None:
    """Logs warnings about what makes a step depend on its split into processes and micro-batches.

    parts: micro-batches of all processes together. images: images in one micro-batch.
    """
    if parts > 1 and detector.class_loss.batch_wise:
        text = "%s looks at the images of a micro-batch together: the result depends on how a step is divided"
        log.warning(text, type(detector.class_loss).__name__)
    few = images < FEW_IMAGES
    if has_own_statistics(detector) and (parts > 1 or few):
        depends = "; the result depends on how a step is divided" if parts > 1 else ""
        log.warning(
            "norm: bn normalises over %s%d images (one micro-batch of one process)%s; sync_bn normalises over those "
            "of all processes, gn and frozen_bn over each image",
            "only " if few else "", images, depends,
        )  # fmt: skip
    if draws_numbers:
        log.warning(
            "the network draws random numbers while it trains (dropout, stochastic depth): another number of processes "
            "draws others"
        )


def other_processes(detector: DenseDetector, before: int, now: int) -> str | None:
    """The consequence of resuming a run with another number of processes; None for the same number."""
    if before == now:
        return None
    counts = f"{plural(before, 'process', 'processes')} before, {now} now"
    if has_own_statistics(detector):
        return (
            f"{counts}: norm: bn normalises over the images of one process, so this is another training from here on, "
            "not the same to rounding; sync_bn, gn and frozen_bn do not depend on the number of processes"
        )
    if detector.class_loss.batch_wise:
        name = type(detector.class_loss).__name__
        return f"{counts}: {name} looks at the images of one process together, so this is another training from here on"
    if any(isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0 for m in detector.modules()):
        return f"{counts}: dropout draws other numbers, so this is another training from here on"
    return f"{counts}: sums are added up in another order, so the run stays the same to rounding, not bit for bit"
