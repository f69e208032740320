"""The server of the page: it takes an image and gives its detections as JSON."""

from __future__ import annotations

import contextlib
import importlib
import json
import secrets
import socket
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from detkit.data.datasets.images import ImageOptions, ImageTooLargeError, read_scaled
from detkit.predict.predictor import Predictor
from detkit.structures import ClassMap
from detkit.utils.console import printable
from detkit.utils.types import Tree
from detkit.visualize.colors import class_color, text_color

if TYPE_CHECKING:
    from fastapi import FastAPI, Request, Response

FORM = "multipart/form-data"
POLICY = "default-src 'none'; img-src blob: data:; style-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'"
AT_ONCE = 2
"""Images that are decoded and looked at at a time; the others wait, so that memory does not grow with requests."""
MOST_WAITING = 64
"""Requests that may wait, each with its upload in memory; more are answered with 503."""
OVERHEAD = 100_000
"""Bytes of an upload besides the image itself."""


@dataclass(frozen=True)
class Limits:
    """The largest upload and the largest image."""

    megabytes: float = 20.0
    megapixels: float = 50.0


class RefusedError(Exception):
    """An upload that is refused. status: of HTTP, 4xx."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def create_app(predictor: Predictor, limits: Limits | None = None, *, title: str = "detkit") -> FastAPI:
    """The application: `GET /` is the page, `POST /detect` takes a form with the file `image`.

    A refused upload gets a 4xx status and `{"error": "..."}`.
    """
    open_library("fastapi")
    open_library("python_multipart")
    import anyio
    from fastapi import FastAPI
    from fastapi.responses import HTMLResponse, JSONResponse

    limits = limits or Limits()
    app = FastAPI(title="detkit", docs_url=None, redoc_url=None, openapi_url=None)
    options = replace(predictor.image_options, max_megapixels=limits.megapixels, bad_images="error")
    page = page_text(predictor.classes, title)
    slots: list[anyio.CapacityLimiter] = []  # made in the event loop that uses it

    async def index(request: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        policy = f"{POLICY}; script-src 'nonce-{nonce}'"
        return HTMLResponse(page.replace("{nonce}", nonce), headers={"Content-Security-Policy": policy})

    async def detect(request: Request) -> Response:
        if not slots:
            slots.append(anyio.CapacityLimiter(AT_ONCE))
        try:
            content = await uploaded(request, limits)
            found = await anyio.to_thread.run_sync(detect_image, predictor, content, options, limiter=slots[0])
        except RefusedError as error:
            # The rest of the upload, which was not read, would otherwise be waited for.
            return JSONResponse({"error": str(error)}, status_code=error.status, headers={"Connection": "close"})
        return JSONResponse(found)

    # Plain routes: FastAPI's own would look the annotations up, which are imported for type checkers only.
    app.router.add_route("/", index, methods=["GET"])
    app.router.add_route("/detect", detect, methods=["POST"])
    return app


async def uploaded(request: Request, limits: Limits) -> bytes:
    """The bytes of the file `image` of a form; RefusedError for anything else, before more than the limit is read."""
    from starlette.datastructures import UploadFile
    from starlette.exceptions import HTTPException
    from starlette.formparsers import MultiPartException
    from starlette.requests import Request as PlainRequest

    most = int(limits.megabytes * 1e6)
    too_big = RefusedError(413, f"the upload is larger than {limits.megabytes:g} MB")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != FORM:
        raise RefusedError(415, f"the request must be a form ({FORM}) with the file `image`, not {kind or 'untyped'}")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > most + OVERHEAD:
        raise too_big
    received = 0

    async def receive() -> Any:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > most + OVERHEAD:
            raise too_big
        return message

    try:
        async with PlainRequest(request.scope, receive).form(max_files=1, max_fields=8) as form:
            file = form.get("image")
            if not isinstance(file, UploadFile):
                raise RefusedError(400, "the form has no file `image`")
            content = await file.read()
    except (HTTPException, MultiPartException, KeyError) as error:
        text = getattr(error, "detail", None) or getattr(error, "message", None) or "it can't be parsed"
        raise RefusedError(400, f"the form is damaged: {text}") from None
    if not content:
        raise RefusedError(400, "the file is empty")
    if len(content) > most:
        raise too_big
    return content


def detect_image(predictor: Predictor, content: bytes, options: ImageOptions) -> Tree:
    """The size of an image and its detections, best first; RefusedError for bytes that are no image."""
    try:
        image, _ = read_scaled(content, "the file", options)
    except ImageTooLargeError as error:
        text = str(error).partition(". Set ")[0].removeprefix("the file: ")
        raise RefusedError(413, text) from None
    except (ValueError, OSError, MemoryError) as error:
        raise RefusedError(415, " ".join(str(error).split()).replace("the file: not", "not")) from None
    (found,) = predictor(image)
    entries = [{"box": d.box, "score": d.score, "label": d.label, "name": d.name} for d in found]
    return {"width": image.width, "height": image.height, "detections": entries}


def page_text(classes: ClassMap, title: str) -> str:
    """The page, with the classes and their colours in it."""
    colors = [[hex_color(color), hex_color(text_color(color))] for color in map(class_color, range(len(classes)))]
    data = json.dumps({"title": printable(title), "colors": colors})
    page = files("detkit.predict.demo").joinpath("page.html").read_text(encoding="utf-8")
    return page.replace("{data}", data.replace("<", "\\u003c"))


def hex_color(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def serve(app: FastAPI, listening: socket.socket) -> None:
    """Answers requests until Ctrl-C."""
    uvicorn = open_library("uvicorn")
    config = uvicorn.Config(app, log_level="warning", access_log=False, limit_concurrency=MOST_WAITING)
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listening])


def open_library(name: str) -> Any:
    """A library of the extra `page`; ImportError that says how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"the page needs {name}: pip install 'detkit[page]' ({error})") from error
