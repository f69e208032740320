"""Names of detkit's tensors in the files of other toolkits."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypeAlias

from torch import Tensor

Rules: TypeAlias = tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]

# A detkit name is rewritten by each pattern in turn, so each family of tensors is one line.
DETECTRON2: Rules = (
    (r"^backbone\.stem\.bn1\.", "backbone.bottom_up.stem.conv1.norm."),
    (r"^backbone\.stem\.", "backbone.bottom_up.stem."),
    (r"^backbone\.layer(\d)\.", lambda m: f"backbone.bottom_up.res{int(m[1]) + 1}."),
    (r"\.downsample\.0\.", ".shortcut."),
    (r"\.downsample\.1\.", ".shortcut.norm."),
    (r"\.bn(\d)\.", r".conv\1.norm."),
    (r"^neck\.lateral\.c(\d)\.", r"backbone.fpn_lateral\1."),
    (r"^neck\.output\.c(\d)\.", r"backbone.fpn_output\1."),
    (r"^neck\.extra\.(\d)\.", lambda m: f"backbone.top_block.p{int(m[1]) + 6}."),
    (r"^head\.class_tower\.", "head.cls_subnet."),
    (r"^head\.box_tower\.", "head.bbox_subnet."),
    (r"^head\.class_out\.", "head.cls_score."),
    (r"^head\.box_out\.", "head.bbox_pred."),
)
_TORCHVISION: Rules = (
    (r"^backbone\.(stem\.)?", "backbone.body."),
    (r"^neck\.lateral\.c(\d)\.", lambda m: f"backbone.fpn.inner_blocks.{int(m[1]) - 3}.0."),
    (r"^neck\.output\.c(\d)\.", lambda m: f"backbone.fpn.layer_blocks.{int(m[1]) - 3}.0."),
    (r"^neck\.extra\.(\d)\.", lambda m: f"backbone.fpn.extra_blocks.p{int(m[1]) + 6}."),
    (r"^head\.class_tower\.", "head.classification_head.conv."),
    (r"^head\.box_tower\.", "head.regression_head.conv."),
    (r"^head\.class_out\.", "head.classification_head.cls_logits."),
    (r"^head\.box_out\.", "head.regression_head.bbox_reg."),
)
TORCHVISION_SSD: Rules = (
    (r"^backbone\.scale$", "backbone.scale_weight"),
    # torchvision cuts VGG's layers in two after the 23rd and counts the rest from the pooling on.
    (r"^backbone\.features\.(2[3-9])\.", lambda m: f"backbone.extra.0.{int(m[1]) - 23}."),
    (r"^backbone\.top\.(\d)\.", lambda m: f"backbone.extra.0.7.{int(m[1]) + 1}."),
    (r"^neck\.extra\.(\d)\.", lambda m: f"backbone.extra.{int(m[1]) + 1}."),
    (r"^head\.class_out\.", "head.classification_head.module_list."),
    (r"^head\.box_out\.", "head.regression_head.module_list."),
)
TORCHVISION_SSDLITE: Rules = (
    # The 13th block is cut in two after its expansion, where the first level is taken.
    (r"^backbone\.features\.(\d|1[0-2])\.", r"backbone.features.0.\1."),
    (r"^backbone\.features\.13\.block\.0\.", "backbone.features.0.13."),
    (r"^backbone\.features\.13\.block\.", "backbone.features.1.0."),
    (r"^backbone\.features\.(1[4-6])\.", lambda m: f"backbone.features.1.{int(m[1]) - 13}."),
    (r"^neck\.extra\.", "backbone.extra."),
    (r"^head\.class_out\.", "head.classification_head.module_list."),
    (r"^head\.box_out\.", "head.regression_head.module_list."),
)


def torchvision_rules(step: int) -> Rules:
    """The rules of a torchvision RetinaNet, which numbers a tower's convolutions where detkit numbers its modules.

    step: modules from one convolution to the next, 2 (convolution, ReLU) or 3 (with a norm).
    """
    return ((r"(?<=_tower\.)\d+(?=\.)", lambda m: "{}.{}".format(*divmod(int(m[0]), step))), *_TORCHVISION)


def foreign_name(name: str, rules: Rules) -> str:
    """The name in another toolkit's file of detkit's tensor `name`."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def modern_torchvision_name(name: str) -> str:
    """Today's name of a tensor that torchvision wrote before 0.13, as in its published v1 weights."""
    name = re.sub(r"\.(inner_blocks|layer_blocks)\.(\d)\.(weight|bias)$", r".\1.\2.0.\3", name)
    return re.sub(r"_head\.conv\.(\d)\.(weight|bias)$", lambda m: f"_head.conv.{int(m[1]) // 2}.0.{m[2]}", name)


def take_by_name(
    source: str, state: Mapping[str, Tensor], expected: Mapping[str, Tensor], rules: Rules
) -> dict[str, Tensor]:
    """Returns the tensors of a foreign `state` under detkit's names.

    expected: detkit's own state dict, for the shapes. Raises ValueError with the missing, unexpected and misshapen
    tensors, in the file's own names.
    """
    names = {name: foreign_name(name, rules) for name in expected}
    missing = [foreign for foreign in names.values() if foreign not in state]
    unexpected = [foreign for foreign in state if foreign not in names.values()]
    misshapen = [
        f"{foreign} {tuple(state[foreign].shape)} instead of {tuple(expected[name].shape)}"
        for name, foreign in names.items()
        if foreign in state and state[foreign].shape != expected[name].shape
    ]
    wrong = [
        f"  {len(tensors)} {what}: {', '.join(tensors[:4])}{', ...' if len(tensors) > 4 else ''}"
        for what, tensors in (("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen))
        if tensors
    ]
    if wrong:
        raise ValueError("\n".join([f"{source} does not fit ({len(names)} tensors expected):", *wrong]))
    return {name: state[foreign] for name, foreign in names.items()}
