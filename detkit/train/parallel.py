"""What several processes need besides the loop: the wrapped forward pass, buffers alike, a check of gradients."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from detkit.distributed import comm
from detkit.layers.norms import SyncBatchNorm2d
from detkit.structures import Batch, Targets
from detkit.train.options import TrainOptions

log = logging.getLogger("detkit")

FEW_IMAGES = 4
"""Batch normalisation over fewer is poor."""
CHECK_SIDE = 64
"""Pixels of the images of `check_gradients`."""


def wrap_forward(detector: Any, options: TrainOptions, world_size: int) -> Any:
    """What is called for the forward pass: the detector itself, compiled, or wrapped in DDP.

    Every parameter takes part in every step (`check_gradients`), so nothing is searched for unused ones.
    Buffers are sent around only where a step changes them.
    """
    forward = detector
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
    """Whether a layer normalises, in training, by the images of this process alone. Frozen stages do not."""
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
    """Gives every process rank 0's buffers, so that all evaluate the model that rank 0 writes to disk."""
    if comm.world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def largest_image(micro: Sequence[Batch], device: torch.device, world_size: int) -> tuple[int, int]:
    """Height and width of the largest batch of a step, over its micro-batches and all processes."""
    sides = torch.tensor([max(b.images.shape[-2] for b in micro), max(b.images.shape[-1] for b in micro)])
    if world_size == 1:
        height, width = sides.tolist()
        return int(height), int(width)
    # A stream of its own, so that the host waits for the other processes only, not for what is left of the
    # step before on this device.
    with torch.cuda.stream(torch.cuda.Stream(device) if device.type == "cuda" else None):  # type: ignore[no-untyped-call]
        sides = sides.to(device)
        dist.all_reduce(sides, op=dist.ReduceOp.MAX)
        height, width = sides.tolist()
    return int(height), int(width)


def pad_to(images: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, H, W) -> (B, C, *size), zeros right and below."""
    height, width = size[0] - images.shape[-2], size[1] - images.shape[-1]
    return F.pad(images, (0, width, 0, height)) if height or width else images


def check_gradients(detector: Any, device: torch.device) -> bool:
    """Raises ValueError with the names of trainable parameters that an image gives no gradient.

    Processes exchange the gradient of every parameter, so one that is missing on one of them stops all.
    Looked at is an image without objects and one that an object fills, of a copy. Returns whether the copy
    drew random numbers, as dropout does; the generators are left as they were.
    """
    model = copy.deepcopy(detector).train()
    whole = torch.tensor([[0, 0, CHECK_SIDE, CHECK_SIDE]], dtype=torch.float32)
    boxes = {"without objects": whole[:0], "with an object": whole}
    names, parameters = zip(*((n, p) for n, p in model.named_parameters() if p.requires_grad), strict=True)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        before = generator_state(device)
        for what, there in boxes.items():
            # Two images: batch normalisation has nothing to normalise over a single cell.
            images = torch.zeros(2, len(model.pixels.mean), CHECK_SIDE, CHECK_SIDE, dtype=torch.uint8, device=device)
            sizes = torch.full((2, 2), CHECK_SIDE)
            labels = torch.zeros(len(there), dtype=torch.int64)
            target = Targets(there, labels).to(device)
            losses = model.loss(model(images, sizes), [target, target])
            found = torch.autograd.grad(losses.total(), parameters, allow_unused=True)
            missing = [name for name, gradient in zip(names, found, strict=True) if gradient is None]
            if missing:
                more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
                raise ValueError(
                    f"images {what} give no gradient to {', '.join(missing[:10])}{more}. With several processes "
                    "every parameter must take part in every step: use it in forward (times zero at least), or "
                    "switch it off by requires_grad_(False)"
                )
        return not torch.equal(before, generator_state(device))


def generator_state(device: torch.device) -> Tensor:
    """The state of the generator that a device draws from."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def warn_of_the_split(detector: Any, parts: int, images: int, draws_numbers: bool = False) -> None:
    """Says what makes a step depend on how many processes and micro-batches it is divided into.

    parts: micro-batches of all processes together. images: how many there are in one.
    """
    if parts > 1 and detector.class_loss.batch_wise:
        log.warning(
            "%s looks at the images of a micro-batch together: the result depends on how a step is divided",
            type(detector.class_loss).__name__,
        )
    few = images < FEW_IMAGES
    if has_own_statistics(detector) and (parts > 1 or few):
        depends = "; the result depends on how a step is divided" if parts > 1 else ""
        log.warning(
            "norm: bn normalises over the %d images of one micro-batch of one process%s%s; sync_bn is over those of "
            "all processes, gn and frozen_bn are over each image",
            images, ", which are few" if few else "", depends,
        )  # fmt: skip
    if draws_numbers:
        log.warning(
            "the network draws random numbers while it trains (dropout, stochastic depth): another number of processes "
            "draws others"
        )


def other_processes(detector: Any, before: int, now: int) -> str | None:
    """What it means for a run to be resumed with another number of processes; None with the same number."""
    if before == now:
        return None
    said = f"{before} {'process' if before == 1 else 'processes'} before, {now} now"
    if has_own_statistics(detector):
        return (
            f"{said}: norm: bn normalises over the images of one process, so this is another training from here on, "
            "not the same to rounding; sync_bn, gn and frozen_bn do not depend on the number of processes"
        )
    if detector.class_loss.batch_wise:
        name = type(detector.class_loss).__name__
        return f"{said}: {name} looks at the images of one process together, so this is another training from here on"
    if any(isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0 for m in detector.modules()):
        return f"{said}: dropout draws other numbers, so this is another training from here on"
    return f"{said}: sums are added up in another order, so the run stays the same to rounding, not bit for bit"
