"""Hub repositories, `hf://owner/name`, through huggingface_hub: its cache, its resuming, its login; never a pickle."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from detkit.hub.cache import cache_folder
from detkit.hub.download import FetchError
from detkit.utils.console import indented_list, printable
from detkit.utils.outputs import file_sha256
from detkit.version import __version__

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
MODEL_FILES = (CONFIG, WEIGHTS)
PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz", ".h5", ".keras", ".tar")
"""Endings of files that may run code when they are read."""
EXTRA = "a hub repository needs huggingface_hub and safetensors: pip install 'detkit[hub]'"
CLIENTS = ("httpx", "httpx2", "httpcore", "requests", "huggingface_hub")
"""Packages of the hub's HTTP client, whose errors have no base of Python's own."""
ADDRESS = re.compile(r"hf://(?P<data>datasets/)?(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+))?(/(?P<path>.*))?")


class Address(NamedTuple):
    """`hf://[datasets/]owner/name[@revision][/path]` in its pieces."""

    kind: str
    repo: str
    revision: str
    path: str

    @property
    def folder(self) -> Path:
        """Where a person may put the repository by hand."""
        kind = "datasets/" if self.kind == "dataset" else ""
        return cache_folder() / "hf" / f"{kind}{self.repo}@{self.revision}"


def parse(source: str) -> Address:
    """An address in its pieces; ValueError if it is none, or leads out of its repository."""
    match = ADDRESS.fullmatch(source.rstrip("/"))
    path = (match["path"] or "") if match else ""
    bad = match is None or ".." in (*match["repo"].split("/"), *path.split("/"))
    if match is None or bad:
        raise ValueError(
            f"{printable(source)} is not the address of a hub repository: write hf://OWNER/NAME, "
            "hf://OWNER/NAME@REVISION or hf://datasets/OWNER/NAME/FOLDER"
        )
    return Address("dataset" if match["data"] else "model", match["repo"], match["revision"] or "main", path)


def fetch_repository(source: str) -> Path:
    """The local folder of a model's or a data set's repository, or the file or folder below `path` in it.

    Of a model only safetensors, JSON, YAML and Markdown files are fetched. Raises ValueError for a model without
    model.safetensors and config.json, and FetchError if the hub can't be reached and nothing is cached.
    """
    address = parse(source)
    if address.kind == "model" and address.path.lower().endswith(PICKLES):
        raise ValueError(
            f"{printable(source)}: detkit reads no {Path(address.path).suffix} file of a hub repository, as such a "
            "file may run code: publish the weights as safetensors, which `detkit push` writes"
        )
    folder = address.folder if address.folder.is_dir() else _snapshot(address)
    if address.kind == "model" and not address.path:
        missing = [name for name in MODEL_FILES if not (folder / name).is_file()]
        if missing:
            raise ValueError(
                f"{printable(source)} is not a model of detkit: it has no {' and no '.join(missing)}. "
                f"Its files:{indented_list(_files(address, folder))}"
            )
    path = folder / address.path
    if not path.exists():
        raise ValueError(
            f"{printable(source)} has no {printable(address.path)}. Its files:{indented_list(_files(address, folder))}"
        )
    _check_content(path if address.path else folder, source)
    return path


def library() -> Any:
    """The module huggingface_hub; ImportError that names the extra if it is not installed."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError(EXTRA) from error
    return huggingface_hub


def api() -> Any:
    """A client of the hub, at `$HF_ENDPOINT` if that is set."""
    return library().HfApi(endpoint=_endpoint(), library_name="detkit", library_version=__version__)


def explain(error: Exception) -> str:
    """What went wrong between detkit and the hub, in one line."""
    name = type(error).__name__
    known = {
        "RepositoryNotFoundError": "there is no such repository, or your login does not show it (`hf auth login`)",
        "GatedRepoError": "its owner wants its terms accepted: do so on its page, then run `hf auth login`",
        "RevisionNotFoundError": "it has no such revision",
        "LocalTokenNotFoundError": "you are not logged in: run `hf auth login`",
        "LocalEntryNotFoundError": "the hub can't be reached, and the cache does not hold it",
        "IncompleteSnapshotError": "the hub can't be reached, and the cache holds only a part of it",
        "OfflineModeIsEnabled": "HF_HUB_OFFLINE is set, and the cache does not hold it",
    }
    if name in known:
        return known[name]
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), name)
    return f"{name}: {first}"


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


def _snapshot(address: Address) -> Path:
    download = library().snapshot_download
    patterns: list[str] | None = ["*.safetensors", "*.json", "*.yaml", "*.md"]
    if address.kind == "dataset":
        patterns = [address.path, f"{address.path}/*"] if address.path else None
    elif not address.path:
        patterns = [*MODEL_FILES, CARD]
    try:
        with without_bars():
            folder = download(
                address.repo,
                repo_type=address.kind,
                revision=address.revision,
                cache_dir=cache_folder() / "huggingface",
                allow_patterns=patterns,
                endpoint=_endpoint(),
                library_name="detkit",
                library_version=__version__,
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise _failure(address, error) from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in CLIENTS:
            raise
        raise _failure(address, error) from error
    return Path(folder)


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """While the context is active, huggingface_hub draws no bars: they are made for a bare terminal."""
    from huggingface_hub import utils

    before = utils.are_progress_bars_disabled()  # type: ignore[attr-defined]
    utils.disable_progress_bars()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        if not before:
            utils.enable_progress_bars()  # type: ignore[attr-defined]


def _failure(address: Address, error: Exception) -> FetchError:
    names = " and ".join(MODEL_FILES) if address.kind == "model" else address.path or "its files"
    return FetchError(
        f"hf://{address.repo}@{address.revision} can't be fetched: {explain(error)}. Without a network, get {names} of "
        f"the repository elsewhere and put them into the folder {printable(address.folder)}"
    )


def _files(address: Address, folder: Path) -> list[str]:
    """The files of a repository, by the hub, or where it can't be asked by the folder."""
    try:
        return sorted(api().list_repo_files(address.repo, revision=address.revision, repo_type=address.kind))
    except Exception:  # only to complete another error's text
        return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _check_content(content: Path, source: str) -> None:
    """Raises ValueError if a weights file of the cache is not what its name in the cache says: its SHA-256."""
    for path in [content] if content.is_file() else sorted(content.glob("*.safetensors")):
        blob = path.resolve()
        digits = re.fullmatch("[0-9a-f]{64}|[0-9a-f]{40}", blob.name)
        if digits and blob.name != (file_sha256(blob) if len(blob.name) == 64 else _git_hash(blob)):
            raise ValueError(
                f"{printable(source)}: {printable(blob)} is damaged: its content does not have the hash of its name. "
                "Delete it, and detkit downloads it again"
            )


def _git_hash(path: Path) -> str:
    """The name that git gives a file's content."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
