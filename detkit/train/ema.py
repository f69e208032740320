"""An exponential moving average of the weights."""

from __future__ import annotations

import math
from typing import Generic, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from detkit.train.sharded import local_shard

M = TypeVar("M", bound=nn.Module)
Tensors = tuple[Tensor, ...] | list[Tensor]


class Ema(Generic[M]):
    """Averages parameters and floating-point buffers; whole-number buffers are copied.

    The decay of update n, counted from 0, is min(decay, (1 + n) / (10 + n)), so that a short run is
    not dominated by its initial weights (the rule of TensorFlow's ExponentialMovingAverage); with a `warmup` of
    tau updates it is decay * (1 - exp(-(n + 1) / tau)), as YOLOX and RTMDet do.
    """

    def __init__(self, model: M, decay: float, updates: int = 0, *, warmup: float | None = None) -> None:
        self.decay, self.updates, self.warmup = decay, updates, warmup
        self._averaged = AveragedModel(model, multi_avg_fn=self._mix, use_buffers=True)
        # Counted above, on the host: the average starts from the initial weights, not from the first update.
        self._averaged.n_averaged += 1
        self._averaged.requires_grad_(False)
        self._averaged.eval()

    @property
    def module(self) -> M:
        """The averaged model, in evaluation mode."""
        return cast(M, self._averaged.module)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Takes the model's present weights into the average."""
        self._averaged.update_parameters(model)
        self.updates += 1

    def next_decay(self) -> float:
        """The decay of the coming update."""
        if self.warmup is not None:
            return self.decay * -math.expm1(-(self.updates + 1) / self.warmup)
        return min(self.decay, (1 + self.updates) / (10 + self.updates))

    def _mix(self, averages: Tensors, new: Tensors, _: Tensor | int) -> None:
        averages, new = [local_shard(x) for x in averages], [local_shard(x) for x in new]
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, new, 1 - self.next_decay())
        else:
            torch._foreach_copy_(averages, new)
