"""Parameters divided among the processes (`train.parallel: fsdp`), by torch's fully_shard.

Each process keeps a part of every parameter, of its gradient and of the optimizer's and the average's state;
the parts meet in the forward and backward pass of a module at a time. torch.distributed.fsdp is imported where
it is needed, for it takes long.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from detkit.detectors.build import PROBE_SIDE
from detkit.train.options import TrainOptions

LARGEST_SHARE = 0.25
"""Of all parameters: what a module may hold without being divided further."""


def shard(
    detector: nn.Module,
    average: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    options: TrainOptions,
    device: torch.device,
) -> None:
    """Divides the parameters of both models, in place, and points the optimizer to the parts.

    All processes hold the same parameters when they call this.
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
    parts = {id(parameter): new[name] for name, parameter in old.items()}
    for group in optimizer.param_groups:
        group["params"] = [parts[id(parameter)] for parameter in group["params"]]
        if "fused" in group:
            # torch has no fused SGD for divided tensors.
            group["fused"], group["foreach"] = False, True


@torch.no_grad()
def count_calls(model: Any, device: torch.device) -> Counter[nn.Module]:
    """How often a forward pass calls each module. The model is left as it was."""
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
    """Modules to divide one by one, inner ones first: called once, and no larger than a share of the whole.

    A larger one is there as well, after its own, if it has parameters besides.
    """
    largest = LARGEST_SHARE * count(model)
    found: list[nn.Module] = []

    def search(module: nn.Module) -> int:
        """Takes what it finds in a module; returns how many parameters are in it."""
        taken = 0
        for child in module.children():
            size, once = count(child), calls[child] == 1
            inside = 0 if once and size <= largest else search(child)
            if once and size > inside:
                found.append(child)
                inside = size
            taken += inside
        return taken

    search(model)
    return found


def count(module: nn.Module) -> int:
    """Numbers in the parameters of a module."""
    return sum(p.numel() for p in module.parameters())


@contextlib.contextmanager
def unsharded(model: nn.Module) -> Iterator[None]:
    """Meanwhile each process has all parameters of a model and may call it as often as it likes, alone.

    Entered by all processes together; nothing happens to a model that isn't divided.
    """
    if not is_sharded(model):
        yield
        return
    from torch.distributed.fsdp import FSDPModule

    parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.reshard()
            # The outermost one's are needed for the backward pass at once: torch keeps them too.
            part.set_reshard_after_forward(part is not parts[0], recurse=False)


def is_sharded(model: nn.Module) -> bool:
    """Whether its parameters are divided."""
    return any(hasattr(p, "full_tensor") for p in model.parameters())


def local_shard(tensor: Tensor) -> Tensor:
    """This process's part of a divided tensor; another as it is."""
    part: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part


def full_state(content: Any) -> Any:
    """Nested dicts and lists with divided tensors put together, on the CPU, as one process would have them.

    Called by all processes together, with the same structure.
    """
    if isinstance(content, dict):
        return type(content)((key, full_state(value)) for key, value in content.items())
    if isinstance(content, (list, tuple)):
        return type(content)(full_state(value) for value in content)
    return content.full_tensor().cpu() if hasattr(content, "full_tensor") else content


def load_full_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    """`model.load_state_dict` of a whole state into a model that may be divided."""
    own = model.state_dict()
    model.load_state_dict({name: shard_like(own.get(name), value) for name, value in state.items()})


def load_full_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """The same for an optimizer. How it computes stays as it is here."""
    ways: list[dict[str, Any]] = [
        {key: value for key, value in group.items() if key in ("fused", "foreach")} for group in optimizer.param_groups
    ]
    optimizer.load_state_dict(state)
    for group, way in zip(optimizer.param_groups, ways, strict=True):
        group.update(way)
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                values[name] = shard_like(parameter, value)


def shard_like(example: Any, value: Tensor) -> Tensor:
    """A whole tensor divided as another one is, which it has the shape of."""
    if not hasattr(example, "device_mesh") or hasattr(value, "device_mesh"):
        return value
    from torch.distributed.tensor import distribute_tensor

    # Every process has read the whole, so nothing need be sent.
    value = value.to(example.device)
    return distribute_tensor(value, example.device_mesh, example.placements, src_data_rank=None)
