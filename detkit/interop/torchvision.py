"""Weights of torchvision: `retinanet_resnet50_fpn`, `_v2`, the two SSDs, and models built like them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from detkit.hub.names import torchvision_file, torchvision_weights
from detkit.hub.prefixes import TORCHVISION
from detkit.interop.classes import keep_columns, torchvision_columns
from detkit.interop.files import Converted, assemble, count_blocks, count_class_columns
from detkit.interop.names import modern_torchvision_name, torchvision_rules
from detkit.interop.torchvision_ssd import SSD_MODELS, convert_ssd, is_ssd
from detkit.interop.weights import read_weights
from detkit.utils.outputs import file_sha256

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum

MODELS = ("retinanet_resnet50_fpn", "retinanet_resnet50_fpn_v2", *SSD_MODELS)
NORM_EPS = 1e-5
"""Epsilon that detkit's normalisation layers add to a variance."""
_CLASS_OUT = "head.classification_head.cls_logits."
_BOX_OUT = "head.regression_head.bbox_reg.weight"
_COUNTERS = ".num_batches_tracked"


def convert_torchvision(
    source: str | Path,
    *,
    classes: dict[int, str] | list[str] | None = None,
    keep_all_columns: bool = False,
    norm_eps: float | None = None,
    key: str | None = None,
) -> Converted:
    """Converts a detector from a state dict file or, by a name like `retinanet_resnet50_fpn`, from torchvision's store.

    classes: names of all columns or of all but the first, or category id (= column) -> name; None takes 91 columns
    for COCO's and keeps the 80 with a class. norm_eps: epsilon of a RetinaNet's frozen norms; None means 0 for
    torchvision's published v1 weights and 1e-5 for all others. A model fine-tuned from the published v1 weights has
    0 too, which its file does not show. key: which weights of a file that holds several, see `find_weights`.
    """
    state, notes, published = _read(str(source), key)
    if is_ssd(state):
        if norm_eps is not None:
            raise ValueError(f"norm_eps (--norm-eps): {source} is an SSD; the option is for a RetinaNet's frozen norms")
        return convert_ssd(str(source), state, classes, keep_all_columns, notes)
    state = {modern_torchvision_name(name): tensor for name, tensor in state.items()}
    columns = count_class_columns(str(source), state, f"{_CLASS_OUT}weight", _BOX_OUT)
    depth = count_blocks(str(source), state, "backbone.body.layer3.{}.conv1.weight")
    has_group_norm = "head.classification_head.conv.0.1.weight" in state
    kept = torchvision_columns(columns, classes, keep_all_columns)
    if kept.classes.names[0] == "class-0":
        notes.append(f"{columns} class columns have no names: set them with --classes")
    if len(kept.keep) != columns:
        notes.append(f"{len(kept.keep)} of {columns} class columns kept: the ones with a class")
        for name in {f"{_CLASS_OUT}weight", f"{_CLASS_OUT}bias"} & set(state):
            state[name] = keep_columns(state[name], columns, kept.keep)
    if norm_eps is None:
        norm_eps = 0.0 if published and not has_group_norm else NORM_EPS
    notes.append(f"assumed an epsilon of {norm_eps:g} in the backbone's norms")
    state, frozen = _fold_norm_eps(state, norm_eps)
    overrides = [f"backbone.norm={'frozen_bn' if frozen else 'bn'}"]
    if depth != 50:
        overrides.append(f"backbone.depth={depth}")
    if "backbone.fpn.extra_blocks.p6.weight" in state:
        width = state["backbone.fpn.extra_blocks.p6.weight"].shape
        overrides.append(f"neck.extra_from={'p5' if width[1] == width[0] else 'c5'}")
    tree = "torchvision_r50_fpn_v2.yaml" if has_group_norm else "torchvision_r50_fpn.yaml"
    rules = torchvision_rules(3 if has_group_norm else 2)
    return assemble(str(source), state, tree, overrides, kept.classes, rules, notes)


def _fold_norm_eps(state: dict[str, Tensor], eps: float) -> tuple[dict[str, Tensor], bool]:
    """Returns the state for detkit's eps, and whether the backbone's norms are frozen: they have no batch counter.

    Another eps goes into the scale: w / sqrt(v + eps) does not change, nor does the running mean's part.
    """
    frozen = eps != NORM_EPS or not any(name.endswith(_COUNTERS) for name in state)
    if frozen:
        state = {name: tensor for name, tensor in state.items() if not name.endswith(_COUNTERS)}
    if eps != NORM_EPS:
        for name in [n for n in state if n.startswith("backbone.body.") and n.endswith(".running_var")]:
            scale = name.replace("running_var", "weight")
            variance = state[name].double()
            if scale in state:
                # A channel of variance 0 has no finite answer with eps 0; it keeps detkit's.
                ratio = torch.where(variance + eps > 0, (variance + NORM_EPS) / (variance + eps), 1.0).sqrt()
                state[scale] = (state[scale].double() * ratio).float()
    return state, frozen


def _read(source: str, key: str | None) -> tuple[dict[str, Tensor], list[str], bool]:
    """Returns the state dict, notes on its source, and whether torchvision publishes it."""
    name, _, version = source.removeprefix(TORCHVISION).partition(":")
    path = Path(source)
    if name in MODELS and not path.is_file():
        weights = torchvision_weights(f"{name}:{version or 'COCO_V1'}")
        return *read_weights(torchvision_file(weights), key), True
    if not path.is_file():
        raise ValueError(f"{source!r} must be a file or one of {', '.join(MODELS)}, optionally with :COCO_V1")
    state, notes = read_weights(path, key)
    # torchvision puts eight digits of the content's SHA-256 into a file's name: model-0123abcd.pth
    end = f"-{file_sha256(path)[:8]}.pth"
    return state, notes, any(w.url.endswith(end) for m in MODELS for w in _published_weights(m))


def _published_weights(model: str) -> list[WeightsEnum]:
    from torchvision.models import get_model_weights

    return list(get_model_weights(model))
