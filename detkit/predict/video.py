"""Video files, cameras and streams, read and written by PyAV (`pip install 'detkit[video]'`)."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

from PIL import Image

from detkit.utils.console import printable

SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".m2ts", ".3gp", ".ogv",
    ".mjpg", ".mjpeg", ".m3u8",
)  # fmt: skip
LIVE = re.compile(r"(rtsp|rtsps|rtmp|rtp|udp|srt|tcp)://", re.IGNORECASE)
WEB = re.compile(r"https?://", re.IGNORECASE)
TICKS = 60_000
"""Units of time in a second of the written video; frames of all usual rates are whole numbers of them."""
WAIT = 20.0
"""Seconds without an answer of a stream or camera after which it counts as gone."""
QUALITY = {"libx264": {"crf": "20", "preset": "veryfast"}, "mpeg4": {"qscale": "3"}}
"""Encoders, in order of preference, with their options."""
TURNS = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}
"""Degrees counter-clockwise -> how Pillow turns an image so."""


def is_video(text: str) -> bool:
    """Whether a word of the command line is a video file, a stream or the number of a camera."""
    if os.path.exists(text):
        return text.lower().endswith(SUFFIXES) and os.path.isfile(text)
    if WEB.match(text):
        return text.partition("?")[0].lower().endswith(SUFFIXES)
    return text.isdecimal() or bool(LIVE.match(text))


def is_live(text: str) -> bool:
    """Whether frames come as time passes, so that none should wait for others."""
    return not os.path.exists(text) and (text.isdecimal() or bool(LIVE.match(text)))


def video_name(text: str) -> str:
    """A name for the results of a source, without suffix."""
    if text.isdecimal() and not os.path.exists(text):
        return f"camera-{text}"
    plain = re.sub(r"^\w+://", "", text.partition("?")[0])
    return Path(plain).stem or "stream"


@dataclass(frozen=True)
class Frame:
    """A frame, upright: its number from 0, seconds from the start of the video, and pixels."""

    index: int
    time: float
    image: Image.Image


class VideoReader:
    """The frames of a source, while the context is active.

    total: frames that the file says it has; None if it does not say. problem: what was wrong, naming the frame; None so
    far. Packets that can't be decoded are left out, and reading ends where nothing more can be read.
    """

    def __init__(self, source: str) -> None:
        self.source, self.live = source, is_live(source)
        self.problem: str | None = None
        self.damaged = 0
        self.count, self.end = 0, 0.0
        self.av = open_library()
        try:
            self.container = self.av.open(**opening(source))
        except (self.av.FFmpegError, OSError, ValueError) as error:
            raise ValueError(f"{printable(source)}: not a readable video: {reason(error)}") from error
        if not self.container.streams.video:
            self.container.close()
            raise ValueError(f"{printable(source)}: the file has no video stream")
        self.stream = self.container.streams.video[0]
        self.stream.thread_type = "AUTO"
        self.total: int | None = self.stream.frames or None

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.container.close()

    def __iter__(self) -> Iterator[Frame]:
        start: float | None = None
        for raw in self._frames():
            time = raw.time if raw.time is not None else self.end
            if start is None:
                start = float(time) if self.live else 0.0
            if raw.is_corrupt and not self.live:
                self._note("is damaged")
            frame = Frame(self.count, float(time) - start, upright(raw))
            self.count, self.end = self.count + 1, frame.time + self._step(raw)
            yield frame
        if not self.live:
            self._check_end()

    def _frames(self) -> Iterator[Any]:
        """The decoded frames of all packets that can be decoded."""
        try:
            for packet in self.container.demux(self.stream):
                try:
                    yield from packet.decode()
                except self.av.FFmpegError as error:
                    if not self.live:
                        self._note(f"can't be decoded ({reason(error)})")
        except self.av.FFmpegError as error:
            self.problem = f"frame {self.count} can't be read ({reason(error)})"

    def _step(self, raw: Any) -> float:
        """Seconds that a frame lasts, as far as the file says."""
        if raw.duration and raw.time_base:
            return float(raw.duration * raw.time_base)
        return float(1 / self.stream.average_rate) if self.stream.average_rate else 0.0

    def _note(self, what: str) -> None:
        self.damaged += 1
        if self.problem is None:
            self.problem = f"frame {self.count} {what}"

    def _check_end(self) -> None:
        """Notes a file that ends before its header says."""
        if self.problem is not None:
            return
        if self.total is not None and self.count < self.total:
            self.problem = (
                f"frame {self.count} is missing: the file ends there, but its header says {self.total} frames"
            )
            return
        length = stated_length(self.container, self.stream)
        if length is not None and self.end < length - max(0.5, 3 * self.end / max(self.count, 1)):
            self.problem = f"frame {self.count} is missing: the file ends at {self.end:.2f} s of {length:.2f} s"


def open_library() -> Any:
    """PyAV; ImportError that says how to install it."""
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise ImportError(f"videos need the package av: pip install 'detkit[video]' ({error})") from error


def opening(source: str) -> dict[str, Any]:
    """The arguments of `av.open` for a file, an address or the number of a camera."""
    if not source.isdecimal() or os.path.exists(source):
        return {"file": source, **({} if os.path.exists(source) else {"timeout": (WAIT, WAIT)})}
    if sys.platform == "darwin":
        return {"file": source, "format": "avfoundation", "timeout": (WAIT, WAIT)}
    if sys.platform == "win32":
        raise ValueError("Windows knows cameras by name: give the address of a stream")
    return {"file": f"/dev/video{source}", "format": "v4l2", "timeout": (WAIT, WAIT)}


def upright(raw: Any) -> Image.Image:
    """A decoded frame as an RGB image, turned as the file says."""
    image: Image.Image = raw.to_image()
    turn = TURNS.get(round(raw.rotation / 90) * 90 % 360)
    return image if turn is None else image.transpose(turn)


def stated_length(container: Any, stream: Any) -> float | None:
    """Seconds that the video lasts by the header; None if it does not say so for the video alone."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    if match := re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", str(stream.metadata.get("DURATION", ""))):
        hours, minutes, seconds = map(float, match.groups())
        return 3600 * hours + 60 * minutes + seconds
    return container.duration / 1e6 if container.duration and len(container.streams) == 1 else None


def reason(error: BaseException) -> str:
    """What FFmpeg says, without its number and function."""
    return str(getattr(error, "strerror", None) or error)


class VideoWriter:
    """An MP4 file of frames at their own times, playable however writing ends, while the context is active.

    Sides are made even, as the pixel format requires, by a black line; all frames get the size of the first.
    """

    def __init__(self, path: Path, rate: Fraction | None) -> None:
        self.path, self.rate = path, rate or Fraction(25)
        self.av = open_library()
        self.container: Any = None
        self.stream: Any = None
        self.last = -1

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.container is None:
            return
        try:
            self.container.mux(self.stream.encode(None))
        finally:
            self.container.close()

    def add(self, image: Image.Image, time: float) -> None:
        """Appends a frame that is shown from a time on, in seconds."""
        size = (image.width + image.width % 2, image.height + image.height % 2)
        if self.container is None:
            self._open(size)
        if size != (self.stream.width, self.stream.height):
            image = image.resize((self.stream.width, self.stream.height), Image.Resampling.BILINEAR)
        elif size != image.size:
            image = image.crop((0, 0, *size))
        frame = self.av.VideoFrame.from_image(image)
        self.last = frame.pts = max(round(time * TICKS), self.last + 1)
        frame.time_base = Fraction(1, TICKS)
        self.container.mux(self.stream.encode(frame))

    def _open(self, size: tuple[int, int]) -> None:
        codec = next(name for name in QUALITY if name in self.av.codecs_available)
        self.container = self.av.open(str(self.path), "w", format="mp4")
        self.stream = self.container.add_stream(codec, rate=self.rate, options=QUALITY[codec])
        self.stream.width, self.stream.height = size
        self.stream.pix_fmt = "yuv420p"
        self.stream.codec_context.time_base = Fraction(1, TICKS)
