"""Files that detkit writes: in place all at once, and never over one that it did not write.

A folder that detkit writes into holds `.detkit.json`, a ledger of what it wrote there with the SHA-256 of each
file. A file that is not in it, or was changed since, is the user's: it is neither replaced nor deleted. A JSON file
that a user names carries the same mark inside (`written_by`).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import math
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

from detkit.utils.console import printable, shorten_list, with_escapes
from detkit.utils.errors import explain_os_errors
from detkit.version import __version__

LEDGER, NOTES = ".detkit.json", ".detkit.notes"
MARK = "written_by"
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""How the path of `s3://bucket/run` begins; a Windows drive is a single letter."""
LONGEST_NAME = 255
"""Bytes of a file's name on the usual file systems."""


class ForeignFileError(ValueError):
    """A file or folder that detkit would replace, and did not write."""


class Ledger:
    """What detkit wrote into a folder: names, relative to it, and the SHA-256 of each file's content.

    The last two contents of a name are known, as a process may be killed between the note and the file. every: seconds
    between two writings of the complete list, for many files; until then, notes are lines of a second file.
    """

    def __init__(self, folder: str | Path, *, every: float = 0.0) -> None:
        self.folder = Path(folder)
        self._every, self._saved_at = every, -math.inf
        self.path = self.folder / LEDGER
        self.files: dict[str, list[str]] = {}
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
            content = json.loads(self.path.read_text(encoding="utf-8"))
            self.files = {str(k): [str(v) for v in hashes] for k, hashes in content["files"].items()}
        with contextlib.suppress(OSError, ValueError, TypeError):  # the last line may be cut off
            for line in (self.folder / NOTES).read_text(encoding="utf-8").splitlines():
                name, content_hash = json.loads(line)
                self._add(str(name), str(content_hash))

    def __contains__(self, path: str | Path) -> bool:
        return self._name(path) in self.files

    def owns(self, path: str | Path) -> bool:
        """Whether the file is as detkit wrote it."""
        noted = self.files.get(self._name(path))
        try:
            return noted is not None and file_sha256(self.folder / path) in noted
        except OSError:
            return False

    def note(self, path: str | Path, content_hash: str) -> None:
        """Records what is about to be written."""
        name = self._name(path)
        self._add(name, content_hash)
        if time.monotonic() - self._saved_at >= self._every:
            self.flush()
            return
        with (self.folder / NOTES).open("a", encoding="utf-8") as file:
            file.write(json.dumps([name, content_hash]) + "\n")

    def _add(self, name: str, content_hash: str) -> None:
        self.files[name] = [*self.files.get(name, [])[-1:], content_hash]

    def adopt(self, paths: Iterable[str | Path]) -> None:
        """Records files that are known to be detkit's from before there was a ledger."""
        for path in paths:
            if (self.folder / path).is_file() and not self.owns(path):
                self.note(path, file_sha256(self.folder / path))

    def forget(self, paths: Iterable[str | Path]) -> None:
        """Drops files that are gone."""
        for path in paths:
            self.files.pop(self._name(path), None)
        if self.path.is_file():
            self.flush()

    def _name(self, path: str | Path) -> str:
        return Path(os.path.relpath(self.folder / path, self.folder)).as_posix()

    def flush(self) -> None:
        """Writes all notes down."""
        self._saved_at = time.monotonic()
        content = {"detkit": __version__, "files": dict(sorted(self.files.items()))}
        with replacing(self.path) as file:
            file.write((json.dumps(content, indent=1) + "\n").encode())
        (self.folder / NOTES).unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[IO[bytes]]:
    """A file for writing that takes the place of `path` at the end, all at once; after an error, all is as before."""
    path = Path(path)
    temporary, file = _new_file(path.parent)
    try:
        with file:
            yield file
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _new_file(folder: Path) -> tuple[Path, IO[bytes]]:
    """A file that was not there, under a short name."""
    for number in range(10_000):
        path = folder / f".detkit-{os.getpid()}-{number}.tmp"
        with contextlib.suppress(FileExistsError):
            return path, path.open("xb")
    raise FileExistsError(f"{folder} is full of .detkit-*.tmp files: delete them")


def write_bytes(path: str | Path, content: bytes, *, ledger: Ledger | None = None) -> None:
    """In place all at once, and into the ledger of its folder."""
    if ledger is not None:
        ledger.note(Path(path).relative_to(ledger.folder), hashlib.sha256(content).hexdigest())
    with replacing(path) as file:
        file.write(content)


def write_text(path: str | Path, text: str, *, ledger: Ledger | None = None) -> None:
    """UTF-8, in place all at once. What UTF-8 lacks (half a surrogate pair) becomes an escape."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"), ledger=ledger)


def write_png(path: str | Path, save: Callable[..., object], *, ledger: Ledger | None = None) -> Path:
    """Writes what `save(file, format="png")` of PIL or matplotlib draws, and makes the folder; returns the path."""
    png, path = io.BytesIO(), Path(path)
    save(png, format="png")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, png.getvalue(), ledger=ledger)
    return path


def refuse_foreign(option: str, folder: str | Path, paths: Iterable[str | Path]) -> None:
    """Raises ForeignFileError with the files among `paths`, in the folder, that are there and not detkit's."""
    ledgers: dict[Path, Ledger] = {}
    foreign = []
    for path in (Path(folder) / name for name in paths):
        ledger = ledgers.setdefault(path.parent, Ledger(path.parent))
        if os.path.lexists(path) and not ledger.owns(path.name):
            foreign.append(path)
    if foreign:
        raise foreign_files_error(option, foreign)


def foreign_files_error(option: str, paths: Iterable[Path]) -> ForeignFileError:
    """The error that names files which detkit would have to replace."""
    names = shorten_list([printable(path) for path in paths], 10)
    return ForeignFileError(
        f"{option}: detkit did not write {names} (or it was changed since), so it does not overwrite it: "
        "choose another folder, or move the file"
    )


def write_marked_json(path: str | Path, content: Mapping[str, object]) -> None:
    """JSON for a file that a user names, with the mark by which detkit knows it again."""
    plain = json.loads(json.dumps(content))
    marked = {**plain, MARK: {"detkit": __version__, "sha256": _content_hash(plain)}}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(marked, indent=1) + "\n")


def is_marked(path: Path) -> bool:
    """Whether the file is JSON that `write_marked_json` wrote and nobody changed."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        mark = content.pop(MARK)
        return bool(mark["sha256"] == _content_hash(content))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


def _content_hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def check_output_file(
    option: str, path: str | Path, *, inputs: Iterable[str | Path] = (), owned: Callable[[Path], bool] = is_marked
) -> Path:
    """The path, if a file can be written there; ValueError otherwise, before anything is computed.

    option: what the message begins with, as in `--json`. inputs: files that are read. owned: whether detkit wrote a
    file, which it may then replace.
    """
    path = Path(path)
    if not str(path).strip() or path.name in ("", ".", ".."):
        raise ValueError(f"{option}: {str(path)!r} is not a file name")
    with explain_os_errors(option, path):
        exists = os.path.lexists(path)
        if path.is_dir():
            raise ForeignFileError(f"{option}: {printable(path)} is a folder: name a file")
        if exists:
            refuse_inputs(option, [path], inputs)
            if not path.is_file() or not owned(path):
                raise ForeignFileError(
                    f"{option}: {printable(path)} exists, and detkit did not write it (or it was changed since): "
                    "choose another name, or move the file"
                )
        check_can_write(option, path.parent)
    return path


def refuse_inputs(option: str, outputs: Iterable[Path], inputs: Iterable[str | Path]) -> None:
    """Raises ForeignFileError for an output that is one of the inputs, by whatever name or link."""
    read = {_identity(Path(path)): path for path in inputs}
    read.pop(None, None)
    for path in outputs:
        if (identity := _identity(path)) is not None and identity in read:
            raise ForeignFileError(
                f"{option}: {printable(path)} would overwrite {printable(read[identity])}, which is an input: "
                "choose another path"
            )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def check_can_write(option: str, folder: str | Path) -> None:
    """Raises ValueError or OSError unless files can be made in the folder, which need not be there yet."""
    folder = Path(folder)
    if ADDRESS.match(str(folder)) and not os.path.lexists(folder.parts[0]):
        raise ValueError(f"{option}: {printable(folder)}: detkit writes into folders of this machine: choose one")
    with explain_os_errors(option, folder):
        there = folder
        while not os.path.lexists(there) and there != there.parent:
            there = there.parent
        if not there.is_dir():
            what = "is a broken link" if there.is_symlink() else "is a file, not a folder"
            raise ForeignFileError(f"{option}: {printable(there)} {what}: choose another path")
        if not os.access(there, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(there))


def short_name(stem: str, ending: str) -> str:
    """`stem + ending`, the stem cut off where a file's name would be too long."""
    room = LONGEST_NAME - len(os.fsencode(ending))
    raw = os.fsencode(stem)
    if len(raw) > room:
        stem = raw[:room].decode("utf-8", "ignore")
    return stem + ending


def json_name(name: str | Path) -> dict[str, str]:
    """`file_name` of an entry in a JSON file. A name that is not UTF-8 is shown with escapes, and `file_name_hex`
    holds its bytes."""
    text = str(name)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return {"file_name": with_escapes(text), "file_name_hex": os.fsencode(text).hex()}
    return {"file_name": text}
