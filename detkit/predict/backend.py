"""What a predictor runs: a network behind a small interface, whichever library computes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from detkit.data.datasets.images import ImageOptions
from detkit.data.transforms.base import Transform
from detkit.nms.base import NonMaxSuppression
from detkit.structures import ClassMap, Detections


@dataclass(frozen=True, kw_only=True)
class InputRules:
    """How an image becomes the input of a network.

    transforms: run on the RGB image. images: how files are read. size_divisor: of which the sides of a batch are
    multiples. size: (height, width) that every batch must have, None for any. batch: number of images that every batch
    must have, None for any; the predictor fills a smaller one up with black images.
    """

    transforms: Sequence[Transform] = ()
    images: ImageOptions = field(default_factory=ImageOptions)
    size_divisor: int = 1
    size: tuple[int, int] | None = None
    batch: int | None = None


class Backend(Protocol):
    """A network with its post-processing, and what a predictor must know of it.

    classes: names and category ids of the labels. rules: how images become inputs. nms: the suppression that merges
    the detections of several views of an image. max_detections: detections kept of an image.
    """

    @property
    def classes(self) -> ClassMap: ...

    @property
    def rules(self) -> InputRules: ...

    @property
    def nms(self) -> NonMaxSuppression: ...

    @property
    def max_detections(self) -> int: ...

    def network(self, images: Tensor, sizes: Tensor) -> list[Detections]:
        """uint8 images (B, 3, H, W) and their (B, 2) sizes inside the padding, on the CPU -> detections of each.

        Boxes are in pixels of the input, best first, on any device.
        """
        ...


Opener = Callable[[str, str], Backend]
"""Opens a file on a device, both by name."""
OPENERS: dict[str, str] = {}
"""Suffix of an exported file -> `module:function`, an `Opener`, which is imported when such a file is opened."""


def open_exported(path: str, device: str, openers: Mapping[str, str] = OPENERS) -> Backend | None:
    """The backend of an exported file, by its suffix; None for anything else."""
    import pkgutil

    location = next((openers[suffix] for suffix in openers if path.lower().endswith(suffix)), None)
    if location is None:
        return None
    opener: Opener = pkgutil.resolve_name(location)
    return opener(path, device)
