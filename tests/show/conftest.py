"""What tests of several verbs need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from detkit.cli import main


@pytest.fixture
def trained(folder: Any, tmp_path: Path) -> Path:
    """The folder of a run of two steps, on the data of `folder` with the class `<b>cat`."""
    for split in ("train", "val"):
        folder.write(split, [[[8, 8, 40, 30]]] * 3, categories=[{"id": 1, "name": "<b>cat"}])
    torch.manual_seed(0)
    assert main(["train", str(folder.config), "--output", str(tmp_path / "run")]) == 0
    return tmp_path / "run"
