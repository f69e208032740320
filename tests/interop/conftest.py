"""torchvision RetinaNets with random weights that find something, for comparison."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn


@pytest.fixture(scope="session")
def torchvision_models() -> SimpleNamespace:
    return SimpleNamespace(
        random_model=random_model,
        randomise=randomise,
        without_resize=without_resize,
        published_layout=published_layout,
    )


def random_model(name: str, num_classes: int, **options: Any) -> Any:
    """In eval mode; images are normalised and padded but not resized."""
    from torchvision.models import get_model

    torch.manual_seed(0)
    model = get_model(name, weights=None, weights_backbone=None, num_classes=num_classes, **options)
    randomise(model)
    return without_resize(model)


def without_resize(model: Any) -> Any:
    """The model in eval mode, taking images in the size they have."""
    model.transform.resize = lambda image, target=None: (image, target)
    return model.eval()


@torch.no_grad()
def randomise(model: Any) -> None:
    """Weights for which every norm matters and some hundred scores pass the threshold."""
    torch.manual_seed(1)
    for name, module in model.named_modules():
        if hasattr(module, "running_var"):
            damp = 0.2 if name.endswith(("bn3", "downsample.1")) else 1.0
            module.weight.copy_(damp * torch.empty_like(module.weight).uniform_(0.7, 1.3))
            module.bias.normal_(0, 0.1)
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
        elif isinstance(module, nn.GroupNorm):
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0, 0.1)
        elif isinstance(module, nn.Conv2d) and not name.startswith("backbone.body"):
            fan_in = module.weight[0].numel()
            gain = 2.0 if ".conv." in name else 1.0
            module.weight.normal_(0, (gain / fan_in) ** 0.5)
            if module.bias is not None:
                module.bias.normal_(0, 0.1)
    head = model.head
    head.classification_head.cls_logits.bias.normal_(-4.0, 0.5)
    head.regression_head.bbox_reg.weight.mul_(0.3)


def published_layout(model: Any, *, old_names: bool) -> dict[str, Tensor]:
    """The state dict as torchvision publishes it for v1: no batch counters, and maybe names before 0.13."""
    state = copy.deepcopy(dict(model.state_dict()))
    renamed = {}
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        if old_names:
            parts = name.split(".")
            if "fpn" in parts and parts[-2] == "0" and "blocks" in parts[-4]:
                name = ".".join([*parts[:-2], parts[-1]])
            elif "conv" in parts and parts[0] == "head":
                name = ".".join([*parts[:-3], str(2 * int(parts[-3])), parts[-1]])
        renamed[name] = tensor
    return renamed
