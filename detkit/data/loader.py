"""Batches whose content is a function of (seed, position), whatever the number of workers and processes."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from multiprocessing import active_children
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Annotated

import torch
from annotated_types import Interval
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from detkit.config.imports import import_file, imported_files
from detkit.data.datasets.base import DetectionDataset
from detkit.data.final import FinalTransforms
from detkit.data.preparation import Preparation
from detkit.data.seeding import Layout, permutation, seeded
from detkit.data.transforms.base import Transform
from detkit.data.worker import (
    WorkerTable,
    check_temporary_folder,
    check_workers,
    explain_lost_connection,
    explain_worker_death,
    script_left_alone,
    set_up_worker,
)
from detkit.registry import Side, enforce_bounds
from detkit.structures import Batch, Targets
from detkit.utils.console import plural
from detkit.utils.types import Ints

Key = tuple[int, ...]
"""(epoch, index of the image); a 1 behind them in the last steps, if these have transforms of their own."""
BatchSize = Annotated[int, Interval(ge=1, le=10**6)]
NumWorkers = Annotated[int, Interval(ge=0, le=10**4)]
SizeDivisor = Annotated[int, Interval(ge=1, le=4096)]


@enforce_bounds
@dataclass(frozen=True, kw_only=True)
class LoaderOptions:
    """How images become batches.

    Args:
        batch_size: images of one optimizer step, over all processes and micro-batches.
        num_workers: loader processes of each training process; 0 loads in the training process itself.
        size_divisor: height and width of a batch are padded with zeros to a multiple of it, in pixels.
        pad_to: least (height, width) of a batch, in pixels, so that all have one shape (for torch.compile); images must
            not be larger.
    """

    batch_size: BatchSize = 8
    num_workers: NumWorkers = 1
    size_divisor: SizeDivisor = 32
    pad_to: tuple[Side, Side] | None = None


@dataclass
class Sample:
    """One image on its way into a batch."""

    image: Tensor
    targets: Targets
    original_size: tuple[int, int]
    image_id: int
    path: str


class SampleError(ValueError):
    """An image or its annotation can't be made into a sample."""


@dataclass
class FailedSample:
    """What a worker sends in place of a sample that it could not make."""

    message: str
    traceback: str | None = None

    def error(self) -> Exception:
        """SampleError for bad input; RuntimeError with traceback for a fault in a transform or data set."""
        if self.traceback is None:
            return SampleError(self.message)
        return RuntimeError(f"{self.message}\n{self.traceback}")


class Samples(Dataset[Sample]):
    """Samples of a data set by (epoch, index).

    cached: whether the cache of `data.images` is used, if there is one. final: transforms of the last steps.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        transforms: Sequence[Transform],
        seed: int,
        *,
        cached: bool = False,
        final: Sequence[Transform] | None = None,
    ) -> None:
        self.dataset, self.transforms, self.seed = dataset, list(transforms), seed
        self.preparation = Preparation(dataset, self.transforms, cached=cached, final=final)
        self.table: WorkerTable | None = None

    def __reduce__(self) -> tuple[Callable[[list[str], bytes], Samples], tuple[list[str], bytes]]:
        """Lets a loader process that is not a fork import the files of `imports` before it meets their classes."""
        return restore_samples, (imported_files(), bytes(ForkingPickler.dumps(vars(self))))

    def __getitems__(self, keys: list[Key]) -> list[Sample | FailedSample]:
        """The samples of a batch; a worker records which it is at."""
        return [self[key] for key in (self.table.track(keys) if self.table else keys)]

    def __getitem__(self, key: Key) -> Sample | FailedSample:  # type: ignore[override]
        """The sample, or what failed, with the image's id and file."""
        epoch, index, *is_final = key
        records = self.dataset.records
        image_id, path = int(records.image_ids[index]), records.path(index)
        try:
            image, size = self.preparation.image(index)
            a = records.annotation(index)
            with seeded(self.seed, epoch, image_id):
                boxes, labels, is_ignore = (torch.tensor(array) for array in (a.boxes, a.labels, a.is_ignore))
                tensor, targets = self.preparation.finish(
                    image, size, boxes, labels, is_ignore, draw=self.draw, is_final=bool(is_final)
                )
            return Sample(tensor, targets, size, image_id, path)
        except (ValueError, OSError) as error:
            return FailedSample(f"image {image_id} ({path}): {error}")
        except Exception as error:
            # Nothing is swallowed: the loader raises it again, with the image's name in front.
            text = f"image {image_id} ({path}): {type(error).__name__}: {error}"
            return FailedSample(text, traceback.format_exc())

    def draw(self) -> int:
        """The index of any image, from torch's global generator."""
        return int(torch.randint(len(self.dataset), ()))


def restore_samples(files: list[str], content: bytes) -> Samples:
    """The samples of another process, with the files that it had imported."""
    for file in files:
        import_file(Path(file))
    samples = Samples.__new__(Samples)
    vars(samples).update(pickle.loads(content))
    return samples


def check_split(batch_size: int, world_size: int, micro_batches: int) -> None:
    """Raises ValueError unless all micro-batches of all processes get the same number of images."""
    if batch_size % (world_size * micro_batches):
        raise ValueError(
            f"data.loader.batch_size: {plural(batch_size, 'image')} can't be split evenly over "
            f"{plural(world_size, 'process', 'processes')} x {plural(micro_batches, 'micro-batch', 'micro-batches')}: "
            f"choose a multiple of {world_size * micro_batches}"
        )


@dataclass(frozen=True, kw_only=True)
class TrainBatches:
    """Endless lists of (epoch, index): the micro-batches of one process, from `start_step` on.

    layout: of the data set, if its order depends on where the images lie. final_start: the first of the steps with
    transforms of their own, if there are any.
    """

    length: int
    batch_size: int
    seed: int
    start_step: int
    rank: int
    world_size: int
    micro_batches: int
    layout: Layout | None = None
    final_start: int | None = None

    def __iter__(self) -> Iterator[list[Key]]:
        """Step s has positions [s * batch_size, (s + 1) * batch_size), dealt out one by one."""
        step, parts = self.start_step, self.world_size * self.micro_batches
        order = lru_cache(maxsize=2)(self.order)
        while True:
            first = step * self.batch_size
            for micro in range(self.micro_batches):
                offset = micro * self.world_size + self.rank
                positions = range(first + offset, first + self.batch_size, parts)
                places = [divmod(position, self.length) for position in positions]
                final = () if self.final_start is None or step < self.final_start else (1,)
                yield [(epoch, int(order(epoch)[offset]), *final) for epoch, offset in places]
            step += 1

    def order(self, epoch: int) -> Ints:
        """The images of an epoch, in order."""
        if self.layout is not None:
            return self.layout.permutation(self.seed, epoch)
        return permutation(self.seed, epoch, self.length)


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
    final: FinalTransforms | None = None,
) -> Loader:
    """Loads endless micro-batches of this process, of batch_size / (world_size * micro_batches) images each.

    start_step: optimizer steps done already; starting there costs nothing. final: of the last steps, if these have
    others.
    """
    check_split(options.batch_size, world_size, micro_batches)
    batches = TrainBatches(
        length=len(dataset), batch_size=options.batch_size, seed=seed, start_step=start_step, rank=rank,
        world_size=world_size, micro_batches=micro_batches, layout=dataset.layout,
        final_start=final.start if final else None,
    )  # fmt: skip
    samples = Samples(dataset, transforms, seed, cached=True, final=final.transforms if final else None)
    return Loader(samples, batches, options)


def build_eval_loader(
    dataset: DetectionDataset,
    transforms: Sequence[Transform],
    options: LoaderOptions,
    *,
    rank: int = 0,
    world_size: int = 1,
) -> Loader:
    """Loads every image once over all processes, in order; the last batch may be smaller."""
    indices = range(rank, len(dataset), world_size)
    size = max(1, options.batch_size // world_size)
    batches: list[list[Key]] = [[(0, index) for index in indices[i : i + size]] for i in range(0, len(indices), size)]
    return Loader(Samples(dataset, transforms, 0, cached=True), batches, options)


class Loader:
    """A torch DataLoader whose errors name the image, and which leaves the global generators alone."""

    def __init__(self, samples: Samples, batches: Sequence[list[Key]] | TrainBatches, options: LoaderOptions) -> None:
        self._batches, self.samples = batches, samples
        if options.num_workers:
            check_workers(options.num_workers)
            check_temporary_folder()
            samples.table = WorkerTable(samples.dataset.records, options.num_workers, options.batch_size)
        self.torch_loader: DataLoader[Sample] = DataLoader(
            samples,
            batch_sampler=batches,
            num_workers=options.num_workers,
            collate_fn=partial(collate, divisor=options.size_divisor, pad_to=options.pad_to),
            worker_init_fn=set_up_worker,
            generator=torch.Generator(),
            pin_memory=torch.cuda.is_available(),
        )

    def __len__(self) -> int:
        return len(self._batches)  # type: ignore[arg-type]

    def __iter__(self) -> Generator[Batch, None, None]:
        """Yields batches; an error names the image that failed, or the images that a worker held when it died.

        `close()` ends the loader processes of this round.
        """
        others = set(active_children())
        samples = self.samples
        with script_left_alone([samples.dataset, *samples.transforms], self.torch_loader.num_workers):
            batches = iter(self.torch_loader)
        workers = set(active_children()) - others
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except (RuntimeError, OSError, EOFError) as error:
                # Fetching a batch of a worker that is dead by now fails with an error of the connection, not torch's.
                lost = error if isinstance(error, RuntimeError) else explain_lost_connection(error, workers)
                known = explain_worker_death(lost)
                if known is None:
                    raise
                raise known from error
            if isinstance(batch, FailedSample):
                raise batch.error()
            yield batch


def collate(
    samples: list[Sample | FailedSample], *, divisor: int, pad_to: tuple[int, int] | None
) -> Batch | FailedSample:
    """One batch of the samples, or the first that failed or does not fit into `pad_to`."""
    good = []
    for s in samples:
        if isinstance(s, FailedSample):
            return s
        size = tuple(s.image.shape[-2:])
        if pad_to is not None and (size[0] > pad_to[0] or size[1] > pad_to[1]):
            return FailedSample(
                f"image {s.image_id} ({s.path}): {size} pixels (height, width) exceed "
                f"data.loader.pad_to {tuple(pad_to)}: resize to less, or increase pad_to"
            )
        good.append(s)
    images, sizes = collate_images([s.image for s in good], divisor, pad_to)
    return Batch(
        images=images,
        sizes=sizes,
        targets=[s.targets for s in good],
        original_sizes=torch.tensor([s.original_size for s in good]),
        image_ids=[s.image_id for s in good],
        paths=[s.path for s in good],
    )


def collate_images(images: Sequence[Tensor], divisor: int, least: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
    """Pads uint8 images (3, h, w) right and below to (B, 3, H, W); returns them and their sizes (B, 2).

    H and W are multiples of `divisor`, and at least `least`.
    """
    sizes = torch.tensor([image.shape[-2:] for image in images])
    needed = torch.cat((sizes, torch.tensor([least]))) if least else sizes
    height, width = (-(-int(side) // divisor) * divisor for side in needed.amax(dim=0))
    batch = torch.zeros(len(images), images[0].shape[0], height, width, dtype=torch.uint8)
    for slot, image in zip(batch, images, strict=True):
        slot[:, : image.shape[1], : image.shape[2]] = image
    return batch, sizes
