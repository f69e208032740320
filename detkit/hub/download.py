"""One file from the web: resumed where it broke off, checked, then put in its place all at once."""

from __future__ import annotations

import contextlib
import http.client
import logging
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Any

from detkit.hub.cache import locked
from detkit.utils.console import bar_stream, printable
from detkit.utils.errors import find_disk_full
from detkit.utils.outputs import file_sha256, write_text
from detkit.version import __version__

log = logging.getLogger("detkit")

TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as broken."""
ATTEMPTS = 4
"""Connections for one file, each of which resumes the one before."""
BLOCK = 1 << 18
PAGE = re.compile(rb"\s*(<!doctype html|<html)", re.IGNORECASE)
BROKEN = (TimeoutError, ConnectionError, http.client.HTTPException)


class FetchError(OSError):
    """A file that can't be fetched: what is wrong, and where to put it by hand."""


class _SecureRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but not from https to anything else."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise FetchError(f"the server redirects to {printable(newurl)}, which is not encrypted")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(url: str, path: Path, sha256: str = "") -> Path:
    """Downloads a file, unless it is there, and returns its path.

    Of several processes one downloads and the others wait. A broken download stays beside it as NAME.part and is
    resumed, also by a later call. NAME.sha256 records what came, and is compared whenever the file is used.

    Args:
        url: http, https or ftp address.
        path: where the file lies afterwards.
        sha256: first digits of the SHA-256 that it must have; empty where none is published.

    Raises FetchError that names the address, what is wrong, and where to put the file; ValueError for a file in the
    cache that is not what it should be.
    """
    if not path.is_file():
        with locked(path):
            if not path.is_file():
                _download(url, path, sha256)  # which has compared what came
                return path
    check(path, url, sha256)
    return path


def check(path: Path, url: str, sha256: str = "") -> None:
    """Raises ValueError unless a file of the cache has the published SHA-256, and the one that was recorded."""
    record = record_of(path)
    known = [sha256] if sha256 else []
    with contextlib.suppress(OSError, UnicodeError):
        known += record.read_text(encoding="ascii").split()[:1]
    digest = file_sha256(path) if known else ""
    if wrong := [value for value in known if not digest.startswith(value)]:
        raise ValueError(
            f"{printable(path)} is not the file of {printable(url)}: its SHA-256 begins with {digest[:12]}, not with "
            f"{wrong[0][:12]}. Delete it, and detkit downloads it again"
        )


def record_of(path: Path) -> Path:
    """The file with the SHA-256 of a download, as sha256sum writes it."""
    return path.with_name(f"{path.name}.sha256")


def _download(url: str, path: Path, sha256: str) -> None:
    part = path.with_name(f"{path.name}.part")
    log.info("downloading %s to %s", url, path.parent)
    try:
        _receive_all(url, part)
    except FetchError as error:
        _forget(part)
        raise FetchError(_describe(url, path, str(error))) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        if find_disk_full(error) is not None:
            raise
        raise FetchError(_describe(url, path, _reason(error))) from error
    digest = file_sha256(part)
    if not digest.startswith(sha256):
        _forget(part)
        reason = f"the SHA-256 of what came begins with {digest[: len(sha256)]}, not with {sha256}: it was deleted"
        raise FetchError(_describe(url, path, reason))
    write_text(record_of(path), f"{digest}  {path.name}\n")
    part.replace(path)
    _forget(part)
    log.info("%s: %.1f MB, SHA-256 %s", path, path.stat().st_size / 1e6, digest)


def _receive_all(url: str, part: Path) -> None:
    """Connects until the file is complete; gives up after `ATTEMPTS` connections that broke."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _receive(url, part)
        except urllib.error.HTTPError as error:
            if error.code not in (429, 500, 502, 503, 504) or attempt == ATTEMPTS:
                raise
        except BROKEN as error:
            if attempt == ATTEMPTS:
                raise
            log.warning("%s: %s; resuming", url, _reason(error))


def _receive(url: str, part: Path) -> None:
    """One connection, which resumes what lies in `part` if the server still has the same file."""
    have = part.stat().st_size if part.is_file() else 0
    validator = _validator_of(part)
    known = validator.read_text(encoding="utf-8") if have and validator.is_file() else ""
    headers = {"User-Agent": f"detkit/{__version__}", "Accept-Encoding": "identity"}
    if known:
        headers |= {"Range": f"bytes={have}-", "If-Range": known}
    opener = urllib.request.build_opener(_SecureRedirects)
    try:
        response = opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        _forget(part)  # longer than the file: begin again
        return _receive(url, part)
    with response:
        resumed = getattr(response, "status", None) == 206
        start = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", "")) if resumed else None
        if resumed and (start is None or int(start[1]) != have):
            _forget(part)
            raise ConnectionError("the server sent another part of the file than it was asked for")
        if not resumed:
            _forget(part)
        _note_validator(response.headers, validator)
        length = response.headers.get("Content-Length")
        total = int(length) + (have if resumed else 0) if length is not None else None
        _copy(response, part, have if resumed else 0, total, is_page=url.lower().endswith((".html", ".htm")))


def _copy(response: Any, part: Path, have: int, total: int | None, *, is_page: bool) -> None:
    from tqdm import tqdm

    name, stream = part.name.removesuffix(".part"), bar_stream()
    with part.open("ab") as file, tqdm(
        total=total, initial=have, unit="B", unit_scale=True, desc=name, disable=None, leave=False, file=stream
    ) as bar:  # fmt: skip
        while block := _read(response, file):
            if not have and not is_page and PAGE.match(block):
                raise FetchError("the server sent a web page instead of the file: the address may need a login")
            file.write(block)
            have += len(block)
            bar.update(len(block))
    if total is not None and have != total:
        raise ConnectionError(f"the connection broke after {have} of {total} bytes")
    if not have:
        raise FetchError("the server sent an empty file")


def _read(response: Any, file: IO[bytes]) -> bytes:
    """The next bytes; what came before the connection broke is kept."""
    try:
        block: bytes = response.read1(BLOCK) if hasattr(response, "read1") else response.read(BLOCK)
        return block
    except http.client.IncompleteRead as error:
        file.write(error.partial)
        raise ConnectionError(f"the connection broke after {file.tell()} bytes") from error


def _validator_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.version")


def _note_validator(headers: Any, validator: Path) -> None:
    """Keeps what tells one version of the file from another: a strong ETag, or the date."""
    tag = headers.get("ETag", "")
    known = tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")
    if known:
        validator.write_text(known, encoding="utf-8")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _validator_of(part).unlink(missing_ok=True)


def _reason(error: BaseException) -> str:
    """What broke, in words."""
    if isinstance(error, urllib.error.HTTPError):
        meaning = {
            401: "the file needs a login",
            403: "the server does not give it to everybody; it may need a login",
            404: "the server has no such file",
            410: "the server has no such file any more",
            429: "too many requests: wait a little",
        }.get(error.code, "a fault of the server" if error.code >= 500 else "")
        return f"HTTP {error.code} {error.reason}" + (f" ({meaning})" if meaning else "")
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        return _reason(error.reason)
    if isinstance(error, TimeoutError):
        return f"no answer for {TIMEOUT:g} seconds"
    return getattr(error, "strerror", None) or str(error).strip() or type(error).__name__


def _describe(url: str, path: Path, reason: str) -> str:
    """The error of a download: address, reason, and where the file goes by hand."""
    part = path.with_name(f"{path.name}.part")
    size = part.stat().st_size if part.is_file() else 0
    kept = f"{size} bytes are kept; the next try resumes there. " if size else ""
    return (
        f"{printable(url)} can't be fetched: {reason}. {kept}Without a network, get the file elsewhere and put it at "
        f"{printable(path)}"
    )
