"""The demo page: what the server refuses, what it loses under load (nothing), and what a browser shows."""

from __future__ import annotations

import io
import os
import socket
import struct
import sys
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detkit.cli import main
from detkit.predict.demo import app as demo
from detkit.predict.demo.cli import listen
from detkit.predict.predictor import Predictor
from detkit.structures import ClassMap
from tests.predict.blobs import Blobs, painted
from tests.refusals import Refuses

httpx: Any = pytest.importorskip("httpx")
uvicorn: Any = pytest.importorskip("uvicorn")
LIMITS = demo.Limits(megabytes=0.7, megapixels=0.25)
NASTY = "<b>red</b>\"'&</script>"


def encoded(pixels: Any, kind: str = "png") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format=kind)
    return file.getvalue()


SQUARES = painted(120, 90, [("red", (10, 20, 40, 50)), ("green", (60, 10, 110, 80))])
SQUARES[60:80, 10:30, 2] = 120  # a blue one of score 0.47


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The page with the network of squares, on a free port."""
    predictor = Predictor(Blobs(classes=ClassMap((NASTY, "green", "blue"), (1, 2, 3))))
    with listen("127.0.0.1", 0) as listening:
        config = uvicorn.Config(demo.create_app(predictor, LIMITS, title=NASTY), log_level="error")
        running = uvicorn.Server(config)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        running.should_exit = True
        thread.join(10)


def post(url: str, content: bytes, name: str = "image", kind: str = "image/png") -> Any:
    return httpx.post(f"{url}/detect", files={name: ("x.png", content, kind)}, timeout=30)


def test_an_image_gives_its_size_and_its_detections(server: str) -> None:
    answer = post(server, encoded(SQUARES))
    assert answer.status_code == 200
    body = answer.json()
    assert (body["width"], body["height"]) == (120, 90)
    assert [(d["name"], d["label"], d["box"]) for d in body["detections"]] == [
        (NASTY, 0, [10, 20, 40, 50]), ("green", 1, [60, 10, 110, 80]), ("blue", 2, [10, 60, 30, 80]),
    ]  # fmt: skip
    assert [d["score"] for d in body["detections"]] == pytest.approx([230 / 256, 230 / 256, 120 / 256])
    for kind in ("bmp", "tiff", "webp", "gif"):
        assert post(server, encoded(SQUARES, kind), kind="application/octet-stream").status_code == 200


def test_a_photo_is_looked_at_upright(server: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees clockwise when shown
    file = io.BytesIO()
    Image.fromarray(SQUARES).save(file, format="png", exif=exif)
    body = post(server, file.getvalue()).json()
    assert (body["width"], body["height"]) == (90, 120)


def huge_png(width: int, height: int) -> bytes:
    """A PNG of few bytes that says it has many pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


NOISE = np.random.default_rng(0).integers(0, 256, (490, 500, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"hello", 415, "not a readable image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "not a readable image"),
        (b"", 400, "the file is empty"),
        (encoded(SQUARES)[:-40], 415, "not a readable image"),
        (encoded(SQUARES, "jpeg")[:300], 415, "not a readable image"),
        (huge_png(60_000, 60_000), 413, "3600.0 megapixels (60000x60000), the limit is 0.25"),
        (huge_png(501, 500), 413, "megapixels (501x500), the limit is 0.25"),
        (huge_png(0, 5), 415, "not a readable image"),
        (encoded(NOISE), 413, "the upload is larger than 0.7 MB"),
    ],
    ids=["text", "svg", "empty", "cut png", "cut jpeg", "bomb", "a pixel too wide", "no width", "too many bytes"],
)
def test_bad_uploads_are_refused_in_words(server: str, content: bytes, status: int, words: str) -> None:
    answer = post(server, content)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert words in answer.json()["error"]
    assert "--max-megapixels" not in answer.json()["error"]
    assert post(server, encoded(SQUARES)).status_code == 200


def test_requests_that_are_no_form_with_a_file_are_refused(server: str) -> None:
    image = encoded(SQUARES)
    detect = f"{server}/detect"
    form = "multipart/form-data"
    for answer, status, words in (
        (httpx.post(detect), 415, "must be a form"),
        (httpx.post(detect, content=image, headers={"content-type": "image/png"}), 415, "not image/png"),
        (httpx.post(detect, json={"image": "x"}), 415, "not application/json"),
        (httpx.post(detect, data={"image": "x"}), 415, "must be a form"),
        (httpx.post(detect, content=b"x", headers={"content-type": form}), 400, "the form is damaged"),
        (httpx.post(detect, content=b"x", headers={"content-type": f"{form}; boundary=b"}), 400, ""),
        (post(server, image, name="picture"), 400, "no file `image`"),
        (httpx.post(detect, files=[("image", ("a", image)), ("image", ("b", image))]), 400, "the form is damaged"),
        (httpx.post(detect, files={"image": (None, "text")}), 400, "no file `image`"),
    ):
        assert answer.status_code == status, answer.text
        assert words in answer.json()["error"]
    assert httpx.get(detect).status_code == 405
    assert httpx.get(f"{server}/nothing").status_code == 404
    assert httpx.get(f"{server}/docs").status_code == 404


def test_an_endless_upload_without_a_length_is_cut_off(server: str) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
        while sent < 50_000_000:
            sent += 100_000
            yield bytes(100_000)

    headers = {"content-type": "multipart/form-data; boundary=b"}
    try:
        answer = httpx.post(f"{server}/detect", content=endless(), headers=headers)
        assert answer.status_code == 413
    except httpx.TransportError:  # the server hung up while the client was still sending
        pass
    assert sent < 20_000_000
    assert post(server, encoded(SQUARES)).status_code == 200


def resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="needs /proc")
def test_two_hundred_requests_sixteen_at_a_time_lose_nothing_and_keep_memory_flat(server: str) -> None:
    def ask(number: int) -> tuple[int, Any, Any]:
        x, y = 10 * (number % 25), 5 * (number // 25)
        answer = client.post(
            f"{server}/detect",
            files={"image": ("x.bmp", encoded(painted(300, 250, [("green", (x, y, x + 8, y + 4))]), "bmp"))},
        )
        (found,) = answer.json()["detections"] if answer.status_code == 200 else [{"box": answer.text}]
        return answer.status_code, found["box"], [x, y, x + 8, y + 4]

    with httpx.Client(timeout=60, limits=httpx.Limits(max_connections=16)) as client, ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(40)))
        before = resident()
        answers = list(pool.map(ask, range(200)))
    assert all(status == 200 and got == want for status, got, want in answers)
    assert resident() - before < 30e6  # 200 images of 0.2 MB, as files and as pixels, would be 90 MB


def test_the_page_needs_nothing_beside_it_and_holds_no_markup_of_names(server: str) -> None:
    answer = httpx.get(server)
    assert answer.status_code == 200
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "http://" not in answer.text
    assert "https://" not in answer.text
    assert "<b>red" not in answer.text
    assert answer.text.count("</script>") == 2


@pytest.fixture
def page(browser: Any, server: str) -> Iterator[Any]:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.said = []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("dialog", lambda dialog: (page.said.append("dialog"), dialog.dismiss()))
    page.on("request", lambda request: request.url.startswith((server, "data:")) or page.said.append(request.url))
    page.goto(server)
    yield page
    page.close()


def status(page: Any, text: str) -> Any:
    page.wait_for_function("text => document.getElementById('status').textContent.includes(text)", arg=text)
    return page.locator("#status")


def pixel(page: Any, x: int, y: int) -> list[int]:
    return page.evaluate("([x, y]) => [...canvas.getContext('2d').getImageData(x, y, 1, 1).data].slice(0, 3)", [x, y])


def upload(content: bytes, name: str = "a.png") -> Any:
    return {"name": name, "mimeType": "image/png", "buffer": content}


def test_a_person_uploads_an_image_and_moves_the_slider(page: Any) -> None:
    assert page.title() == f"detkit: {NASTY}"
    page.set_input_files("#file", upload(encoded(SQUARES)))
    status(page, "2 of 3 objects in 120 x 90 pixels")
    assert page.locator("#list li").all_inner_texts() == [f"{NASTY} 0.90", "green 0.90"]
    assert pixel(page, 61, 79) == [213, 94, 0]  # the second class's colour at the edge of its box
    assert pixel(page, 85, 60) == [0, 230, 0]  # and the image inside
    assert pixel(page, 10, 70) == [0, 0, 120]  # no box around what is below the slider
    page.locator("#score").fill("0.3")
    status(page, "3 of 3 objects")
    assert pixel(page, 10, 79) == [0, 158, 115]
    page.locator("#score").focus()
    for _ in range(65):
        page.keyboard.press("ArrowRight")
    status(page, "0 of 3 objects")
    assert page.locator("#shown").inner_text() == "0.95"
    assert [text for text in page.said if "willReadFrequently" not in text] == []  # of this test's reading of pixels


def test_a_person_drops_an_image_on_a_narrow_screen(page: Any) -> None:
    page.set_viewport_size({"width": 400, "height": 800})
    data = page.evaluate_handle(
        """bytes => { const all = new DataTransfer();
           all.items.add(new File([new Uint8Array(bytes)], "wide.png", {type: "image/png"})); return all; }""",
        list(encoded(painted(600, 60, [("blue", (500, 10, 590, 50))]))),
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": data})
    status(page, "1 of 1 object in 600 x 60 pixels")
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert page.said == []


def test_a_person_reads_why_a_file_is_refused(page: Any) -> None:
    page.set_input_files("#file", upload(encoded(SQUARES)))
    status(page, "of 3 objects")
    page.set_input_files("#file", upload(b"hello", "notes.png"))
    shown = status(page, "not a readable image")
    assert shown.get_attribute("class") == "bad"
    assert page.evaluate("canvas.width") == 0
    page.set_input_files("#file", upload(huge_png(60_000, 60_000)))
    status(page, "the limit is 0.25")
    page.set_input_files("#file", upload(encoded(SQUARES, "tiff"), "x.tiff"))  # which Chromium can't show
    status(page, "2 of 3 objects")
    assert pixel(page, 85, 60) == [0x88] * 3
    assert [text for text in page.said if "status of 4" not in text] == []


def test_the_command_checks_its_words_before_it_loads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], refuses: Refuses
) -> None:
    for words, text in (
        (["--port", "70000"], "--port: 70000 must be between 0 and 65535"),
        (["--max-megabytes", "0"], "--max-megabytes: 0.0 must be a positive number"),
        (["--host", "no such host"], "--host no such host --port 8000:"),
        (["--port", "0"], "there is no checkpoint or run folder"),
    ):
        assert main(["demo", str(tmp_path / "no-run"), *words]) == 2
        assert text.lower() in capsys.readouterr().err.lower()
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with refuses(ValueError, hide=str(port)):
            listen("127.0.0.1", port)


def test_the_command_serves_a_run_on_this_machine_alone(
    tiny: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def ask(app: Any, listening: socket.socket) -> None:
        host, port = listening.getsockname()
        running = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        asked.append((host, post(f"http://127.0.0.1:{port}", encoded(NOISE[:80, :80])).json()))
        running.should_exit = True
        thread.join(10)

    monkeypatch.setattr(demo, "serve", ask)
    assert main(["demo", str(tiny), "--port", "0", "--device", "cpu"]) == 0
    ((host, body),) = asked
    assert host == "127.0.0.1"
    assert len(body["detections"]) == 7
    assert {d["name"] for d in body["detections"]} <= {"cat", "dog"}
    assert capsys.readouterr().out.startswith("http://127.0.0.1:")


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, refuses: Refuses) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with refuses(ImportError):
        demo.create_app(Predictor(Blobs()))
