"""A web server on the loopback interface that can resume, break off, stall, redirect and refuse."""

from __future__ import annotations

import hashlib
import http.server
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

Answer = Callable[[Any], None]
"""Takes the handler of one request and answers it."""


class Web:
    """`web.files["/a.bin"] = b"..."` is served at `web.url + "/a.bin"`; `web.answers[path]` answers in another way.

    requests: (method, path, Range header) of all requests so far. breaks: path -> number of bytes after which the
    connection is cut, once for each entry.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.files: dict[str, bytes] = {}
        self.answers: dict[str, Answer] = {}
        self.breaks: dict[str, list[int]] = {}
        self.requests: list[tuple[str, str, str]] = []
        self.has_tags = True
        self.has_ranges = True
        self.has_conditions = True
        self.fallback: Answer | None = None

    def gets(self, path: str) -> list[str]:
        """The Range headers of the downloads of a path."""
        return [sent for method, asked, sent in self.requests if method == "GET" and asked == path]


@contextmanager
def serving() -> Iterator[Web]:
    """Runs a server while the context is active."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            respond(web, self)

        do_HEAD = do_POST = do_PUT = do_GET

    server = Server(("127.0.0.1", 0), Handler)
    web = Web(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True)
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()


class Server(http.server.ThreadingHTTPServer):
    """One that says nothing of clients that hang up."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def respond(web: Web, handler: Any, *, again: bool = False) -> None:
    """Answers one request. again: a part of the server has put the file there for it."""
    path = handler.path.partition("?")[0]
    if not again:
        web.requests.append((handler.command, handler.path, handler.headers.get("Range", "")))
        if path in web.answers:
            return web.answers[path](handler)
        if web.fallback is not None:
            return web.fallback(handler)
    if path not in web.files:
        return status(404)(handler)
    content = web.files[path]
    tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    if web.has_conditions and handler.headers.get("If-Match", tag) != tag:
        return status(412)(handler)
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range", "")) if web.has_ranges else None
    start = int(asked[1]) if asked and handler.headers.get("If-Range", tag) == tag else 0
    length = len(content)
    if asked and asked[2]:
        content = content[: int(asked[2]) + 1]
    if start > len(content) or (asked and start == len(content)):
        return status(416)(handler)
    part = bool(start or (asked and asked[2]))
    handler.send_response(206 if part else 200)
    more = getattr(handler, "more_headers", {})
    for key, value in more.items():
        handler.send_header(key, value)
    if web.has_tags and "ETag" not in more:
        handler.send_header("ETag", tag)
    if part:
        handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{length}")
    handler.send_header("Content-Length", str(len(content) - start))
    handler.end_headers()
    if handler.command == "HEAD":
        return None
    stops = web.breaks.get(path)
    end = start + stops.pop(0) if stops else len(content)
    with suppress(ConnectionError):  # the client has seen enough
        handler.wfile.write(content[start:end])
    if end < len(content):
        handler.wfile.flush()
        handler.close_connection = True
        handler.connection.close()
    return None


def status(code: int) -> Answer:
    """An answer without the file."""

    def answer(handler: Any) -> None:
        handler.send_response(code)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def text(content: bytes, kind: str = "text/html") -> Answer:
    """An answer with other content."""

    def answer(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def redirect(url: str) -> Answer:
    """An answer that sends the client elsewhere."""

    def answer(handler: Any) -> None:
        handler.send_response(302)
        handler.send_header("Location", url)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def stall(seconds: float) -> Answer:
    """Headers of a file of which no byte comes in time."""

    def answer(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        handler.wfile.flush()
        time.sleep(seconds)

    return answer
