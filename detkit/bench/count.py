"""Parameters and multiply-adds of a detector by room, by fvcore.

fvcore counts a multiplication with its addition once. It follows the operations of one forward pass and knows
convolutions, linear layers, products of matrices, norms and resizing; what is added here is deformable convolution, the
focal loss and suppression. Whatever else an operation is, it is named among those that are not counted.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from detkit.detectors.dense import DenseDetector
from detkit.utils.types import Tree


class Traced(nn.Module):
    """A detector whose forward pass gives tensors alone, as a trace demands."""

    def __init__(self, detector: DenseDetector, sizes: Tensor) -> None:
        super().__init__()
        self.detector, self.sizes = detector, sizes

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        pred = self.detector(images, self.sizes)
        return tuple(x for x in (pred.logits, pred.deltas, pred.quality) if x is not None)


def count(detector: DenseDetector, images: Tensor, sizes: Tensor) -> Tree:
    """Rooms (backbone, neck, head) -> parameters, and multiply-adds of a forward pass of these images.

    not_counted: operation -> how often it occurs and counts for nothing. Raises ImportError without fvcore.
    """
    analysis = analyse(Traced(detector, sizes).eval(), (images,))
    by_module, parameters = analysis.by_module(), parameter_count(detector)
    rooms = {
        name: {"parameters": int(parameters[name]), "multiply_adds": int(by_module[f"detector.{name}"])}
        for name, module in detector.named_children()
        if parameters[name] or by_module[f"detector.{name}"]
    }
    total = {"parameters": int(parameters[""]), "multiply_adds": int(analysis.total())}
    return {"rooms": rooms, "total": total, "not_counted": dict(sorted(analysis.unsupported_ops().items()))}


def parameter_count(module: nn.Module) -> dict[str, int]:
    """Name of a module -> its parameters, shared ones once; the whole has the empty name."""
    counted: dict[str, int] = fvcore().parameter_count(module)
    return counted


def analyse(module: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
    """fvcore's analysis, with what detkit adds to it."""
    analysis = fvcore().FlopCountAnalysis(module, inputs)
    analysis.set_op_handle(**HANDLES)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    with torch.no_grad():
        analysis.total()
    return analysis


def fvcore() -> Any:
    try:
        import fvcore.nn
    except ImportError as error:
        raise ImportError(
            "parameters and multiply-adds are counted by the package fvcore: pip install 'detkit[bench]', or leave "
            f"them out by --no-counts ({error})"
        ) from error
    return fvcore.nn


def shape(value: Any) -> list[int]:
    """The shape of a tensor in a trace; empty for what is none."""
    kind = value.type()
    return list(kind.sizes() or []) if hasattr(kind, "sizes") else []


def deformable(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """A convolution's multiply-adds, and four for reading between the cells, of every place that is read."""
    weight, offset, output = shape(inputs[1]), shape(inputs[2]), shape(outputs[0])
    channels_in, places = shape(inputs[0])[1], weight[2] * weight[3]
    read = output[0] * channels_in * places * output[2] * output[3]
    assert offset[0] == output[0]
    return Counter({"deform_conv2d": math.prod(output) * math.prod(weight[1:]) + 4 * read})


def focal(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """One of each logit: its cost, added to the sum."""
    return Counter({"sigmoid_focal": math.prod(shape(inputs[0]))})


def suppression(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """Two of each pair of boxes (areas of overlap and union), which is the most: groups and early stops save some."""
    boxes = shape(inputs[0])[0]
    return Counter({"suppression": boxes * (boxes - 1)})


HANDLES: dict[str, Callable[[list[Any], list[Any]], Counter[str]]] = {
    "torchvision::deform_conv2d": deformable,
    "detkit::sigmoid_focal": focal,
    "detkit::nms": suppression,
    "detkit::nms_mask": suppression,
    "detkit::diou_nms": suppression,
    "detkit::soft_nms": suppression,
    "torchvision::nms": suppression,
}
"""Operation -> its multiply-adds."""
