"""Published weights of a backbone, by file or by torchvision's name for them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from detkit.hub import local_path
from detkit.hub.names import torchvision_file
from detkit.layers.norms import NormName
from detkit.utils.pickles import load_torch
from detkit.utils.tensor_files import ENDING, read_safetensors

COUNTERS = ".num_batches_tracked"
"""Ending of batch norm's counters, which may be missing."""
WAY_OUT = "Give backbone.weights, or set backbone.norm=gn (or bn) and backbone.freeze_at=0"
log = logging.getLogger("detkit")


def read_weights(source: str, model: str) -> dict[str, Tensor]:
    """A file, an address (see `detkit.hub.local_path`) or the name of torchvision weights of `model` -> state dict.

    Raises ValueError, naming the weights there are, if `source` is none of these.
    """
    path = local_path(source)
    return read_file(path if path.is_file() else torchvision_file(published(model, source)))


def published(model: str, name: str) -> Any:
    """torchvision's `WeightsEnum` member of that name, or `default`; ValueError that lists the names there are."""
    from torchvision.models import get_model_weights

    known = get_model_weights(model)
    name = "DEFAULT" if name.lower() == "default" else name
    if name not in known.__members__:
        names = ", ".join(["default", *(member.name for member in known)])
        raise ValueError(f"backbone.weights: {name!r} is neither a file nor torchvision weights of {model} ({names})")
    return known[name]


def read_file(path: Path) -> dict[str, Tensor]:
    """Reads a state dict of `torch.save` or safetensors; ValueError that names the file for anything else."""
    try:
        content = read_safetensors(path)[0] if path.suffix == ENDING else load_torch(path)[0]
    except ValueError as error:
        raise ValueError(f"backbone.weights: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        way_out = "save the state_dict() of the backbone, or start from a detkit checkpoint with --init-from"
        raise ValueError(f"backbone.weights: {path} is not a state dict of tensors: {way_out}")
    return content


def load_all(module: nn.Module, state: dict[str, Tensor], wrong: str, *, stem: str, required: str = "") -> None:
    """Loads a state dict that has every tensor of the module whose key starts with `required`, and no other tensors.

    The weights `stem` are averaged to the module's number of image channels.
    Raises ValueError that starts with `wrong` and names the tensors that don't fit.
    """
    expected = module.state_dict()
    if stem in state:
        state[stem] = fit_channels(state[stem], expected[stem].shape[1])
    missing = [k for k in expected if k.startswith(required) and k not in state and not k.endswith(COUNTERS)]
    unknown = [key for key, value in state.items() if value.shape != getattr(expected.get(key), "shape", None)]
    unknown = [key for key in unknown if not key.endswith(COUNTERS)]
    if missing or unknown:
        raise ValueError(
            f"{wrong}: {len(missing)} tensors missing {missing[:3]}, {len(unknown)} unknown or of another shape "
            f"{unknown[:3]}"
        )
    module.load_state_dict({key: value for key, value in state.items() if key in expected}, strict=False)


def fit_channels(weight: Tensor, channels: int) -> Tensor:
    """Averages stem weights (O, 3, k, k) to another number of image channels, at the same scale of response."""
    if weight.shape[1] == channels:
        return weight
    return weight.mean(dim=1, keepdim=True).repeat(1, channels, 1, 1) * (weight.shape[1] / channels)


def warn_of_frozen_random(model: str, norm: NormName | None, freeze_at: int = 0, way_out: str = WAY_OUT) -> None:
    """Warns if frozen norms or stages are left at random values."""
    if norm == "frozen_bn" or freeze_at:
        what = "frozen_bn" if norm == "frozen_bn" else f"freeze_at={freeze_at}"
        log.warning("%s: %s with random weights, which will never be trained. %s.", model, what, way_out)
