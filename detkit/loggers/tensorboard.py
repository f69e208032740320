"""TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from detkit.loggers.base import LoggedRun, Logger, Status
from detkit.registry import LOGGERS
from detkit.runs.folder import TENSORBOARD, note_growing


@LOGGERS.register()
class TensorBoard(Logger):
    """Event files for TensorBoard in `tensorboard/` of the run folder."""

    def __init__(self) -> None:
        self.writer: Any = None

    def start(self, run: LoggedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        events = run.folder / TENSORBOARD
        before = set(events.glob("*"))
        self.writer = SummaryWriter(str(events), purge_step=run.step + 1)
        note_growing(run.folder, set(events.glob("*")) - before)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def log_image(self, step: int, name: str, path: Path) -> None:
        from PIL import Image

        with Image.open(path) as picture:
            self.writer.add_image(name, np.asarray(picture.convert("RGB")), step, dataformats="HWC")

    def finish(self, status: Status) -> None:
        self.writer.close()
