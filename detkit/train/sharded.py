"""Parameters sharded over the processes (`train.parallel: fsdp`), by torch's fully_shard.

torch.distributed.fsdp is imported where it is needed, for it takes long. Full states are put together here and not by
torch.distributed.checkpoint.state_dict, which keys the optimizer's state by names: a checkpoint holds what the
`state_dict()` of one process gives.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from detkit.detectors.build import PROBE_SIDE
from detkit.detectors.dense import DenseDetector
from detkit.train.options import TrainOptions
from detkit.utils.types import Tree, Value

T = TypeVar("T")

LARGEST_FRACTION = 0.25
"""Fraction of all parameters that a module may hold without being sharded further."""


def shard(
    detector: DenseDetector,
    average: DenseDetector | None,
    optimizer: torch.optim.Optimizer,
    options: TrainOptions,
    device: torch.device,
) -> None:
    """Shards the parameters of both models in place, and points the optimizer to the shards.

    All ranks must hold the same parameters and call this together.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    compressed = torch.bfloat16 if options.gradient_compression == "bf16" else None
    old = dict(detector.named_parameters())
    for model in (detector, average):
        if model is None:
            continue
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        for unit in [*units(model, count_calls(model, device)), model]:
            fully_shard(unit, mesh=mesh, mp_policy=MixedPrecisionPolicy(reduce_dtype=compressed))
    new = dict(detector.named_parameters())
    shards = {id(parameter): new[name] for name, parameter in old.items()}
    for group in optimizer.param_groups:
        group["params"] = [shards[id(parameter)] for parameter in group["params"]]
        if "fused" in group:
            # torch has no fused SGD for sharded tensors.
            group["fused"], group["foreach"] = False, True


@torch.no_grad()
def count_calls(model: DenseDetector, device: torch.device) -> Counter[nn.Module]:
    """How often a forward pass calls each module. Leaves the model as it was."""
    calls: Counter[nn.Module] = Counter()
    hooks = [m.register_forward_pre_hook(lambda module, _: calls.update([module])) for m in model.modules()]
    training = {module: module.training for module in model.modules()}
    images = torch.zeros(1, len(model.pixels.mean), PROBE_SIDE, PROBE_SIDE, dtype=torch.uint8, device=device)
    model.eval()(images, torch.full((1, 2), PROBE_SIDE))
    for module, mode in training.items():
        module.training = mode
    for hook in hooks:
        hook.remove()
    return calls


def units(model: nn.Module, calls: Counter[nn.Module]) -> list[nn.Module]:
    """Modules to shard one by one, inner ones first: called once, and holding at most `LARGEST_FRACTION`.

    A larger one follows its children if it has parameters that they don't.
    """
    largest = LARGEST_FRACTION * count(model)
    modules: list[nn.Module] = []

    def search(module: nn.Module) -> int:
        """Adds the modules inside one; returns how many parameters they hold."""
        taken = 0
        for child in module.children():
            size, once = count(child), calls[child] == 1
            inside = 0 if once and size <= largest else search(child)
            if once and size > inside:
                modules.append(child)
                inside = size
            taken += inside
        return taken

    search(model)
    return modules


def count(module: nn.Module) -> int:
    """Numbers in the parameters of a module."""
    return sum(p.numel() for p in module.parameters())


@contextlib.contextmanager
def unsharded(model: nn.Module) -> Iterator[None]:
    """Unshards the model while the context is active, so that each rank can run it on its own.

    All ranks must enter it together. Does nothing to a model that is not sharded.
    """
    if not is_sharded(model):
        yield
        return
    from torch.distributed.fsdp import FSDPModule

    units = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    try:
        yield
    finally:
        for unit in units:
            unit.reshard()
            # The outermost one's are needed for the backward pass at once: torch keeps them too.
            unit.set_reshard_after_forward(unit is not units[0], recurse=False)


def is_sharded(model: nn.Module) -> bool:
    return any(hasattr(p, "full_tensor") for p in model.parameters())


def local_shard(tensor: Tensor) -> Tensor:
    """This rank's shard of a sharded tensor; any other tensor unchanged."""
    shard: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return shard


def full_state(state: T) -> T:
    """Nested dicts and lists with the sharded tensors put together, on the CPU, as one process would have them.

    All ranks must call it together, with the same structure.
    """
    full: Value = state
    if isinstance(state, dict):
        full = type(state)((key, full_state(item)) for key, item in state.items())
    elif isinstance(state, (list, tuple)):
        full = type(state)(map(full_state, state))
    elif hasattr(state, "full_tensor"):
        full = state.full_tensor().cpu()
    return cast(T, full)


def load_full_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    """`model.load_state_dict` of a full state into a model that may be sharded."""
    current = model.state_dict()
    model.load_state_dict({name: shard_like(current.get(name), value) for name, value in state.items()})


def load_full_optimizer_state(optimizer: torch.optim.Optimizer, state: Tree) -> None:
    """`optimizer.load_state_dict` of a full state; which kernels the optimizer uses is not loaded."""
    kernels: list[Tree] = [
        {key: group[key] for key in ("fused", "foreach") if key in group} for group in optimizer.param_groups
    ]
    optimizer.load_state_dict(state)
    for group, settings in zip(optimizer.param_groups, kernels, strict=True):
        group.update(settings)
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                values[name] = shard_like(parameter, value)


def shard_like(example: Tensor | None, value: Tensor) -> Tensor:
    """A full tensor, sharded as `example` of the same shape is."""
    if not hasattr(example, "device_mesh") or hasattr(value, "device_mesh"):
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    example = cast(DTensor, example)
    # Every rank has read the full tensor, so nothing has to be sent.
    value = value.to(example.device)
    return distribute_tensor(value, example.device_mesh, example.placements, src_data_rank=None)
