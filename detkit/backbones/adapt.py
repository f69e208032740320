"""Adapting networks of other libraries: measured strides, other norms and image channels, padding."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from detkit.backbones.pretrained import fit_channels
from detkit.layers.norms import NORMS, NormName, norm_layer

PROBE = (64, 96)
"""Height and width of the image that strides are measured with; they differ, so that (H, W, C) is recognised."""
ODD = (75, 101)
"""A second size, not divisible by any stride."""
DEFAULT_LEVELS = ("c3", "c4", "c5")
CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class Map(NamedTuple):
    """A feature map of the probe: its channels, its stride, and whether the channels are last."""

    channels: int
    stride: int
    channels_last: bool


def read_map(shape: tuple[int, ...]) -> Map | None:
    """Channels and stride of a feature map by its shape for the probe; None unless the stride is a power of two."""
    if len(shape) != 4:
        return None
    for channels, rows, columns in ((1, 2, 3), (3, 1, 2)):
        stride = PROBE[0] // max(1, shape[rows])
        is_power_of_two = stride > 0 and stride & (stride - 1) == 0
        if is_power_of_two and (shape[rows] * stride, shape[columns] * stride) == PROBE:
            return Map(shape[channels], stride, channels == 3)
    return None


def level_name(stride: int) -> str:
    """c3 for stride 8, and so on."""
    return f"c{stride.bit_length() - 1}"


def choose_levels(model: str, levels: dict[str, Map], out_features: list[str] | None) -> dict[str, Map]:
    """The levels of `out_features`, finest first; by default c3 to c5, as far as the model has them.

    Raises ValueError with the levels of `model` if one is missing.
    """
    wanted = [n for n in DEFAULT_LEVELS if n in levels] if out_features is None else out_features
    missing = [n for n in wanted if n not in levels]
    if missing or not wanted:
        has = ", ".join(f"{n} (stride {m.stride}, {m.channels} channels)" for n, m in levels.items())
        raise ValueError(f"out_features: {missing or list(wanted)}; {model} has {has or 'no feature maps'}")
    return {n: m for n, m in levels.items() if n in wanted}


def replace_norms(model: str, module: nn.Module, norm: NormName | None) -> None:
    """Replaces batch normalisation by the layer that `norm` names, with its epsilon and values; None: does nothing.

    Raises ValueError if the module has no batch normalisation.
    """
    if norm is None:
        return
    batch_norms = [
        (parent, name, child)
        for parent in list(module.modules())
        for name, child in parent.named_children()
        if isinstance(child, nn.BatchNorm2d)
    ]
    if not batch_norms:
        raise ValueError(f"norm: {norm}: {model} has no batch normalisation to replace; remove norm")
    for parent, name, old in batch_norms:
        if norm != "bn":
            setattr(parent, name, _replacement(old, norm))


def _replacement(old: nn.BatchNorm2d, norm: NormName) -> nn.Module:
    new = norm_layer(norm)(old.num_features)
    for key in ("eps", "momentum") if norm != "gn" else ():
        if hasattr(new, key):
            setattr(new, key, getattr(old, key))
    new.load_state_dict({k: v for k, v in old.state_dict().items() if k in new.state_dict()})
    # timm's batch normalisation may contain the activation that follows it.
    following = [part for key in ("drop", "act") if (part := getattr(old, key, None)) is not None]
    return nn.Sequential(new, *following) if following else new


def set_in_channels(module: nn.Module, channels: int, *, average: bool) -> None:
    """Makes the first convolution take `channels` instead of 3, with averaged weights or new random ones."""
    first = next(m for m in module.modules() if isinstance(m, nn.Conv2d))
    if first.in_channels == channels:
        return
    weight = nn.Parameter(fit_channels(first.weight.detach(), channels).clone())
    if not average:
        nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")
    first.in_channels, first.weight = channels, weight


def layers_of(module: nn.Module) -> list[list[str]]:
    """Names of the layers of a module whose children were added in the order in which they are used.

    A layer is a child with parameters, or a child of a plain container; what wraps one module alone is looked into. A
    norm joins the layer in front of it, a parameter of the module itself the layer behind it.
    """
    prefix, children = "", with_parameters(module)
    while len(children) == 1 and type(children[0][1]) not in CONTAINERS and with_parameters(children[0][1]):
        prefix, module = f"{prefix}{children[0][0]}.", children[0][1]
        children = with_parameters(module)
    direct = [name for name, _ in module.named_parameters(recurse=False)]
    layers = [[f"{prefix}{name}" for name in names] for names in flattened(module)]
    if direct:
        layers[:1] = [[*(f"{prefix}{name}" for name in direct), *(layers[0] if layers else [])]]
    return layers


def flattened(module: nn.Module) -> list[list[str]]:
    """Names of the layers among the children of a module, those of plain containers in place of the containers."""
    layers: list[list[str]] = []
    for name, child in with_parameters(module):
        if type(child) in CONTAINERS:
            layers += [[f"{name}.{part}" for part in names] for names in flattened(child)]
        elif isinstance(child, NORMS) and layers:
            layers[-1].append(name)
        else:
            layers.append([name])
    return layers


def with_parameters(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """The children that have parameters."""
    return [(name, child) for name, child in module.named_children() if any(True for _ in child.parameters())]


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Pads with zeros right and below up to a multiple, for networks that would cut off the rest."""
    height, width = images.shape[-2:]
    down, right = -height % multiple, -width % multiple
    return F.pad(images, (0, right, 0, down)) if down or right else images


def finish_level(level: Tensor, shape: Map, size: tuple[int, int]) -> Tensor:
    """A map of a padded image -> (B, C, ceil(H / stride), ceil(W / stride)) for an image of `size` (H, W)."""
    level = level.permute(0, 3, 1, 2) if shape.channels_last else level
    return level[..., : -(-size[0] // shape.stride), : -(-size[1] // shape.stride)]
