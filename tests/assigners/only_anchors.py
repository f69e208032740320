"""Anchors for assigners that do not look at predictions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from detkit.structures import Candidates


def only_anchors(anchors: Any, level_sizes: tuple[int, ...] | None = None) -> Candidates:
    """Anchors (A, 4) without predictions: asking for them fails the test."""
    anchors = torch.as_tensor(anchors).float()
    return Candidates(anchors, level_sizes or (len(anchors),), refuse, refuse)


def refuse() -> Tensor:
    pytest.fail("asked for predictions")
