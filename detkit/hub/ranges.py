"""Parts of remote files, read through fsspec without a copy: what a file is, its bytes by position, errors in words."""

from __future__ import annotations

import errno
import io
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from detkit.hub.download import ATTEMPTS, TIMEOUT, FetchError
from detkit.hub.object_store import file_system
from detkit.utils.console import printable
from detkit.version import __version__

log = logging.getLogger("detkit")
T = TypeVar("T")
PAUSE = 0.5
"""Seconds before the second attempt; each further one waits twice as long."""
THREADS = 8
"""Requests at a time where many files are looked up."""
OPEN_FILES = 128
"""Files that a process keeps open, with their connections."""
TAGS = ("ETag", "etag", "md5Hash", "content_md5", "blob_id", "generation", "Content-MD5", "Digest")
TIMES = ("Last-Modified", "LastModified", "last_modified", "updated", "mtime", "created")
"""What file systems call the version of a file, and the time of its last change."""
HTTP = ("http://", "https://")


class NoAccess(FetchError):
    """A file that the server does not give to this user."""


class RemoteFile(NamedTuple):
    """A remote file in one version. address, size in bytes; version: empty if the server states none."""

    address: str
    size: int
    version: str
    tag: str = ""
    changed: str = ""
    """ETag and date as a web server states them, to ask for this version."""

    def __str__(self) -> str:
        return self.address


def look_up(addresses: Sequence[str]) -> list[list[RemoteFile]]:
    """The file at each address, or the files below it for a folder, in the order of their names.

    Raises FileNotFoundError and FetchError that name the address, ImportError that names the extra.
    """
    connections = _connections()
    with ThreadPoolExecutor(max(1, min(THREADS, len(addresses)))) as pool:
        return list(pool.map(lambda address: _look_up(connections, address), addresses))


def read_range(file: RemoteFile, start: int, count: int) -> bytes:
    """`count` bytes of a file from `start` on.

    A connection that breaks is tried again, `ATTEMPTS` times in all. Raises FetchError that names the address, also for
    a file that is not the version that was looked up, and for a server that sends no parts of files.
    """
    try:
        content: bytes = _attempts(file.address, lambda: _connections().read(file, start, count))
    except FileNotFoundError as error:
        raise changed(file, "it is not there any more") from error
    if len(content) != count:
        raise changed(file, f"{len(content)} bytes came of {count} at {start}")
    return content


class RangeReader(io.RawIOBase):
    """A remote file as a file object, each reading of which is one request. Wrap it for reading ahead."""

    def __init__(self, file: RemoteFile) -> None:
        super().__init__()
        self.file, self.place = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.place = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.place, io.SEEK_END: self.file.size}[whence])
        return self.place

    def readinto(self, buffer: Any) -> int:
        count = max(0, min(len(buffer), self.file.size - self.place))
        if count:
            buffer[:count] = read_range(self.file, self.place, count)
        self.place += count
        return count


def changed(file: RemoteFile, why: str) -> FetchError:
    return FetchError(
        f"{printable(file)} is not the file that was found at the start ({why}): it was replaced. Start again, so that "
        "its index is made for what is there now, and keep shards unchanged while they are read"
    )


class _Connections:
    """File systems and open files of one process, and who uses them: one thread at a time for each file."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.lock = threading.RLock()
        self.systems: dict[tuple[str, str], Any] = {}
        self.files: OrderedDict[RemoteFile, tuple[Any, threading.Lock]] = OrderedDict()

    def system(self, address: str) -> tuple[Any, str]:
        """The file system of an address, one for each server, and the path in it."""
        server = urlsplit(address)[:2]
        with self.lock:
            if server not in self.systems:
                self.systems[server], path = file_system(address, skip_instance_cache=True, **_options(address))
                return self.systems[server], path
        return self.systems[server], self.systems[server]._strip_protocol(address)

    def read(self, file: RemoteFile, start: int, count: int) -> bytes:
        with self.lock:
            if file not in self.files:
                self.files[file] = self.open(file), threading.Lock()
            self.files.move_to_end(file)
            while len(self.files) > OPEN_FILES:
                self.files.popitem(last=False)
            handle, lock = self.files[file]
        with lock:
            handle.seek(start)
            content: bytes = handle.read(count)
        return content

    def open(self, file: RemoteFile) -> Any:
        """The file for reading; FetchError if it is not the version that was looked up."""
        system, path = self.system(file.address)
        info = system.info(path)
        now = _file(file.address, info)
        if (now.size, now.version) != (file.size, file.version):
            raise changed(file, f"{_words(now)} instead of {_words(file)}")
        more = {"size": file.size, "headers": _conditions(file)} if file.address.startswith(HTTP) else {}
        return system.open(path, "rb", cache_type="none", **more)


_held: list[_Connections] = []
"""Of this process, last; those before are its parents', and kept because closing them would disturb a parent."""


def _connections() -> _Connections:
    if not _held or _held[-1].process != os.getpid():
        _held.append(_Connections())
    return _held[-1]


def _options(address: str) -> dict[str, Any]:
    """How a web server is asked: by detkit's name, through the proxy of the environment, and not endlessly."""
    if not address.startswith(HTTP):
        return {}
    try:
        import aiohttp
    except ImportError:
        return {}  # which fsspec reports
    limits = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT, sock_read=TIMEOUT)
    return {"client_kwargs": {"timeout": limits, "trust_env": True, "headers": {"User-Agent": f"detkit/{__version__}"}}}


def _conditions(file: RemoteFile) -> dict[str, str]:
    """Headers by which a web server refuses to send another version; a weak ETag can't be asked for."""
    headers = {"Accept-Encoding": "identity"}
    if file.tag and not file.tag.startswith("W/"):
        return {**headers, "If-Match": file.tag}
    return {**headers, "If-Unmodified-Since": file.changed} if file.changed else headers


def _look_up(connections: _Connections, address: str) -> list[RemoteFile]:
    def ask() -> RemoteFile | list[str]:
        system, path = connections.system(address)
        info = system.info(path)
        if info.get("type") != "directory":
            return _file(address, info)
        names = sorted(system.find(path))
        system.invalidate_cache()  # a listing may state another kind of version than the file itself
        return [_address_below(address, path, name) for name in names]

    found = _attempts(address, ask)
    return [found] if isinstance(found, RemoteFile) else [file for files in look_up(found) for file in files]


def _address_below(folder: str, path: str, name: str) -> str:
    """The address of a file of a folder, by the paths that the file system has for both."""
    inner = name.strip("/").removeprefix(path.strip("/"))
    return f"{folder.rstrip('/')}/{inner.lstrip('/')}"


def _file(address: str, info: Mapping[str, Any]) -> RemoteFile:
    if info.get("size") is None:
        raise FetchError(f"{printable(address)}: the server does not state the size of the file: {COPY}")
    if info.get("partial") is False:
        raise FetchError(f"{printable(address)}: {NO_RANGES}")
    final = str(info.get("url") or address)
    if address.startswith("https:") and not final.startswith("https:"):
        raise FetchError(f"{printable(address)}: the server redirects to {printable(final)}, which is not encrypted")
    found = [f"{key} {info[key]}" for key in (*TAGS, *TIMES) if info.get(key)]
    return RemoteFile(
        address, int(info["size"]), found[0] if found else "",
        str(info.get("ETag") or ""), str(info.get("Last-Modified") or ""),
    )  # fmt: skip


def _words(file: RemoteFile) -> str:
    return f"{file.size} bytes, {file.version or 'no version'}"


COPY = "download it, and give the path of the copy"
NO_RANGES = f"the server sends only whole files, and none of their parts (it knows no Range requests): {COPY}"
MEANINGS = {
    401: "it needs a login",
    403: "the server does not give it to everybody; it may need a login",
    429: "too many requests: wait a little, or use fewer loader processes",
}
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)


def _attempts(address: str, ask: Callable[[], T]) -> T:
    """What `ask` gives; connections that break and servers that are busy are asked again."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return ask()
        except (FetchError, ImportError):
            raise
        except Exception as error:  # each file system has errors of its own
            cause: BaseException = error
            if address.startswith(HTTP) and isinstance(error, FileNotFoundError):
                cause = error.__cause__ or error  # fsspec says so of whatever a web server answers
            if (final := _explained(address, cause)) is not None:
                raise final from error
            reason = _reason(cause)
            if attempt == ATTEMPTS:
                text = f"{printable(address)} can't be read: {reason}; tried {ATTEMPTS} times"
                raise FetchError(f"{text}. Start again once the server answers (a training with --resume)") from error
        log.warning("%s: %s; trying again", printable(address), reason)
        time.sleep(PAUSE * 2 ** (attempt - 1))
    raise AssertionError("the last attempt returns or raises")


def _explained(address: str, error: BaseException) -> OSError | None:
    """The error for what another attempt would not change; None for what it may."""
    status, where = _status(error), printable(address)
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return FileNotFoundError(f"{where}: the server has no such file: check the address")
    if status == 412 or getattr(error, "errno", None) == errno.EBUSY:
        return FetchError(str(changed(RemoteFile(address, 0, ""), "its version is another one")))
    if isinstance(error, ValueError) and "range requests" in str(error):
        return FetchError(f"{where}: {NO_RANGES}")
    if status in (401, 403) or isinstance(error, PermissionError):
        return NoAccess(f"{where} can't be read: {_reason(error)}")
    if status is not None and status not in TRANSIENT:
        return FetchError(f"{where} can't be read: {_reason(error)}")
    if isinstance(error, ValueError):  # of the address itself
        return FetchError(f"{where} can't be read: {error}")
    return None


def _status(error: BaseException) -> int | None:
    """The HTTP status in an error of aiohttp, gcsfs or httpx; None for another error."""
    for holder, name in ((error, "status"), (getattr(error, "response", None), "status_code"), (error, "code")):
        if isinstance(value := getattr(holder, name, None), int):
            return value
    return None


def _reason(error: BaseException) -> str:
    """What broke, in words."""
    status = _status(error)
    if status is not None:
        meaning = MEANINGS.get(status, "a fault of the server" if status >= 500 else "")
        return f"HTTP {status}" + (f" ({meaning})" if meaning else "")
    if isinstance(error, TimeoutError):
        return f"no answer for {TIMEOUT:g} seconds"
    name, what = type(error).__name__, "no access" if isinstance(error, PermissionError) else "the connection failed"
    text = str(error).strip().partition("\n")[0][:200]
    return f"{what} ({name}: {text})" if text else f"{what} ({name})"
