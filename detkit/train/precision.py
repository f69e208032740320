"""The precision in which a network computes its training pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Types of `train.precision`."""


@contextmanager
def computing_in(precision: str, device: torch.device) -> Iterator[None]:
    """The context of a network's forward pass: autocast, unless `precision` is fp32."""
    pads = device.type == "cpu" and precision == "bf16"
    lower = torch.autocast(device.type, DTYPES[precision], enabled=precision != "fp32")
    with lower, PadBefore() if pads else nullcontext():
        yield


class PadBefore(TorchFunctionMode):
    """Pads a map before a convolution, not inside it, where a weight of the kernel meets nothing but padding.

    oneDNN leaves the gradient of such a weight uninitialised in bfloat16 (torch 2.11): the 3x3 convolution of stride 2
    by which SSD makes its last levels gets random gradients, NaN among them, on a map of one cell.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is torch.conv2d:
            args, kwargs = pad_before(*args, **(kwargs or {})), {}
        return func(*args, **(kwargs or {}))


def pad_before(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> tuple[Any, ...]:
    """Arguments of torch.conv2d -> arguments with the same result, padded before if a weight meets only padding."""
    if not isinstance(padding, str):
        pads, strides, dilations = both(padding), both(stride), both(dilation)
        sides, kernels = input.shape[-2:], weight.shape[-2:]
        if any(map(meets_padding_only, sides, kernels, strides, pads, dilations)):
            return F.pad(input, (pads[1], pads[1], pads[0], pads[0])), weight, bias, stride, 0, dilation, groups
    return input, weight, bias, stride, padding, dilation, groups


def both(value: int | Sequence[int]) -> tuple[int, int]:
    """A value for height and width, as torch takes them: one for both or two."""
    if isinstance(value, int):
        return value, value
    return value[0], value[-1]


@lru_cache(maxsize=4096)
def meets_padding_only(side: int, kernel: int, stride: int, padding: int, dilation: int) -> bool:
    """Whether a column of the kernel lies outside of the map wherever the kernel is put."""
    places = range(-padding, side + padding - dilation * (kernel - 1), stride)
    return any(all(not 0 <= place + tap < side for place in places) for tap in range(0, dilation * kernel, dilation))
