"""Published weights of a backbone, by file or by torchvision's name for them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from detkit.files import local_path


def read_weights(source: str, model: str) -> dict[str, Tensor]:
    """A file, a web address or the name of torchvision weights of `model` -> state dict.

    Raises ValueError, naming the weights there are, if `source` is none of these.
    """
    path = local_path(source)
    if Path(path).is_file():
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        return state
    from torchvision.models import get_model_weights

    known = get_model_weights(model)
    names = [member.name for member in known]
    if source not in names:
        raise ValueError(
            f"backbone.weights: {source!r} is neither a file nor torchvision weights of {model} ({', '.join(names)})"
        )
    fetched: dict[str, Tensor] = known[source].get_state_dict(progress=True, check_hash=True)
    return fetched


def fit_channels(weight: Tensor, channels: int) -> Tensor:
    """Stem weights (O, 3, k, k) for another number of image channels, keeping the response's scale."""
    if weight.shape[1] == channels:
        return weight
    return weight.mean(dim=1, keepdim=True).repeat(1, channels, 1, 1) * (weight.shape[1] / channels)
