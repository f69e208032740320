"""Videos in, videos out: every frame at its time, whatever is wrong with the file."""

from __future__ import annotations

import json
import signal
import struct
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detkit.cli import main
from detkit.predict import cli, video
from detkit.predict.predictor import Predictor
from detkit.predict.video import VideoReader, VideoWriter, is_video, video_name
from tests.predict.blobs import Blobs, painted
from tests.refusals import Refuses
from tests.web import Web

av: Any = pytest.importorskip("av")
WIDTH, HEIGHT = 96, 64
TIMES = [k / 10 for k in range(12)]


def write_video(path: Path, times: Any = TIMES, size: tuple[int, int] = (WIDTH, HEIGHT), **more: Any) -> Path:
    """A video in which a red square moves by 4 pixels a frame."""
    options = {"crf": "12", "g": "4"}
    with av.open(str(path), "w", **more) as container:
        stream = container.add_stream("libx264", rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for k, at in enumerate(times):
            pixels = painted(*size, [("red", (4 * k, 16, 4 * k + 16, 32))])
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(at * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def play(path: Path) -> list[Any]:
    with av.open(str(path)) as container:
        return [(round(frame.time, 4), frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def blobs(monkeypatch: pytest.MonkeyPatch) -> Blobs:
    """The command's network finds squares."""
    backend = Blobs()
    monkeypatch.setattr(
        cli, "open_predictor", lambda args, views: Predictor(backend, batch_size=args.batch, views=views)
    )
    return backend


def predict(clip: Path | str, out: Path, *words: str) -> int:
    return main(["predict", "-", str(clip), "--output", str(out), *words])


def test_every_frame_has_a_line_and_a_picture_at_its_time(
    blobs: Blobs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip, out = write_video(tmp_path / "clip.mp4"), tmp_path / "out"
    assert predict(clip, out) == 0
    written = lines(out / "clip.jsonl")
    assert [line["frame"] for line in written] == list(range(12))
    assert [line["time"] for line in written] == pytest.approx([k / 10 for k in range(12)])
    for k, line in enumerate(written):
        (found,) = line["detections"]
        assert found["category_name"] == "red"
        assert found["bbox"] == pytest.approx([4 * k, 16, 16, 16], abs=2)
    frames = play(out / "clip.mp4")
    assert [at for at, _ in frames] == pytest.approx([k / 10 for k in range(12)], abs=1e-3)
    assert frames[0][1].shape == (HEIGHT, WIDTH, 3)
    assert "12 frames, 12 detections" in capsys.readouterr().out
    assert {shape[0] for shape in blobs.shapes} == {8, 4}
    assert predict(clip, out, "--no-draw", "--frames", "5", "--score", "0.999") == 0
    assert [line["detections"] for line in lines(out / "clip.jsonl")] == [[]] * 5


def test_frames_of_a_variable_rate_keep_their_times(blobs: Blobs, tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.5, 0.533, 2.0, 2.001]
    assert predict(write_video(tmp_path / "vfr.mkv", times), tmp_path / "out") == 0
    assert [line["time"] for line in lines(tmp_path / "out/vfr.jsonl")] == pytest.approx(times)
    assert [at for at, _ in play(tmp_path / "out/vfr.mp4")] == pytest.approx(times, abs=1e-3)


@pytest.mark.parametrize("size", [(31, 17), (1, 1), (400, 2)])
def test_videos_of_odd_sizes_are_written(size: tuple[int, int], tmp_path: Path) -> None:
    from PIL import Image

    with VideoWriter(tmp_path / "odd.mp4", None) as writer:
        for k in range(3):
            writer.add(Image.new("RGB", size if k < 2 else (50, 50), (0, 200, 0)), k / 25)
    frames = play(tmp_path / "odd.mp4")
    assert len(frames) == 3
    assert frames[0][1].shape == (size[1] + size[1] % 2, size[0] + size[0] % 2, 3)


def test_a_frame_that_is_not_later_than_the_last_is_shown_right_after_it(tmp_path: Path) -> None:
    from PIL import Image

    with VideoWriter(tmp_path / "same.mp4", Fraction(25)) as writer:
        for at in (0.0, 0.0, 0.5, 0.2):
            writer.add(Image.new("RGB", (16, 16)), at)
    assert [at for at, _ in play(tmp_path / "same.mp4")] == pytest.approx([0, 0, 0.5, 0.5], abs=1e-3)


def turned(path: Path, clockwise: int) -> Path:
    """The MP4 file with another display matrix, as a phone writes it that is held upright."""
    content = path.read_bytes()
    at = content.index(struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30), content.index(b"tkhd"))
    a, b, x, y = {90: (0, 1, HEIGHT, 0), 180: (-1, 0, WIDTH, HEIGHT), 270: (0, -1, 0, WIDTH)}[clockwise]
    one = 65536
    matrix = struct.pack(">9i", a * one, b * one, 0, -b * one, a * one, 0, x * one, y * one, 1 << 30)
    path.write_bytes(content[:at] + matrix + content[at + 36 :])
    return path


@pytest.mark.parametrize("clockwise", [90, 180, 270])
def test_a_video_is_looked_at_as_it_is_shown(clockwise: int, blobs: Blobs, tmp_path: Path) -> None:
    clip = turned(write_video(tmp_path / "phone.mp4", times=[0.0, 0.1]), clockwise)
    assert predict(clip, tmp_path / "out") == 0
    x, y, w, h = lines(tmp_path / "out/phone.jsonl")[0]["detections"][0]["bbox"]
    # The square is at 0..16, 16..32 of 96 x 64.
    want = {90: (32, 0), 180: (80, 32), 270: (16, 80)}[clockwise]
    assert (x, y, w, h) == pytest.approx((*want, 16, 16), abs=2)
    shape = (HEIGHT, WIDTH, 3) if clockwise == 180 else (WIDTH, HEIGHT, 3)
    assert play(tmp_path / "out/phone.mp4")[0][1].shape == shape


def test_a_truncated_video_is_written_as_far_as_it_goes(
    blobs: Blobs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = write_video(tmp_path / "cut.mp4", options={"movflags": "faststart"}).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: whole.index(b"mdat") + (len(whole) - whole.index(b"mdat")) * 2 // 3])
    out = tmp_path / "out"
    assert predict(tmp_path / "cut.mp4", out) == 1
    read = len(lines(out / "cut.jsonl"))
    assert 0 < read < 12
    assert len(play(out / "cut.mp4")) == read
    told = capsys.readouterr().err
    assert "cut.mp4: frame " in told
    assert "; the rest is written" in told


def test_a_matroska_file_that_ends_too_early_is_reported(
    blobs: Blobs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = write_video(tmp_path / "cut.mkv", times=[k / 10 for k in range(60)], options={"cluster_time_limit": "500"})
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert predict(whole, tmp_path / "out", "--no-draw") == 1
    assert 5 < len(lines(tmp_path / "out/cut.jsonl")) < 55
    assert "the file ends at" in capsys.readouterr().err


def test_damage_in_the_middle_is_reported_with_its_frame(
    blobs: Blobs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = write_video(tmp_path / "bad.avi")
    content = bytearray(clip.read_bytes())
    middle = content.index(b"movi") + (len(content) - content.index(b"movi")) // 2
    content[middle : middle + 200] = bytes((value * 7 + 13) % 256 for value in content[middle : middle + 200])
    clip.write_bytes(content)
    assert predict(clip, tmp_path / "out") == 1
    assert "bad.avi: frame " in capsys.readouterr().err
    assert len(play(tmp_path / "out/bad.mp4")) == len(lines(tmp_path / "out/bad.jsonl")) > 3


def test_what_is_no_video_is_named(
    blobs: Blobs, tmp_path: Path, capsys: pytest.CaptureFixture[str], refuses: Refuses
) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mkv").touch()
    assert predict(tmp_path / "text.mp4", tmp_path / "out") == 2
    assert "text.mp4: not a readable video: Invalid data found" in capsys.readouterr().err
    with refuses(ValueError):
        VideoReader(str(tmp_path / "empty.mkv"))
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with refuses(ValueError):
        VideoReader(str(tmp_path / "sound.mp4"))
    clip = write_video(tmp_path / "good.mp4", times=[0.0])
    out = tmp_path / "both"
    assert main(["predict", "-", str(tmp_path / "text.mp4"), str(clip), "--output", str(out)]) == 1
    assert sorted(p.name for p in out.iterdir()) == [".detkit.json", "good.jsonl", "good.mp4"]


def test_images_and_videos_go_together_and_nothing_of_a_person_is_replaced(
    blobs: Blobs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    clip = write_video(tmp_path / "a.mp4", times=[0.0, 0.1])
    (tmp_path / "other").mkdir()
    write_video(tmp_path / "other" / "a.mov", times=[0.0])
    Image.fromarray(painted(40, 30, [("blue", (1, 1, 20, 20))])).save(tmp_path / "a.png")
    words = ["predict", "-", str(clip), str(tmp_path / "a.png"), str(tmp_path / "other/a.mov")]
    out = tmp_path / "out"
    for _ in range(2):
        assert main([*words, "--output", str(out)]) == 0
    assert sorted(p.name for p in out.iterdir()) == [
        ".detkit.json", "a-2.jsonl", "a-2.mp4", "a.jsonl", "a.mp4", "a.png", "images.json", "predictions.json",
    ]  # fmt: skip
    assert main([*words, "--output", str(tmp_path)]) == 2
    assert "which is an input" in capsys.readouterr().err
    (out / "a.mp4").write_bytes(b"mine")
    assert main([*words, "--output", str(out)]) == 2
    assert (out / "a.mp4").read_bytes() == b"mine"
    assert main(["predict", "-", str(tmp_path / "a.*"), "--output", str(tmp_path / "glob"), "--no-draw"]) == 0
    assert sorted(p.name for p in (tmp_path / "glob").iterdir()) == [
        ".detkit.json", "a.jsonl", "images.json", "predictions.json",
    ]  # fmt: skip


def test_an_interrupt_leaves_a_video_that_plays(blobs: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, calls = blobs.network, []

    def interrupted(images: Any, sizes: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return network(images, sizes)

    monkeypatch.setattr(blobs, "network", interrupted)
    clip, out = write_video(tmp_path / "clip.mp4"), tmp_path / "out"
    assert predict(clip, out, "--batch", "4") == 130
    assert len(play(out / "clip.mp4")) == len(lines(out / "clip.jsonl")) == 8
    assert predict(clip, out) == 0


SLOWLY = """
import sys, time
from detkit import cli
from detkit.predict import cli as predict_cli
from detkit.predict.predictor import Predictor
from tests.predict.blobs import Blobs

class Slow(Blobs):
    def network(self, images, sizes):
        time.sleep(0.05)
        return super().network(images, sizes)

predict_cli.open_predictor = lambda args, views: Predictor(Slow(), batch_size=1, views=views)
sys.exit(cli.main(["predict", "-", sys.argv[1], "--output", sys.argv[2]]))
"""


@pytest.mark.slow
def test_ctrl_c_leaves_a_video_that_plays(tmp_path: Path) -> None:
    clip, out = write_video(tmp_path / "clip.mp4", times=[k / 10 for k in range(200)]), tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", SLOWLY, str(clip), str(out)], stderr=subprocess.PIPE, text=True)
    written = out / "clip.jsonl"
    until = time.monotonic() + 200
    while time.monotonic() < until and not (written.is_file() and len(written.read_text().splitlines()) >= 3):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert (process.returncode, "interrupted" in told) == (130, True), told
    count = len(lines(written))
    assert 3 <= count < 200
    assert abs(len(play(out / "clip.mp4")) - count) <= 1  # a line is written before its picture


def test_a_video_at_an_address_is_read(blobs: Blobs, web: Web, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", options={"movflags": "faststart"})
    web.files["/clip.mp4"] = clip.read_bytes()
    assert predict(f"{web.url}/clip.mp4", tmp_path / "out", "--no-draw") == 0
    assert len(lines(tmp_path / "out/clip.jsonl")) == 12


def test_a_camera_is_opened_by_its_number_and_shown_frame_by_frame(
    blobs: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No machine of the tests has a camera: a file that begins at 5 s stands in for one."""
    clip = write_video(tmp_path / "clip.mkv", times=[5 + k / 10 for k in range(6)])
    asked: list[Any] = []
    opened = av.open

    def open_camera(**given: Any) -> Any:
        asked.append(given)
        return opened(str(clip))

    monkeypatch.setattr(video.sys, "platform", "linux")
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(av, "open", lambda *words, **given: opened(*words, **given) if words else open_camera(**given))
        assert predict("0", tmp_path / "out") == 0
    assert asked == [{"file": "/dev/video0", "format": "v4l2", "timeout": (video.WAIT, video.WAIT)}]
    assert [line["time"] for line in lines(tmp_path / "out/camera-0.jsonl")] == pytest.approx(
        [k / 10 for k in range(6)]
    )
    assert {shape[0] for shape in blobs.shapes} == {1}
    capsys.readouterr()
    assert predict("7", tmp_path / "none") == 2
    assert "7: not a readable video: No such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "is_one", "name"),
    [
        ("clip.mp4", False, "clip"),
        ("0", True, "camera-0"),
        ("rtsp://10.0.0.1:554/live/main?user=x", True, "main"),
        ("https://example.org/a/clip.MP4?token=1", True, "clip"),
        ("https://example.org/a/photo.jpg", False, "photo"),
        ("udp://239.0.0.1:1234", True, "239.0.0"),
        ("x" * 300, False, "x" * 300),
        ("a\0b", False, "a\0b"),
    ],
)
def test_what_counts_as_a_video(text: str, is_one: bool, name: str) -> None:
    assert (is_video(text), video_name(text)) == (is_one, name)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, refuses: Refuses) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with refuses(ImportError):
        VideoReader("clip.mp4")
