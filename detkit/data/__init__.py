"""Data sets, transforms and loaders."""

from detkit.data.datasets.base import DetectionDataset, check_same_classes

__all__ = ["DetectionDataset", "check_same_classes"]
