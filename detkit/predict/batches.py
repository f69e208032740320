"""Images in batches by shape: views of one padded size share a batch, whatever order they come in."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from PIL.Image import Image
from torch import Tensor

from detkit.data.loader import collate_images
from detkit.data.transforms.base import transform_image
from detkit.predict.backend import Backend
from detkit.predict.detections import ImageInput
from detkit.predict.merge import merge_views
from detkit.predict.rescale import to_original
from detkit.predict.views import View, Views
from detkit.structures import Detections

LOOK_AHEAD = 4
"""Batches of images that wait for others of their shape."""
MOST_PIXELS = 64_000_000
"""Pixels of all images that wait; beyond it, batches are run that are not full."""


@dataclass(eq=False)
class Job:
    """An image on its way: as it was given, as pixels, its views and what is found in each so far."""

    source: ImageInput
    image: Image
    views: list[View]
    found: list[Detections | None] = field(init=False)
    missing: int = field(init=False)

    def __post_init__(self) -> None:
        self.found, self.missing = [None] * len(self.views), len(self.views)

    @property
    def pixels(self) -> int:
        return self.image.width * self.image.height

    def put(self, number: int, detections: Detections) -> None:
        """Takes the detections of a view, in pixels of the view."""
        self.found[number] = self.views[number].restore(detections)
        self.missing -= 1


Entry = tuple[Job, int, Tensor]
"""A view of an image by its number, as the network's input (3, h, w)."""


class Batcher:
    """Runs a network on views as soon as a batch of one padded size is full. One thread uses one batcher.

    size: images in a batch.
    """

    def __init__(self, backend: Backend, options: Views, size: int) -> None:
        self.backend, self.options, self.size = backend, options, backend.rules.batch or size
        self.groups: dict[tuple[int, int], list[Entry]] = {}

    def stream(self, images: Iterable[tuple[ImageInput, Image]]) -> Iterator[tuple[ImageInput, Image, Detections]]:
        """Yields each image with its detections, in the order in which they come."""
        queue: deque[Job] = deque()
        waiting = 0
        for source, image in images:
            job = Job(source, image, self.options.of(*image.size))
            self.add(job)
            queue.append(job)
            waiting += job.pixels
            while queue and (not queue[0].missing or len(queue) >= LOOK_AHEAD * self.size or waiting > MOST_PIXELS):
                waiting -= queue[0].pixels
                yield self.finish(queue.popleft())
        while queue:
            yield self.finish(queue.popleft())

    def add(self, job: Job) -> None:
        """Prepares the views of an image and runs the batches that become full."""
        rules = self.backend.rules
        for number, view in enumerate(job.views):
            tensor = transform_image(view.transforms(rules.transforms), view.cut(job.image))
            shape = rules.size or padded(tensor, rules.size_divisor)
            group = self.groups.setdefault(shape, [])
            group.append((job, number, tensor))
            if len(group) == self.size:
                self.run(shape)

    def finish(self, job: Job) -> tuple[ImageInput, Image, Detections]:
        """Runs what an image waits for, and merges its views."""
        while job.missing:
            self.run(next(shape for shape, group in self.groups.items() if any(entry[0] is job for entry in group)))
        found = [detections for detections in job.found if detections is not None]
        return job.source, job.image, merge_views(found, job.views, self.options, self.backend)

    @torch.inference_mode()
    def run(self, shape: tuple[int, int]) -> None:
        """Runs the network on the views of a padded size."""
        entries, rules = self.groups.pop(shape), self.backend.rules
        tensors = [tensor for _, _, tensor in entries]
        if rules.batch:
            tensors += [torch.zeros_like(tensors[0])] * (rules.batch - len(tensors))
        batch, sizes = collate_images(tensors, rules.size_divisor, rules.size)
        if tuple(batch.shape[-2:]) != shape:
            raise ValueError(
                f"an input of {batch.shape[-2]}x{batch.shape[-1]} pixels (height x width) for a network of "
                f"{shape[0]}x{shape[1]}: give no tiles or scales, or a network of any size"
            )
        detections, sizes = self.backend.network(batch, sizes)[: len(entries)], sizes[: len(entries)]
        originals = torch.tensor([job.views[number].size for job, number, _ in entries])
        for (job, number, _), found in zip(entries, to_original(detections, sizes, originals), strict=True):
            job.put(number, found)


def padded(image: Tensor, divisor: int) -> tuple[int, int]:
    """(height, width) of an image (3, h, w) once its sides are multiples of `divisor`."""
    height, width = (-(-int(side) // divisor) * divisor for side in image.shape[-2:])
    return height, width
