"""Hashes of what a run was given: tensors, annotations, images."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from detkit.data.datasets.base import DetectionDataset
from detkit.evaluate.arrays import GroundTruth
from detkit.evaluate.coco import ground_truth_from
from detkit.utils.outputs import file_sha256

LENGTH = 12
"""Hex digits of a hash."""
READ_WHOLE = 8 * 2**30
"""Bytes of a training split up to which every image file is read completely."""


def arrays_hash(*arrays: ArrayLike) -> str:
    """Hash of the bytes of arrays or CPU tensors."""
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()[:LENGTH]


def truth_hash(truth: GroundTruth) -> str:
    """Hash of everything that detections are measured against."""
    return arrays_hash(truth.image_ids, truth.offsets, truth.boxes, truth.labels, truth.crowd, truth.area)


def validation_hash(dataset: DetectionDataset) -> str:
    """Hash of annotations and images: of the image files, or of the pixels where there are no files."""
    sha = hashlib.sha256(truth_hash(ground_truth_from(dataset)).encode())
    for i in range(len(dataset)):
        path = Path(dataset.records.path(i))
        sha.update(file_sha256(path).encode() if path.is_file() else np.asarray(dataset.load_image(i)).tobytes())
    return sha.hexdigest()[:LENGTH]


def images_hash(dataset: DetectionDataset, read_whole: int = READ_WHOLE) -> str:
    """Hash of all image files of a training split; images that are drawn have no files: code and config determine them.

    Of a split of more than `read_whole` bytes, the size and three blocks of each file are read.
    """
    paths = [Path(dataset.records.path(i)) for i in range(len(dataset))]
    sizes = [path.stat().st_size if path.is_file() else -1 for path in paths]
    small, sha = sum(sizes) <= read_whole, hashlib.sha256(np.array(sizes, np.int64).tobytes())
    for path, size in zip(paths, sizes, strict=True):
        if size >= 0:
            sha.update(file_sha256(path).encode() if small else sample_blocks(path, size))
    return sha.hexdigest()[:LENGTH]


def sample_blocks(path: Path, size: int, length: int = 4096) -> bytes:
    blocks = []
    with path.open("rb") as file:
        for position in (0, (size - length) // 2, size - length):
            file.seek(max(0, position))
            blocks.append(file.read(length))
    return b"".join(blocks)
