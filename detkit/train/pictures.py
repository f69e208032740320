"""What the model in training makes of validation images, for pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from detkit.data.datasets.base import DetectionDataset
from detkit.data.loader import Loader, LoaderOptions, Samples
from detkit.data.transforms.base import Transform
from detkit.detectors.dense import DenseDetector
from detkit.structures import Batch
from detkit.train.hook_access import Rows
from detkit.train.parallel import share_buffers
from detkit.train.sharded import unsharded
from detkit.train.trainer import Trainer


@torch.inference_mode()
def predicted_rows(model: DenseDetector, loader: Iterable[Batch], device: torch.device, most: int) -> Rows:
    """The first images of a loader with their targets and detections, in pixels of the batch."""
    rows: Rows = []
    model.eval()
    for batch in loader:
        detections = model.detect(model(batch.images.to(device), batch.sizes), batch.sizes)
        for i, (height, width) in enumerate(batch.sizes.tolist()):
            rows.append((batch.images[i, :, :height, :width], batch.targets[i], detections[i].to("cpu")))
        if len(rows) >= most:
            break
    return rows[:most]


def predict_images(
    trainer: Trainer,
    dataset: DetectionDataset,
    transforms: Sequence[Transform],
    options: LoaderOptions,
    indices: Sequence[int],
) -> Rows:
    """The images of these indices with targets and detections, on rank 0; all ranks must call it together."""
    trainer.progress.enter("pictures", trainer.step)
    share_buffers(trainer.model)
    with unsharded(trainer.model):
        if trainer.rank > 0:
            return []
        loader = Loader(Samples(dataset, transforms, 0), [[(0, index)] for index in indices], options)
        return predicted_rows(trainer.model, loader, trainer.device, len(indices))
