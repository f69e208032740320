"""Sigmoid focal loss (1708.02002, equation 5), summed; binary cross-entropy as gamma = 0.

With f(z) = sigmoid(z)^gamma softplus(z), an entry that is not its row's class costs (1 - alpha) f(x) and the
one that is costs alpha f(-x). One pass over the logits gives the sum, one more the gradient; nothing is kept
in between, so training needs the gradient's own memory and no more.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from detkit.native.library import fall_back, native
from detkit.structures import IGNORED

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def sigmoid_focal_sum(logits: Tensor, labels: Tensor, alpha: float | None = 0.25, gamma: float = 2.0) -> Tensor:
    """Logits (..., K) and labels (...) -> scalar sum, float32 (float64 for float64 logits).

    labels: int64, the class 0..K-1, -1 for background, -2 for a row that counts for nothing. alpha: weight
    of a row's own class, 1 - alpha that of all other entries; None weighs both by 1. Half-precision logits
    are computed in float32, under autocast too; their gradient has their dtype. Can be differentiated once,
    backwards; forward mode (torch.func.jvp) sees a constant.
    Raises ValueError on wrong shapes, dtypes or devices and, on a CPU, on a label that is no class; a GPU
    is not waited for, and returns NaN for that.
    """
    _check(logits, labels)
    if not 0 <= gamma < math.inf:
        raise ValueError(f"gamma: {gamma} is not a finite number from 0 on")
    if alpha is not None and not 0 <= alpha <= 1:
        raise ValueError(f"alpha: {alpha} is not in [0, 1]")
    positive, negative = (1.0, 1.0) if alpha is None else (float(alpha), 1.0 - alpha)
    if native.has(logits):
        try:
            total: Tensor = torch.ops.detkit.sigmoid_focal.default(
                logits.contiguous(), labels.contiguous(), positive, negative, float(gamma)
            )
        except RuntimeError as error:
            raise _label_error(labels, logits.shape[-1]) or error from None
        return total
    fall_back(logits.device.type)
    return reference(logits, labels, positive, negative, gamma)


def reference(logits: Tensor, labels: Tensor, positive: float, negative: float, gamma: float) -> Tensor:
    """The same in plain PyTorch, without a one-hot target: what the kernels are tested against."""
    used = labels != IGNORED
    x, labels = logits[used].to(torch.float64 if logits.dtype == torch.float64 else torch.float32), labels[used]
    rows = (labels >= 0).nonzero()[:, 0]
    own = rows, labels[rows]
    nothing = x.new_full((), -1e4)  # f and its derivative are exactly 0 there

    def softplus(z: Tensor) -> Tensor:
        return F.softplus(z, threshold=50.0)  # z itself from 50 on, which is right to the last digit; exp(89) overflows

    def f(z: Tensor) -> Tensor:
        return softplus(z) * torch.exp(-gamma * softplus(-z))

    return negative * f(x.index_put(own, nothing)).sum() + positive * f(-x[own]).sum()


def _check(logits: Tensor, labels: Tensor) -> None:
    if logits.dtype not in DTYPES:
        raise ValueError(f"logits: {logits.dtype} is not one of float16, bfloat16, float32 and float64")
    if labels.dtype != torch.int64:
        raise ValueError(f"labels: {labels.dtype}; torch.int64 is needed")
    if logits.dim() == 0 or labels.shape != logits.shape[:-1]:
        raise ValueError(f"labels {tuple(labels.shape)} do not fit logits {tuple(logits.shape)}")
    if labels.device != logits.device:
        raise ValueError(f"labels are on {labels.device}, logits on {logits.device}")


def _label_error(labels: Tensor, columns: int) -> ValueError | None:
    """The error of a label that is no class, if there is one."""
    wrong = labels[(labels < IGNORED) | (labels >= columns)]
    if len(wrong) == 0:
        return None
    return ValueError(f"labels: {int(wrong[0])} is not a class 0..{columns - 1}, -1 (background) or -2 (ignored)")


if native.cpu:

    @torch.library.register_fake("detkit::sigmoid_focal")  # type: ignore[untyped-decorator]
    def _(logits: Tensor, labels: Tensor, positive: float, negative: float, gamma: float) -> Tensor:
        wide = logits.dtype == torch.float64
        return logits.new_empty((), dtype=torch.float64 if wide else torch.float32)

    @torch.library.register_fake("detkit::sigmoid_focal_backward")  # type: ignore[untyped-decorator]
    def _(grad: Tensor, logits: Tensor, labels: Tensor, positive: float, negative: float, gamma: float) -> Tensor:
        return torch.empty_like(logits)

    def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.weights = inputs[2:]

    def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        logits, labels = ctx.saved_tensors
        found = torch.ops.detkit.sigmoid_focal_backward(grad, logits, labels, *ctx.weights)
        return found, None, None, None, None

    def _twice(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        raise RuntimeError("sigmoid_focal_sum can be differentiated once only")

    torch.library.register_autograd("detkit::sigmoid_focal", _backward, setup_context=_setup)
    torch.library.register_autograd("detkit::sigmoid_focal_backward", _twice)
