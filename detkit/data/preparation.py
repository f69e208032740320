"""The beginning of every sample: an image, decoded and resized, from its file or from a cache."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from PIL.Image import Image
from torch import Tensor

from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.images import Size
from detkit.data.image_cache import ImageCache, open_cache
from detkit.data.transforms.base import Transform, apply_transforms
from detkit.structures import Targets
from detkit.utils.types import Tree

BYTES = 3
"""Of a pixel in the cache."""


class Preparation:
    """Makes samples of a data set, with a decoding no larger than needed and with a cache, as `data.images` says.

    The first transform is done here if it is a resize to a fixed size (`Transform.fixed_size`): it is the same in every
    epoch, so the cache holds what it makes. What follows it draws the same random numbers with and without a cache.
    """

    def __init__(self, dataset: DetectionDataset, transforms: Sequence[Transform], *, cached: bool) -> None:
        options = dataset.image_options
        is_cached = cached and options.cache is not None
        first = transforms[0] if (is_cached or options.scaled_decoding) and transforms else None
        self.dataset = dataset
        self.first = first if first is not None and has_fixed_size(first) else None
        self.rest = transforms[1:] if self.first else transforms
        self.cache: ImageCache | None = None
        if is_cached:
            self.cache = open_cache(options, self.key(), dataset.name, self.expected_bytes())

    def target(self, height: int, width: int) -> Size | None:
        """(height, width) of a prepared image of a (height, width); None for its own."""
        return self.first.fixed_size(height, width) if self.first else None

    def key(self) -> Tree:
        """What the pixels of the cache depend on, besides each image."""
        records, options = self.dataset.records, self.dataset.image_options
        return {
            "images": hashlib.sha256(records.path_bytes.tobytes() + records.path_ends.tobytes()).hexdigest(),
            # One size, as an example: the cache has that of every image.
            "resize": [type(self.first).__qualname__, self.target(480, 640)] if self.first else None,
            "repair": options.bad_images == "repair",
            "scaled": options.scaled_decoding,
        }

    def expected_bytes(self) -> int:
        """Bytes of all prepared images whose size is known."""
        known = [(h, w) for h, w in self.dataset.records.sizes.tolist() if h > 0 and w > 0]
        return sum(BYTES * h * w for h, w in (self.target(*size) or size for size in known))

    def image(self, index: int) -> tuple[Image, Size]:
        """The image after the first resize, and its (height, width) before; checks that its annotation has that."""
        if self.cache is None:
            return self.read(index)
        holder, i = self.dataset.origin(index)
        version = holder.image_version(i)
        if version is None:
            return self.read(index)
        if (cached := self.cached_image(self.cache, index, version)) is not None:
            return cached
        image, size = self.read(index)
        self.cache.put(index, version, image, size)
        return image, size

    def cached_image(self, cache: ImageCache, index: int, version: str) -> tuple[Image, Size] | None:
        """What the cache has of an image, if it has the size that it must have now."""
        found = cache.get(index, version)
        if found is None:
            return None
        image, size = found
        self.dataset.check_size(index, size)
        return found if (image.height, image.width) == (self.target(*size) or size) else None

    def read(self, index: int) -> tuple[Image, Size]:
        """`image`, from its file."""
        image, size = self.dataset.load_scaled(index, self.target)
        self.dataset.check_size(index, size)
        if (target := self.target(*size)) is not None and target != (image.height, image.width):
            from torchvision.transforms.v2 import functional

            image = functional.resize(image, list(target))
        return image, size

    def finish(self, image: Image, size: Size, boxes: Tensor, labels: Tensor, is_ignore: Tensor) -> tuple[
        Tensor, Targets
    ]:  # fmt: skip
        """`apply_transforms` on a prepared image. size, boxes: those before the first resize."""
        if (target := self.target(*size)) is not None and target != size:
            from torchvision import tv_tensors
            from torchvision.transforms.v2 import functional

            wrapped = tv_tensors.BoundingBoxes(boxes.reshape(-1, 4), format="XYXY", canvas_size=size)
            boxes = functional.resize(wrapped, list(target)).as_subclass(torch.Tensor)
        return apply_transforms(self.rest, image, boxes, labels, is_ignore)


def has_fixed_size(transform: Transform) -> bool:
    """Whether a transform may be one that only resizes, and its class says so itself of what it does."""
    order = type(transform).__mro__
    says = next(i for i, part in enumerate(order) if "fixed_size" in vars(part))
    does = next(i for i, part in enumerate(order) if "__call__" in vars(part))
    return order[says] is not Transform and says <= does and transform.fixed_size(480, 640) is not None
