"""Any classification network of torchvision as a backbone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from detkit.backbones import adapt
from detkit.backbones.adapt import ODD, PROBE, Map
from detkit.backbones.base import Backbone, FreezeAt, OutFeatures
from detkit.backbones.pretrained import COUNTERS, published, read_file, warn_of_frozen_random
from detkit.hub import local_path
from detkit.hub.names import torchvision_file
from detkit.layers.norms import NormName
from detkit.registry import BACKBONES, Channels, WeightsStr
from detkit.registry.arguments import nearest
from detkit.structures import FeatureShape


@BACKBONES.register()
class TorchvisionBackbone(Backbone):
    """A classification network of torchvision, without its classifier.

    Its blocks are found by running it once; they must follow each other in a chain, as those of ResNet,
    ResNeXt, VGG, MobileNet, EfficientNet, RegNet, ConvNeXt, Swin, DenseNet and ShuffleNet do. Level c3 is
    the output of its last block of stride 8, c4 and c5 the same for 16 and 32. Blocks after the last level are
    left out. Networks that cut off rows and columns that don't fill a cell get the image padded with zeros to a
    multiple of their stride.

    Args:
        name: torchvision's name of the network, such as convnext_tiny.
        out_features: levels; null: c3, c4 and c5.
        norm: layer that replaces batch normalisation; null keeps the network's norms.
        freeze_at: blocks up to stride 2^freeze_at are not trained: 0 trains all, 2 freezes the stem and the blocks of
            stride 4.
        in_channels: image channels; weights for three are averaged to any other number.
        weights: `default`, a name of torchvision weights (`IMAGENET1K_V1`), or a file or web address of a state dict
            of the full network; loaded when training starts from scratch.
    """

    def __init__(
        self,
        *,
        name: str,
        out_features: OutFeatures = None,
        norm: NormName | None = None,
        freeze_at: FreezeAt = 0,
        in_channels: Channels = 3,
        weights: WeightsStr | None = None,
    ) -> None:
        super().__init__()
        self.name, self.weights, self.norm, self.freeze_at = name, weights, norm, freeze_at
        self.in_channels = in_channels
        body = _build(name)
        steps = _chain(name, body)
        last_of_stride = {adapt.level_name(step.stride): step for _, step in steps}
        self.maps = adapt.choose_levels(name, last_of_stride, out_features)
        self.out_shapes = {n: FeatureShape(m.channels, m.stride) for n, m in self.maps.items()}
        last = max(m.stride for m in self.maps.values())
        self.blocks = [(adapt.level_name(step.stride), path) for path, step in steps if step.stride <= last]
        self.stages = self._assemble(body, average=False)
        self.multiple = 1 if self._keeps_odd_sizes() else last
        # Blocks of stride 1 are c0, which freeze_at 0 must not freeze.
        frozen = [stage for level, stage in self.stages.items() if int(level[1:]) <= freeze_at] if freeze_at else []
        if freeze_at and not frozen:
            raise ValueError(f"freeze_at: {freeze_at}: {name} has no block of stride {2**freeze_at} or less")
        self.freeze(frozen)

    def _assemble(self, body: nn.Module, *, average: bool) -> nn.ModuleDict:
        """The blocks of a network, grouped by level."""
        adapt.set_in_channels(body, self.in_channels, average=average)
        grouped: dict[str, OrderedDict[str, nn.Module]] = {}
        for level, path in self.blocks:
            grouped.setdefault(level, OrderedDict())[path.replace(".", "_")] = body.get_submodule(path)
        stages = nn.ModuleDict({level: nn.Sequential(blocks) for level, blocks in grouped.items()})
        adapt.replace_norms(self.name, stages, self.norm)
        return stages

    @torch.no_grad()
    def _keeps_odd_sizes(self) -> bool:
        """Whether every level has ceil(side / stride) cells without padding the image."""
        self.eval()
        self.multiple = 1
        try:
            levels = self(torch.zeros(1, self.in_channels, *ODD))
        except (RuntimeError, AssertionError):  # from inside a network whose sizes must be divisible
            return False
        finally:
            self.train()
        return all(
            levels[n].shape[-2:] == tuple(-(-side // shape.stride) for side in ODD)
            for n, shape in self.out_shapes.items()
        )

    def layer_names(self) -> list[list[str]]:
        return adapt.layers_of(self)

    def load_pretrained(self) -> None:
        if self.weights is None:
            warn_of_frozen_random(self.name, self.norm, self.freeze_at)
            return
        body = _pretrained(self.name, self.weights, [path for _, path in self.blocks])
        self.stages.load_state_dict(self._assemble(body, average=True).state_dict())

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        size = (images.shape[-2], images.shape[-1])
        x = adapt.pad_to_multiple(images, self.multiple)
        features = {}
        for level, stage in self.stages.items():
            x = stage(x)
            if level in self.maps:
                features[level] = adapt.finish_level(x, self.maps[level], size)
        return features


def _build(name: str, weights: object = None) -> nn.Module:
    """Builds a network by name; ValueError with the nearest name if torchvision has no such classifier."""
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise ValueError(f"name: {name!r} is not a classification network of torchvision{nearest(name, known)}")
    body: nn.Module = models.get_model(name, weights=weights)
    return body


@torch.no_grad()
def _chain(name: str, body: nn.Module) -> list[tuple[str, Map]]:
    """Path and map of each block, in order, as long as each takes the output of the one before."""
    calls: list[tuple[str, object, object]] = []
    hooks = [
        block.register_forward_hook(lambda _, given, out, path=path: calls.append((path, given[0], out)))
        for path, block in _blocks(body, "")
    ]
    x: object = torch.zeros(1, 3, *PROBE)
    try:
        body.eval()(x)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ValueError(
            f"name: {name} can't serve as a backbone: it does not take an image of {PROBE[0]}x{PROBE[1]} pixels "
            f"({type(error).__name__}: {error})"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
        body.train()
    steps: list[tuple[str, Map]] = []
    for path, given, out in calls:
        shape = adapt.read_map(tuple(out.shape)) if given is x and isinstance(out, Tensor) else None
        if shape is None or (steps and shape.stride < steps[-1][1].stride):
            break
        steps.append((path, shape))
        x = out
    if not steps:
        raise ValueError(
            f"name: {name} can't serve as a backbone: it is not a chain of blocks whose maps are the image's "
            f"{PROBE[0]}x{PROBE[1]} pixels divided by 1, 2, 4, ... without remainder"
        )
    return steps


def _blocks(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """Children in order; those of plain containers instead of the containers."""
    for name, child in module.named_children():
        if type(child) in (nn.Sequential, nn.ModuleList):
            yield from _blocks(child, f"{prefix}{name}.")
        else:
            yield prefix + name, child


def _pretrained(name: str, source: str, paths: list[str]) -> nn.Module:
    """The full network with weights from a file or by torchvision's name for them."""
    path = local_path(source)
    if not path.is_file():
        return _published(name, source)
    body = _build(name)
    wrong = f"backbone.weights: {source} is not a state dict of torchvision's {name}"
    try:
        missing, _ = body.load_state_dict(read_file(path), strict=False)
    except RuntimeError as error:
        raise ValueError(f"{wrong}: {error}") from error
    missing = [k for k in missing if k.startswith(tuple(f"{p}." for p in paths)) and not k.endswith(COUNTERS)]
    if missing:
        raise ValueError(f"{wrong}: {len(missing)} tensors missing, {', '.join(missing[:3])}")
    return body


def _published(name: str, source: str) -> nn.Module:
    chosen = published(name, source)
    try:
        with _torch_hub_at(torchvision_file(chosen).parents[1]):
            body = _build(name, chosen)
    except OSError as error:
        raise OSError(f"backbone.weights: {error}") from error
    if getattr(body, "transform_input", False):
        raise ValueError(
            f"backbone.weights: {source} of {name} needs another scaling of pixels than by pixels.mean and pixels.std"
        )
    return body


@contextmanager
def _torch_hub_at(folder: Path) -> Iterator[None]:
    """While the context is active, torchvision takes weights from `folder`/checkpoints."""
    before = torch.hub.get_dir()
    torch.hub.set_dir(folder)
    try:
        yield
    finally:
        torch.hub.set_dir(before)
