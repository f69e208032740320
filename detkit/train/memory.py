"""Whether a step fits into memory: an estimate before the first one, and words for an allocation that failed."""

from __future__ import annotations

import copy
import logging

import torch
from torch import Tensor

from detkit.analyze.anchor_coverage import padded
from detkit.checkpoint import size_of
from detkit.config import Config
from detkit.data.final import build_final
from detkit.data.loader import Key, Sample, Samples
from detkit.structures import Targets
from detkit.train.assemble import Session
from detkit.train.precision import computing_in
from detkit.utils.errors import is_out_of_memory
from detkit.utils.memory import free_memory

log = logging.getLogger("detkit")

SIDE = 128
"""Pixels of the images that the estimate is made with."""
LOOKED_AT = 4
"""Images of the data set whose size, after the transforms, is taken for all."""
GIB = 2**30
WAY_OUT = (
    "take a smaller data.loader.batch_size, a larger train.accumulate (micro-batches of a step, same result), "
    "or smaller images in data.train.transforms"
)


class OutOfMemoryError(ValueError):
    """A step that memory has no room for."""


def check_fits(session: Session) -> None:
    """Raises OutOfMemoryError if the tensors of a step need more memory than there is, before the first step.

    Counts weights, gradients, the optimizer's state and what the backward pass keeps, so a step needs at least this.
    """
    size = image_size(session)
    images, device = session.images_per_micro_batch, session.trainer.device
    needed = step_bytes(session, images, size)
    here = 1 if device.type == "cuda" else session.coordinator.process.local_world_size
    available = available_bytes(device)
    text = (
        f"a step of {images} images of {size[1]}x{size[0]} pixels needs at least {needed / GIB:.1f} GiB"
        + (f" in each of {here} processes" if here > 1 else "")
        + f", {available / GIB:.1f} GiB are available on {device}"
    )
    if needed * here > available:
        place = session.config.location("data.loader.batch_size")
        raise OutOfMemoryError(f"{place}: data.loader.batch_size: {text}: {WAY_OUT}")
    if needed * here > 0.8 * available:
        log.warning("%s: memory may run out; if it does, %s", text, WAY_OUT)


def image_size(session: Session) -> tuple[int, int]:
    """(height, width) that hold a few training images after their transforms, and after those of the last steps."""
    transforms = session.transforms("train")
    final = build_final(session.config, transforms)
    samples = Samples(session.train_set, transforms, session.config.seed, final=final.transforms if final else None)
    step = max(1, len(session.train_set) // LOOKED_AT)
    keys: list[Key] = [(0, index) for index in range(0, len(session.train_set), step)[:LOOKED_AT]]
    made = [samples[key] for key in keys + ([(*key, 1) for key in keys] if final else [])]
    sides = [s.image.shape[-2:] for s in made if isinstance(s, Sample)]  # a failure is the loader's to report
    if not sides:
        return SIDE, SIDE
    return padded((max(h for h, _ in sides), max(w for _, w in sides)), session.loader_options)


def step_bytes(session: Session, images: int, size: tuple[int, int]) -> int:
    """Bytes of the tensors that are there at once in a step of `images` images."""
    parameters = [p for p in session.detector.parameters() if p.requires_grad]
    trainable = size_of(parameters)
    all_weights = size_of(session.detector.state_dict())
    copies = 1 + (session.trainer.ema is not None)
    states = 2 if "betas" in session.trainer.optimizer.defaults else 1
    shards = session.trainer.world_size if session.trainer.sharded else 1
    fixed = (all_weights * copies + trainable * (1 + states)) // shards
    pixels = images * size[0] * size[1]
    return fixed + 3 * pixels * 5 + int(kept_bytes(session) * pixels / SIDE**2)


def kept_bytes(session: Session) -> int:
    """Bytes that the backward pass keeps of one image of SIDE x SIDE pixels; 0 if the detector can't take one."""
    precision = session.options.precision
    try:
        if session.trainer.sharded:  # a forward pass would be one of all processes
            return 0
        model = copy.deepcopy(session.detector).train()
        device = next(model.parameters()).device
        own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
        kept: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        images = torch.zeros(2, len(model.pixels.mean), SIDE, SIDE, dtype=torch.uint8, device=device)
        target = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)).to(device)
        hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), hooks:
            with computing_in(precision, device):
                pred = model(images, torch.full((2, 2), SIDE))
            losses = model.loss(pred, [target, target])
        del losses
        return sum(kept.values()) // 2  # two images, as batch normalisation wants them
    except (ValueError, RuntimeError, NotImplementedError, AttributeError, TypeError) as error:
        log.debug("no estimate of the memory: %s", error)
        return 0


def available_bytes(device: torch.device) -> int:
    """Memory that this process could still get: of the GPU, or of the machine or its control group, with swap."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0]) + torch.cuda.memory_reserved(device)
    return free_memory()


def as_out_of_memory(error: BaseException, config: Config, device: torch.device) -> OutOfMemoryError | None:
    """An allocation that failed in a training, in words; None for other errors."""
    if isinstance(error, OutOfMemoryError) or not is_out_of_memory(error):
        return None
    loader, options = config.options("data.loader"), config.options("train")
    first = str(error).strip().partition("\n")[0]
    return OutOfMemoryError(
        f"memory ran out on {device} with data.loader.batch_size={loader.batch_size}, "
        f"train.accumulate={options.accumulate}: {WAY_OUT} ({type(error).__name__}{f': {first}' if first else ''})"
    )
