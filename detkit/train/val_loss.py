"""The loss on the validation images, by the loss objects of the training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from detkit.detectors.dense import DenseDetector
from detkit.distributed import comm
from detkit.structures import Batch, Predictions
from detkit.train.sums import Layout, row_of


class ValidationLoss:
    """Sums up the losses of an evaluation; `result` divides them as the training divides those of a step.

    The figure is the loss of a step whose batch of `batch_size` images is like the mean of all of them. So it does not
    depend on how the images are batched or divided among ranks, and normalizers with a running mean get numbers of the
    size that they know. detector: whose losses, assigners and coder are used, in eval mode; all their state is
    afterwards as it was.
    """

    def __init__(self, detector: DenseDetector, batch_size: int) -> None:
        self.detector, self.batch_size = detector, batch_size
        self.images = 0
        self.sums: tuple[Layout, Tensor] | None = None
        """What the numbers are, and their sums over the images so far."""

    @torch.no_grad()
    def add(self, pred: Predictions, batch: Batch) -> None:
        """Takes a batch and what the model predicts for it."""
        # A loss may keep what it computes; training can't use inference tensors.
        with torch.inference_mode(False), unchanged(self.detector):
            targets = batch.to(pred.logits.device).targets
            losses = self.detector.loss(as_normal(pred), targets)
        row = row_of(losses).cpu()
        self.sums = Layout.of(losses), row if self.sums is None else self.sums[1] + row
        self.images += len(batch)

    def result(self) -> dict[str, float]:
        """`loss` and `loss/<term>` over the images of all ranks, the same on each; empty without images."""
        images = sum(comm.all_gather(self.images))
        parts = [sums for sums in comm.all_gather(self.sums) if sums is not None]
        if not parts:
            return {}
        layout = parts[0][0]
        total = torch.stack([row for _, row in parts]).sum(dim=0) * (self.batch_size / images)
        numbers = layout.numbers(total)
        device = next(self.detector.parameters()).device
        with torch.no_grad(), unchanged(self.detector):
            divisors = self.detector.divide({name: x.to(device) for name, x in numbers.items()})
        sums = dict(zip(layout.terms, total.tolist(), strict=False))
        terms = {name: x / float(divisors[layout.divided_by[name]]) for name, x in sums.items()}
        return {"loss": sum(terms.values()), **{f"loss/{name}": value for name, value in terms.items()}}


def as_normal(pred: Predictions) -> Predictions:
    """Predictions whose tensors are no inference tensors."""
    values = {field.name: getattr(pred, field.name) for field in fields(pred)}
    copies: dict[str, Any] = {name: x.clone() for name, x in values.items() if isinstance(x, Tensor)}
    return replace(pred, **copies)


@contextlib.contextmanager
def unchanged(detector: DenseDetector) -> Iterator[None]:
    """Keeps modes, buffers, accumulated sums and random numbers from what happens while the context is active."""
    modes = [(module, module.training) for module in detector.modules()]
    buffers = {name: buffer.clone() for name, buffer in detector.named_buffers()}
    device = next(detector.parameters()).device
    detector.eval()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        for name, buffer in detector.named_buffers():
            buffer.copy_(buffers[name])
        detector.take_accumulated()
        for module, mode in modes:
            module.training = mode
