"""Files that may lie elsewhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

FILE, FILE_OR_NAME = "a path", "a path or a name"
PathStr = Annotated[str, FILE]
"""An argument of a part that is a file or folder. In a config it counts from the folder of the file in which it is
written (a default: of the file that names the part), on the command line from the current folder; the part always gets
an absolute path."""
WeightsStr = Annotated[str, FILE_OR_NAME]
"""The same for what may also be the name of published weights: a path is what has a slash or a suffix of weights."""
WEIGHTS_SUFFIXES = (".pt", ".pth", ".pkl", ".ckpt", ".bin", ".safetensors", ".npz", ".tar")


def local_path(source: str | Path) -> str:
    """A path as it is; an http(s) or ftp address fetched once into iopath's cache (`$FVCORE_CACHE` or
    ~/.torch/iopath_cache) -> where it lies there.

    Raises OSError that names the address if it can't be fetched.
    """
    text = str(source)
    if "://" not in text:
        return text
    from iopath.common.file_io import HTTPURLHandler, PathManager

    manager = PathManager()
    manager.register_handler(HTTPURLHandler())
    try:
        found: str = manager.get_local_path(text)
    except Exception as error:
        raise OSError(f"{text} can't be fetched: {type(error).__name__}: {error}") from error
    return found


def is_path(text: str, kind: str) -> bool:
    """Whether a value of a `PathStr` (kind `FILE`) or `WeightsStr` is a path here, not an address or a name."""
    if not text or "://" in text or text.startswith("hf-hub:"):
        return False
    return kind == FILE or "/" in text or os.sep in text or text.lower().endswith(WEIGHTS_SUFFIXES)


def absolute(text: str, folder: Path) -> str:
    """A path that counts from `folder`, made absolute; `~` is the home folder."""
    joined = str(folder.absolute() / Path(text).expanduser())
    plain = os.path.normpath(joined)
    # Behind a symbolic link, `..` is not the folder that the text makes one expect.
    return plain if os.path.realpath(plain) == os.path.realpath(joined) else joined
