"""Any network of timm that offers `features_only` as a backbone; needs the extra `detkit[timm]`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from detkit.backbones import adapt
from detkit.backbones.adapt import ODD, PROBE, Map
from detkit.backbones.base import Backbone, FreezeAt, OutFeatures
from detkit.backbones.pretrained import warn_of_frozen_random
from detkit.hub import local_path
from detkit.layers.norms import NormName
from detkit.registry import BACKBONES, Channels, WeightsStr
from detkit.registry.arguments import nearest
from detkit.structures import FeatureShape
from detkit.utils.pickle_arrays import NOT_READ


@BACKBONES.register()
class TimmBackbone(Backbone):
    """A network of timm through `timm.create_model(features_only=True)`.

    Level c3 is timm's last feature of stride 8, c4 and c5 the same for 16 and 32; a plain vision
    transformer has c4 alone.

    Args:
        name: timm's name of the model, such as resnet18.a1_in1k.
        out_features: levels; null: c3, c4 and c5.
        norm: layer that replaces batch normalisation; null keeps the network's norms.
        freeze_at: blocks up to stride 2^freeze_at are not trained; 0 trains all.
        in_channels: image channels.
        weights: `default` for timm's weights of the model, or a file or web address; loaded when training starts
            from scratch.
        options: further arguments of `create_model`, such as {strict_img_size: false} for a Swin that takes images of
            any size.
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
        options: dict[str, bool | int | float | str] = {},  # noqa: B006  (only read)
    ) -> None:
        super().__init__()
        self.name, self.weights, self.norm, self.freeze_at = name, weights, norm, freeze_at
        self.in_channels, self.options = in_channels, dict(options)
        with torch.device("meta"):  # shapes only, no weights
            sketch = self._create()
            levels = self._read_levels(sketch)
        last_of_stride = {adapt.level_name(m.stride): m for _, m in levels}
        self.maps = adapt.choose_levels(name, last_of_stride, out_features)
        self.out_shapes = {n: FeatureShape(m.channels, m.stride) for n, m in self.maps.items()}
        index = {adapt.level_name(m.stride): i for i, m in levels}
        self.indices = [index[n] for n in self.maps]
        strides = [m.stride for _, m in levels]
        self.multiple = 1 if _keeps_odd_sizes(sketch, in_channels, strides) else max(strides)
        self.body = self._create(out_indices=self.indices)
        adapt.replace_norms(name, self.body, norm)
        low = [position for position, stride in enumerate(strides) if stride <= 2**freeze_at]
        if freeze_at:
            self._freeze_what_feeds(sketch, low)

    def _create(self, **more: Any) -> Any:
        try:
            import timm
        except ImportError as error:
            raise ImportError("TimmBackbone needs timm; install it with: pip install 'detkit[timm]'") from error
        base, more = self.name.partition(".")[0], {**self.options, **more}
        if not timm.is_model(base):
            raise ValueError(f"name: {self.name!r} is not a model of timm{nearest(base, timm.list_models())}")
        try:
            return timm.create_model(self.name, features_only=True, in_chans=self.in_channels, **more)
        except (RuntimeError, TypeError, AssertionError) as error:
            raise ValueError(f"name: timm can't make features of {self.name}: {error}") from error

    def _read_levels(self, sketch: Any) -> list[tuple[int, Map]]:
        """(timm's index, map) of all features that it offers."""
        try:
            features = sketch.eval()(torch.zeros(1, self.in_channels, *PROBE))
        except (RuntimeError, AssertionError, ValueError) as error:
            raise ValueError(
                f"name: timm's {self.name} does not take an image of {PROBE[0]}x{PROBE[1]} pixels ({error}); "
                f"an argument under `options` may help, such as strict_img_size or dynamic_img_size"
            ) from error
        maps = [adapt.read_map(tuple(f.shape)) for f in features]
        if None in maps:
            raise ValueError(
                f"name: timm's {self.name} has feature maps whose stride is not a power of two: "
                f"{[tuple(f.shape) for f in features]}"
            )
        return [(i, m) for i, m in zip(sketch.feature_info.out_indices, maps, strict=True) if m is not None]

    def _freeze_what_feeds(self, sketch: nn.Module, positions: list[int]) -> None:
        """Freezes the parameters that the features at `positions` depend on.

        The layout of timm's networks differs, so a gradient through the sketch shows which parameters a feature
        depends on.
        """
        if not positions:
            raise ValueError(f"freeze_at: {self.freeze_at}: {self.name} has no level of stride {2**self.freeze_at}")
        with torch.device("meta"):
            adapt.replace_norms(self.name, sketch, self.norm)
            features = sketch.eval()(torch.zeros(1, self.in_channels, *PROBE))
        names, parameters = zip(*sketch.named_parameters(), strict=True)
        reached = torch.autograd.grad(sum(features[i].sum() for i in positions), parameters, allow_unused=True)
        early = {name for name, gradient in zip(names, reached, strict=True) if gradient is not None}
        for name, parameter in self.body.named_parameters():
            parameter.requires_grad_(name not in early)
        with_parameters = [m for m in self.body.modules() if list(m.parameters())]
        self.freeze([m for m in with_parameters if not any(p.requires_grad for p in m.parameters())])

    def layer_names(self) -> list[list[str]]:
        return adapt.layers_of(self)

    def load_pretrained(self) -> None:
        if self.weights is None:
            warn_of_frozen_random(self.name, self.norm, self.freeze_at)
            return
        more: dict[str, object] = {}
        if self.weights.lower() != "default":
            path = local_path(self.weights)
            if not path.is_file():
                raise ValueError(f"backbone.weights: {self.weights!r} is neither a file nor `default`")
            more["pretrained_cfg_overlay"] = {"file": str(path)}
        try:
            body = self._create(out_indices=self.indices, pretrained=True, **more)
        except OSError as error:
            raise OSError(f"backbone.weights: timm can't download the weights of {self.name}: {error}") from error
        except NOT_READ as error:
            first = str(error).strip().partition("\n")[0]
            raise ValueError(
                f"backbone.weights: {self.weights} does not contain weights of {self.name}: {first}"
            ) from error
        adapt.replace_norms(self.name, body, self.norm)
        self.body.load_state_dict(body.state_dict())

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        size = (images.shape[-2], images.shape[-1])
        levels = self.body(adapt.pad_to_multiple(images, self.multiple))
        return {n: adapt.finish_level(x, m, size) for (n, m), x in zip(self.maps.items(), levels, strict=True)}


def _keeps_odd_sizes(sketch: nn.Module, channels: int, strides: list[int]) -> bool:
    """Whether every feature has ceil(side / stride) cells without padding the image."""
    try:
        features = sketch(torch.zeros(1, channels, *ODD, device="meta"))
    except (RuntimeError, AssertionError, ValueError):  # from inside a network whose sizes must be divisible
        return False
    expected = [tuple(-(-side // stride) for side in ODD) for stride in strides]
    return all(tuple(f.shape[-2:]) == e or tuple(f.shape[1:3]) == e for f, e in zip(features, expected, strict=True))
