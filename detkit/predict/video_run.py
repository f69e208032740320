"""`detkit predict` on videos: a video with boxes, and a line of JSON for each frame."""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO

from PIL.Image import Image

from detkit.predict.detections import Detections
from detkit.predict.predictor import Predictor
from detkit.predict.video import Frame, VideoReader, VideoWriter
from detkit.utils.console import bar_stream, plural, printable
from detkit.utils.outputs import Ledger, file_sha256
from detkit.visualize import draw_detections


@dataclass(frozen=True)
class VideoJob:
    """A source and the files of its results: `lines` for the JSON, `video` for the drawn one or None.

    most: frames after which reading stops; None for all.
    """

    source: str
    lines: Path
    video: Path | None
    min_score: float
    most: int | None = None


def predict_video(predictor: Predictor, job: VideoJob, ledger: Ledger) -> int:
    """Runs a predictor on the frames of a video; returns the exit code, 1 if it is damaged.

    What was read is written, whatever ends it, and the video can be played. ValueError if no frame can be read.
    """
    count = detections = 0
    temporary = None if job.video is None else job.video.with_name(f".detkit-{job.video.stem[:100]}.tmp")
    with VideoReader(job.source) as reader:
        runner = Predictor(predictor.backend, batch_size=1, views=predictor.views) if reader.live else predictor
        try:
            with ExitStack() as stack:
                lines = stack.enter_context(job.lines.open("w", encoding="utf-8", buffering=1))
                writer = None
                if temporary is not None:
                    writer = stack.enter_context(VideoWriter(temporary, reader.stream.average_rate))
                for frame, image, found in with_bar(run_frames(runner, reader, job.most), reader, job):
                    chosen = found[found.scores > job.min_score]
                    write_line(lines, frame, chosen)
                    if writer is not None:
                        writer.add(draw_detections(image, chosen, predictor.classes), frame.time)
                    count, detections = count + 1, detections + len(chosen)
        finally:
            keep(job, temporary, ledger)
    if not count:
        raise ValueError(
            f"{printable(job.source)}: no frame can be read{f': {reader.problem}' if reader.problem else ''}"
        )
    print(f"{printable(job.source)}: {plural(count, 'frame')}, {plural(detections, 'detection')}", flush=True)
    if reader.problem is not None:
        more = f"; {reader.damaged} packets or frames are damaged" if reader.damaged > 1 else ""
        print(f"error: {printable(job.source)}: {reader.problem}{more}; the rest is written", file=sys.stderr)
    return int(reader.problem is not None)


def run_frames(
    predictor: Predictor, reader: VideoReader, most: int | None
) -> Iterator[tuple[Frame, Image, Detections]]:
    """Yields each frame with its picture and its detections."""
    waiting: deque[Frame] = deque()

    def images() -> Iterator[Image]:
        for frame in islice(reader, most):
            waiting.append(frame)
            yield frame.image

    for found, image in predictor.stream(images()):
        yield waiting.popleft(), image, found


def with_bar(
    frames: Iterator[tuple[Frame, Image, Detections]], reader: VideoReader, job: VideoJob
) -> Iterator[tuple[Frame, Image, Detections]]:
    """The frames, counted by a bar on a terminal."""
    from tqdm import tqdm

    total = job.most if reader.total is None else min(reader.total, job.most or reader.total)
    name = Path(job.source).name
    yield from tqdm(frames, total=total, desc=name, unit="frame", disable=None, leave=False, file=bar_stream())


def write_line(file: IO[str], frame: Frame, detections: Detections) -> None:
    """One line: the frame's number and time in seconds, and its detections as in COCO results."""
    entries = detections.to_coco()
    for entry in entries:
        del entry["image_id"]
    file.write(json.dumps({"frame": frame.index, "time": round(frame.time, 6), "detections": entries}) + "\n")


def keep(job: VideoJob, temporary: Path | None, ledger: Ledger) -> None:
    """Brings the video into place, and notes both files as detkit's."""
    paths = [job.lines] if job.lines.is_file() else []
    if temporary is not None and job.video is not None and temporary.is_file():
        ledger.note(job.video.relative_to(ledger.folder), file_sha256(temporary))
        temporary.replace(job.video)
    for path in paths:
        ledger.note(path.relative_to(ledger.folder), file_sha256(path))
    ledger.flush()
