"""Any classification network of torchvision as a backbone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detkit.backbones.adapt import (
    ODD,
    PROBE,
    Map,
    check_freeze_at,
    choose_levels,
    finish_level,
    level_name,
    pad_to_multiple,
    read_map,
    replace_norms,
    set_in_channels,
    warn_of_frozen_random,
)
from detkit.backbones.base import Backbone
from detkit.backbones.pretrained import read_file
from detkit.layers.norms import NormName
from detkit.registry import BACKBONES, WeightsStr
from detkit.registry.arguments import MOST_CHANNELS, nearest, within
from detkit.structures import FeatureShape
from detkit.utils.urls import local_path


@BACKBONES.register()
class TorchvisionBackbone(Backbone):
    """A classification network of torchvision (`name: convnext_tiny`), without its classifier.

    Its blocks are found by running it once; they must follow each other in a chain, as those of ResNet,
    ResNeXt, VGG, MobileNet, EfficientNet, RegNet, ConvNeXt, Swin, DenseNet and ShuffleNet do. Level c3 is
    what its last block of stride 8 puts out, c4 and c5 the same for 16 and 32. Blocks behind the last
    level that is asked for are left out.

    out_features: which levels; c3, c4 and c5 by default. norm: what takes the place of batch
    normalisation; None leaves the network's own norms. freeze_at: blocks up to stride 2^freeze_at are not
    trained, so 0 trains all and 2 means the stem and the blocks of stride 4. in_channels: image channels.
    weights: `default`, a name of torchvision weights (`IMAGENET1K_V1`), or a file or web address of a
    state dict of the whole network; loaded when training starts from scratch. Networks that cut off rows
    and columns that don't fill a cell get the image padded with zeros to a multiple of their stride.
    """

    def __init__(
        self,
        *,
        name: str,
        out_features: list[str] | None = None,
        norm: NormName | None = None,
        freeze_at: int = 0,
        in_channels: int = 3,
        weights: WeightsStr | None = None,
    ) -> None:
        super().__init__()
        check_freeze_at(freeze_at)
        self.name, self.weights, self.norm, self.freeze_at = name, weights, norm, freeze_at
        within("in_channels", in_channels, 1, MOST_CHANNELS)
        self.in_channels = in_channels
        body = _build(name)
        steps = _chain(name, body)
        found = {level_name(step.stride): step for _, step in steps}  # the last of each stride
        self.maps = choose_levels(name, found, out_features)
        self.out_shapes = {n: FeatureShape(m.channels, m.stride) for n, m in self.maps.items()}
        last = max(m.stride for m in self.maps.values())
        self.blocks = [(level_name(step.stride), path) for path, step in steps if step.stride <= last]
        self.stages = self._assemble(body, average=False)
        self.multiple = 1 if self._keeps_odd_sizes() else last
        if freeze_at and not self._frozen_stages():
            raise ValueError(f"freeze_at: {freeze_at}: {name} has no block of stride {2**freeze_at} or less")
        for stage in self._frozen_stages():
            stage.requires_grad_(False)

    def _assemble(self, body: nn.Module, *, average: bool) -> nn.ModuleDict:
        """The blocks of a network, by the level they work on."""
        set_in_channels(body, self.in_channels, average=average)
        grouped: dict[str, OrderedDict[str, nn.Module]] = {}
        for level, path in self.blocks:
            grouped.setdefault(level, OrderedDict())[path.replace(".", "_")] = body.get_submodule(path)
        stages = nn.ModuleDict({level: nn.Sequential(blocks) for level, blocks in grouped.items()})
        replace_norms(self.name, stages, self.norm)
        return stages

    @torch.no_grad()
    def _keeps_odd_sizes(self) -> bool:
        """Whether every level has ceil(side / stride) cells without padding the image."""
        self.eval()
        self.multiple = 1
        try:
            levels = self(torch.zeros(1, self.in_channels, *ODD))
        except (RuntimeError, AssertionError):  # from inside a network that wants its sizes divisible
            return False
        finally:
            self.train()
        return all(
            levels[n].shape[-2:] == tuple(-(-side // shape.stride) for side in ODD)
            for n, shape in self.out_shapes.items()
        )

    def _frozen_stages(self) -> list[nn.Module]:
        # Blocks of stride 1 are c0, so the level alone would freeze them at 0, too.
        last = self.freeze_at or -1
        return [stage for level, stage in self.stages.items() if int(level[1:]) <= last]

    def train(self, mode: bool = True) -> TorchvisionBackbone:
        """Training mode for all but the frozen blocks, whose batch statistics must stay still."""
        super().train(mode)
        for stage in self._frozen_stages():
            stage.eval()
        return self

    def load_pretrained(self) -> None:
        """Loads `weights`, if any; warns when frozen norms or blocks are left at random values."""
        if self.weights is None:
            warn_of_frozen_random(self.name, self.norm, self.freeze_at)
            return
        body = _pretrained(self.name, self.weights, [path for _, path in self.blocks])
        self.stages.load_state_dict(self._assemble(body, average=True).state_dict())

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, in_channels, H, W) float -> the levels of `out_shapes`."""
        size = (images.shape[-2], images.shape[-1])
        x = pad_to_multiple(images, self.multiple)
        features = {}
        for level, stage in self.stages.items():
            x = stage(x)
            if level in self.maps:
                features[level] = finish_level(x, self.maps[level], size)
        return features


def _build(name: str, weights: Any = None) -> nn.Module:
    """The network of a name; ValueError with the nearest name if torchvision has no such classifier."""
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise ValueError(f"name: {name!r} is no classification network of torchvision{nearest(name, known)}")
    body: nn.Module = models.get_model(name, weights=weights)
    return body


@torch.no_grad()
def _chain(name: str, body: nn.Module) -> list[tuple[str, Map]]:
    """Path and map of each block, in order, as long as each takes what the one before it put out."""
    calls: list[tuple[str, Any, Any]] = []
    hooks = [
        block.register_forward_hook(lambda _, given, out, path=path: calls.append((path, given[0], out)))
        for path, block in _blocks(body, "")
    ]
    x = torch.zeros(1, 3, *PROBE)
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
        found = read_map(tuple(out.shape)) if given is x and isinstance(out, Tensor) else None
        if found is None or (steps and found.stride < steps[-1][1].stride):
            break
        steps.append((path, found))
        x = out
    if not steps:
        raise ValueError(
            f"name: {name} can't serve as a backbone: it is no chain of blocks whose maps are the image's "
            f"{PROBE[0]}x{PROBE[1]} pixels divided by 1, 2, 4, ... without rest"
        )
    return steps


def _blocks(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """Children in order, with plain containers opened."""
    for name, child in module.named_children():
        if type(child) in (nn.Sequential, nn.ModuleList):
            yield from _blocks(child, f"{prefix}{name}.")
        else:
            yield prefix + name, child


def _pretrained(name: str, source: str, paths: list[str]) -> nn.Module:
    """The whole network with weights of a file or of torchvision's name for them."""
    path = local_path(source)
    if not Path(path).is_file():
        return _published(name, source)
    body = _build(name)
    wrong = f"backbone.weights: {source} is no state dict of torchvision's {name}"
    try:
        missing, _ = body.load_state_dict(read_file(path), strict=False)
    except RuntimeError as error:
        raise ValueError(f"{wrong}: {error}") from error
    lost = [key for key in missing if key.startswith(tuple(f"{p}." for p in paths))]
    lost = [key for key in lost if not key.endswith("num_batches_tracked")]
    if lost:
        raise ValueError(f"{wrong}: {len(lost)} tensors missing, {', '.join(lost[:3])}")
    return body


def _published(name: str, source: str) -> nn.Module:
    from torchvision.models import get_model_weights

    known = get_model_weights(name)
    names = [member.name for member in known]
    if source.lower() != "default" and source not in names:
        raise ValueError(
            f"backbone.weights: {source!r} is neither a file nor torchvision weights of {name} "
            f"(default, {', '.join(names)})"
        )
    chosen = known["DEFAULT" if source.lower() == "default" else source]
    try:
        body = _build(name, chosen)
    except OSError as error:
        raise OSError(
            f"backbone.weights: {chosen.url} can't be fetched: {error}; fetch it elsewhere and give the file"
        ) from error
    if getattr(body, "transform_input", False):
        raise ValueError(
            f"backbone.weights: {source} of {name} wants pixels scaled in another way than pixels.mean/std"
        )
    return body
