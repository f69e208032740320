"""Batches whose content is a function of (seed, position), whatever the number of workers and processes."""

from __future__ import annotations

import traceback
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import active_children
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from detkit.data.datasets.base import DetectionDataset
from detkit.data.seeding import at_position, seeded
from detkit.data.transforms.base import Transform, apply_transforms
from detkit.data.worker import (
    WorkerTable,
    check_temporary_folder,
    check_workers,
    explain_lost_connection,
    explain_worker_death,
    set_up_worker,
)
from detkit.registry.arguments import LARGEST_SIDE, within
from detkit.structures import Batch, Targets


@dataclass(frozen=True, kw_only=True)
class LoaderOptions:
    """batch_size: images of one optimizer step, over all processes and micro-batches. num_workers: loader
    processes for each training process, 0 loads in the training process itself. size_divisor: batches are
    padded with zeros to a multiple of it. pad_to: (height, width) that every batch has at least, so that
    all have one shape (for torch.compile); images must not be larger."""

    batch_size: int = 8
    num_workers: int = 1
    size_divisor: int = 32
    pad_to: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for name, least, most in (("batch_size", 1, 10**6), ("num_workers", 0, 10**4), ("size_divisor", 1, 4096)):
            if not least <= getattr(self, name) <= most:
                below = getattr(self, name) < least
                raise ValueError(
                    f"{name}: {getattr(self, name)} is {f'less than {least}' if below else f'more than {most}'}"
                )
        if self.pad_to is not None and min(self.pad_to) < 1:
            raise ValueError(f"pad_to: {self.pad_to} has a side of less than 1 pixel")
        within("pad_to", self.pad_to or [], 1, LARGEST_SIDE)


@dataclass
class Sample:
    """One image on its way into a batch."""

    image: Tensor
    targets: Targets
    original_size: tuple[int, int]
    image_id: int
    path: str


class SampleError(ValueError):
    """An image or its annotation could not be made into a sample."""


@dataclass
class FailedSample:
    """What a worker sends instead of a sample that it could not make."""

    message: str
    traceback: str | None = None

    def error(self) -> Exception:
        """SampleError for bad input; RuntimeError with traceback for a fault in a transform or data set."""
        if self.traceback is None:
            return SampleError(self.message)
        return RuntimeError(f"{self.message}\n{self.traceback}")


class Samples(Dataset[Sample]):
    """Samples of a data set by (epoch, index)."""

    def __init__(self, dataset: DetectionDataset, transforms: Sequence[Transform], seed: int) -> None:
        self.dataset, self.transforms, self.seed = dataset, list(transforms), seed
        self.table: WorkerTable | None = None

    def __getitems__(self, keys: list[tuple[int, int]]) -> list[Sample | FailedSample]:
        """The samples of a batch; a worker notes down which it is at."""
        return [self[key] for key in (self.table.track(keys) if self.table else keys)]

    def __getitem__(self, key: tuple[int, int]) -> Sample | FailedSample:  # type: ignore[override]
        """The sample, or why there is none, with the image's id and file."""
        epoch, index = key
        records = self.dataset.records
        image_id, path = int(records.image_ids[index]), records.path(index)
        try:
            return self._make(epoch, index, image_id, path)
        except (ValueError, OSError) as error:
            return FailedSample(f"image {image_id} ({path}): {error}")
        except Exception as error:
            # Nothing is swallowed: the loader raises it again, with the image's name in front.
            text = f"image {image_id} ({path}): {type(error).__name__}: {error}"
            return FailedSample(text, traceback.format_exc())

    def _make(self, epoch: int, index: int, image_id: int, path: str) -> Sample:
        image = self.dataset.checked_image(index)
        size = (image.height, image.width)
        a = self.dataset.records.annotation(index)
        with seeded(self.seed, epoch, image_id):
            tensor, targets = apply_transforms(
                self.transforms,
                image,
                torch.tensor(a.boxes),
                torch.tensor(a.labels),
                torch.tensor(a.is_ignore),
            )
        return Sample(tensor, targets, size, image_id, path)


def check_split(batch_size: int, world_size: int, micro_batches: int) -> None:
    """Raises ValueError unless every micro-batch of every process gets equally many of a step's images."""
    if batch_size % (world_size * micro_batches):
        raise ValueError(
            f"data.loader.batch_size: {batch_size} images can't be split evenly over {world_size} "
            f"processes x {micro_batches} micro-batches"
        )


class TrainBatches:
    """Endless lists of (epoch, index): the micro-batches of one process, from a step on."""

    def __init__(
        self,
        length: int,
        batch_size: int,
        *,
        seed: int,
        start_step: int,
        rank: int,
        world_size: int,
        micro_batches: int,
    ) -> None:
        check_split(batch_size, world_size, micro_batches)
        self.length, self.batch_size, self.seed, self.start_step = length, batch_size, seed, start_step
        self.rank, self.world_size, self.micro_batches = rank, world_size, micro_batches

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Step s has positions [s * batch_size, (s + 1) * batch_size), shared out one by one."""
        step, parts = self.start_step, self.world_size * self.micro_batches
        while True:
            first = step * self.batch_size
            for micro in range(self.micro_batches):
                offset = micro * self.world_size + self.rank
                mine = range(first + offset, first + self.batch_size, parts)
                yield [at_position(self.seed, position, self.length) for position in mine]
            step += 1


def build_train_loader(
    dataset: DetectionDataset,
    transforms: Sequence[Transform],
    options: LoaderOptions,
    *,
    seed: int,
    start_step: int = 0,
    rank: int = 0,
    world_size: int = 1,
    micro_batches: int = 1,
) -> Loader:
    """Endless micro-batches of this process, of batch_size / (world_size * micro_batches) images each.

    start_step: optimizer steps done already; going on there costs nothing.
    """
    positions = TrainBatches(
        len(dataset), options.batch_size, seed=seed, start_step=start_step, rank=rank, world_size=world_size,
        micro_batches=micro_batches,
    )  # fmt: skip
    return Loader(Samples(dataset, transforms, seed), positions, options)


def build_eval_loader(
    dataset: DetectionDataset,
    transforms: Sequence[Transform],
    options: LoaderOptions,
    *,
    rank: int = 0,
    world_size: int = 1,
) -> Loader:
    """Every image once over all processes, in order; the last batch may be smaller."""
    mine = range(rank, len(dataset), world_size)
    size = max(1, options.batch_size // world_size)
    batches = [[(0, index) for index in mine[i : i + size]] for i in range(0, len(mine), size)]
    return Loader(Samples(dataset, transforms, 0), batches, options)


class Loader:
    """A torch DataLoader that tells of a failed sample by file, and leaves the global generators alone."""

    def __init__(self, samples: Samples, batches: Any, options: LoaderOptions) -> None:
        self._batches = batches
        if options.num_workers:
            check_workers(options.num_workers)
            check_temporary_folder()
            samples.table = WorkerTable(samples.dataset.records, options.num_workers, options.batch_size)
        self._inner: DataLoader[Any] = DataLoader(
            samples,
            batch_sampler=batches,
            num_workers=options.num_workers,
            collate_fn=_Collate(options.size_divisor, options.pad_to),
            worker_init_fn=set_up_worker,
            generator=torch.Generator(),
            pin_memory=torch.cuda.is_available(),
        )

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Generator[Batch, None, None]:
        """Batches; raises an error that names the image of which a sample could not be made, or the images
        that a worker was at when it died. `close()` ends the loader processes of this round."""
        others = set(active_children())
        batches = iter(self._inner)
        workers = set(active_children()) - others
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except (RuntimeError, OSError, EOFError) as error:
                # A batch of a worker that is dead by now can't be fetched: not torch, the connection tells.
                known = explain_worker_death(
                    error if isinstance(error, RuntimeError) else explain_lost_connection(error, workers)
                )
                if known is None:
                    raise
                raise known from error
            if isinstance(batch, FailedSample):
                raise batch.error()
            yield batch


class _Collate:
    def __init__(self, divisor: int, pad_to: tuple[int, int] | None) -> None:
        self.divisor, self.pad_to = divisor, pad_to

    def __call__(self, samples: list[Sample | FailedSample]) -> Batch | FailedSample:
        good = []
        for sample in samples:
            if isinstance(sample, FailedSample):
                return sample
            good.append(sample)
        for s in good:
            size = tuple(s.image.shape[-2:])
            if self.pad_to is not None and (size[0] > self.pad_to[0] or size[1] > self.pad_to[1]):
                return FailedSample(
                    f"image {s.image_id} ({s.path}): {size} pixels (height, width) don't fit into "
                    f"data.loader.pad_to {tuple(self.pad_to)}: resize to less, or pad to more"
                )
        images, sizes = collate_images([s.image for s in good], self.divisor, self.pad_to)
        return Batch(
            images=images,
            sizes=sizes,
            targets=[s.targets for s in good],
            original_sizes=torch.tensor([s.original_size for s in good]),
            image_ids=[s.image_id for s in good],
            paths=[s.path for s in good],
        )


def collate_images(
    images: Sequence[Tensor], divisor: int, least: tuple[int, int] | None = None
) -> tuple[Tensor, Tensor]:
    """uint8 images (3, h, w) -> (B, 3, H, W), zeros right and below; and their sizes (B, 2).

    H and W are multiples of `divisor`, and at least `least`.
    """
    sizes = torch.tensor([image.shape[-2:] for image in images])
    needed = torch.cat((sizes, torch.tensor([least]))) if least else sizes
    height, width = (-(-int(side) // divisor) * divisor for side in needed.amax(dim=0))
    batch = torch.zeros(len(images), images[0].shape[0], height, width, dtype=torch.uint8)
    for slot, image in zip(batch, images, strict=True):
        slot[:, : image.shape[1], : image.shape[2]] = image
    return batch, sizes
