"""MMDetection's names of the convolutions of CSPDarknet, CSPNeXt and their path aggregation."""

from __future__ import annotations

from tests.family.reference import Rules

PARTS = ("conv", "bn")
"""Convolution and norm of a block."""


def csp_rules(depthwise: bool) -> Rules:
    """depthwise: whether a bottleneck ends in a depthwise and a pointwise convolution."""
    inner = ("conv1", "conv2.depthwise_conv", "conv2.pointwise_conv") if depthwise else ("conv1", "conv2")
    return (
        # The lists of the path down begin with the coarsest of three levels there, with the finest here.
        (r"^neck\.reduce\.(\d)\.", lambda m: f"neck.reduce_layers.{1 - int(m[1])}."),
        (r"^neck\.top_down\.(\d)\.", lambda m: f"neck.top_down_blocks.{1 - int(m[1])}."),
        (r"^neck\.down\.", "neck.downsamples."),
        (r"^neck\.bottom_up\.", "neck.bottom_up_blocks."),
        (r"^neck\.output\.", "neck.out_convs."),
        (r"^backbone\.(?=conv\.)", "backbone.stem."),  # the harness takes `stem.` off, as ResNet needs it
        (r"^backbone\.(?=\d\.)", "backbone.stem."),
        (r"\.blocks\.(\d)\.convs\.(\d)\.", lambda m: f".blocks.{m[1]}.{inner[int(m[2])]}."),
        (r"\.attention\.project\.", ".attention.fc."),
        (r"\.(main|short)\.", r".\1_conv."),
        (r"^(backbone\.stage4\.1)\.reduce\.", r"\1.conv1."),
        (r"^(backbone\.stage4\.1)\.join\.", r"\1.conv2."),
        (r"\.join\.", ".final_conv."),
        # The last number of a block is its convolution or its norm.
        (r"^(backbone|neck)(.*)\.(\d)\.(\w+)$", lambda m: f"{m[1]}{m[2]}.{PARTS[int(m[3])]}.{m[4]}"),
    )
