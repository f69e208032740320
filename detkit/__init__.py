"""detkit: a toolkit for dense object detection."""

__version__ = "0.1.0"
