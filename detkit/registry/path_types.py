"""Types of arguments that are files or folders."""

from __future__ import annotations

import os
from typing import Annotated

from detkit.hub import is_remote

FILE, FILE_OR_NAME, FILE_OR_ADDRESS = "a path", "a path or a name", "a path or an address"
PathStr = Annotated[str, FILE]
"""An argument of a part that is a file or folder. In a config it is relative to the folder of the file in which it is
written (a default: of the file that names the part), on the command line to the current folder; the part always gets an
absolute path. For an address (`s3://...`, `hf://...`) it gets the copy in the cache; the config keeps the address."""
WeightsStr = Annotated[str, FILE_OR_NAME]
"""The same for what may also be the name of published weights: a path has a slash or a suffix of weights."""
AddressStr = Annotated[str, FILE_OR_ADDRESS]
"""The same as `PathStr`, but the part gets an address as it is, and reads from it what it needs."""
WEIGHTS_SUFFIXES = (".pt", ".pth", ".pkl", ".ckpt", ".bin", ".safetensors", ".npz", ".tar")


def is_path(text: str, kind: str) -> bool:
    """Whether a value of a type of this module (kind: its mark) is a path on this machine, not a URL or a name."""
    if not text or is_remote(text) or text.startswith("hf-hub:"):
        return False
    return kind != FILE_OR_NAME or "/" in text or os.sep in text or text.lower().endswith(WEIGHTS_SUFFIXES)
