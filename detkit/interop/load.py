"""`load_any`: whatever names a model -> its checkpoint."""

from __future__ import annotations

import logging
import os
from typing import Literal

from detkit.checkpoint import Checkpoint, load_checkpoint
from detkit.hub import local_path
from detkit.hub.prefixes import DETECTRON2, TORCHVISION
from detkit.hub.repository import CONFIG, WEIGHTS
from detkit.interop.detectron2 import convert_detectron2
from detkit.interop.exported import read_exported
from detkit.interop.files import as_checkpoint
from detkit.interop.torchvision import convert_torchvision
from detkit.utils.tensor_files import ENDING

log = logging.getLogger("detkit")


def load_any(source: str | os.PathLike[str], prefer: Literal["best", "newest"] = "best") -> Checkpoint:
    """Reads the weights, config and classes of a model.

    Args:
        source: a run folder, a checkpoint, a folder of `detkit push` or its .safetensors file; the address of one of
            these (http, `hf://OWNER/NAME`, `s3://...`); `torchvision:MODEL`; `detectron2:COCO-Detection/MODEL`.
        prefer: of a run folder the best checkpoint, or the newest.

    Raises CheckpointError or ValueError for what is no model of detkit, FetchError for what can't be fetched.
    """
    if isinstance(source, str) and source.startswith((TORCHVISION, DETECTRON2)):
        return _published(source)
    path = local_path(source)
    if path.suffix == ENDING or (path.is_dir() and (path / WEIGHTS).is_file() and (path / CONFIG).is_file()):
        return read_exported(path)
    return load_checkpoint(path, prefer)


def _published(source: str) -> Checkpoint:
    """Weights of torchvision or Detectron2 by name, converted in memory."""
    is_detectron2 = source.startswith(DETECTRON2)
    converted = convert_detectron2(local_path(source)) if is_detectron2 else convert_torchvision(source)
    for note in converted.notes:
        log.info("%s: %s", source, note)
    return as_checkpoint(converted)
