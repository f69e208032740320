"""The beginning of every sample: an image, decoded and resized, from its file or from a cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial

import torch
from PIL.Image import Image
from torch import Tensor

from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.images import Size
from detkit.data.image_cache import ImageCache, open_cache
from detkit.data.transforms.base import Labelled, Transform, apply_transforms, label_image
from detkit.structures import Targets
from detkit.utils.types import Tree

BYTES = 3
"""Of a pixel in the cache."""


class Preparation:
    """Makes samples of a data set, with a decoding no larger than needed and with a cache, as `data.images` says.

    The first transform is done here if it is a resize to a fixed size (`Transform.fixed_size`): it is the same in every
    epoch, so the cache holds what it makes. What follows it draws the same random numbers with and without a cache.

    final: transforms of the last steps, if these have others; they must begin with the same resize, or it is not done
    here.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        transforms: Sequence[Transform],
        *,
        cached: bool,
        final: Sequence[Transform] | None = None,
    ) -> None:
        options = dataset.image_options
        is_cached = cached and options.cache is not None
        chains = [transforms] if final is None else [transforms, final]
        first = transforms[0] if (is_cached or options.scaled_decoding) and transforms else None
        shared = all(chain and chain[0] is first for chain in chains)
        self.dataset = dataset
        self.first = first if first is not None and shared and has_fixed_size(first) else None
        self.chains = [chain[1:] if self.first else chain for chain in chains]
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

    def finish(
        self,
        image: Image,
        size: Size,
        boxes: Tensor,
        labels: Tensor,
        is_ignore: Tensor,
        *,
        draw: Callable[[], int] | None = None,
        is_final: bool = False,
    ) -> tuple[Tensor, Targets]:
        """`apply_transforms` on a prepared image. size, boxes: those before the first resize.

        draw: returns the index of another image, for transforms that mix. is_final: whether it is of the last steps.
        """
        others = None if draw is None else partial(self.other, draw)
        boxes = self.prepared_boxes(boxes, size)
        return apply_transforms(self.chains[-1 if is_final else 0], image, boxes, labels, is_ignore, draw=others)

    def other(self, draw: Callable[[], int]) -> Labelled:
        """Another prepared image with its boxes; its name begins an error."""
        index, records = draw(), self.dataset.records
        try:
            image, size = self.image(index)
            a = records.annotation(index)
            boxes, labels, is_ignore = (torch.tensor(array) for array in (a.boxes, a.labels, a.is_ignore))
            return label_image(image, self.prepared_boxes(boxes, size), labels, is_ignore)
        except (ValueError, OSError) as error:
            name = f"image {int(records.image_ids[index])} ({records.path(index)})"
            raise ValueError(f"mixed with {name}: {error}") from error

    def prepared_boxes(self, boxes: Tensor, size: Size) -> Tensor:
        """Boxes of an image of a (height, width), after the first resize."""
        if (target := self.target(*size)) is None or target == size:
            return boxes
        from torchvision import tv_tensors
        from torchvision.transforms.v2 import functional

        wrapped = tv_tensors.BoundingBoxes(boxes.reshape(-1, 4), format="XYXY", canvas_size=size)
        resized: Tensor = functional.resize(wrapped, list(target)).as_subclass(torch.Tensor)
        return resized


def has_fixed_size(transform: Transform) -> bool:
    """Whether a transform may be one that only resizes, and its class says so itself of what it does."""
    order = type(transform).__mro__
    says = next(i for i, part in enumerate(order) if "fixed_size" in vars(part))
    does = next(i for i, part in enumerate(order) if "__call__" in vars(part))
    return order[says] is not Transform and says <= does and transform.fixed_size(480, 640) is not None
