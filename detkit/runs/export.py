"""A model as a folder for others, or as a hub repository: model.safetensors, config.json and a model card."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from detkit.checkpoint import Checkpoint
from detkit.hub import is_remote, repository
from detkit.hub.download import FetchError
from detkit.hub.repository import CARD, CONFIG, WEIGHTS
from detkit.interop.card import card
from detkit.interop.exported import write_exported
from detkit.runs.folder import ENVIRONMENT
from detkit.utils.console import printable
from detkit.utils.outputs import ForeignFileError, Ledger, check_can_write, refuse_foreign, refuse_inputs, write_text

FILES = (WEIGHTS, CONFIG, CARD)


class Model(NamedTuple):
    """What is exported: a checkpoint, the figures measured with its weights, and the command that trained them."""

    saved: Checkpoint
    figures: Mapping[str, Any] = {}
    command: str = ""


def export(model: Model, folder: str | Path, *, name: str = "", option: str = "folder") -> Path:
    """Writes a model into a folder, and returns it; only files of an earlier export are replaced.

    Args:
        model: what to write.
        folder: for model.safetensors, config.json and README.md.
        name: how the card says to load it; empty for the name of the folder.
        option: what an error about the folder begins with.
    """
    if is_remote(folder):
        raise ValueError(f"{option}: {printable(folder)} is an address, not a folder: `detkit push` uploads to hf://")
    folder = Path(folder)
    check_can_write(option, folder)
    if (folder / ENVIRONMENT).exists():
        raise ForeignFileError(f"{option}: {printable(folder)} is the folder of a run: choose another")
    refuse_inputs(option, [folder / file for file in FILES], [model.saved.path] if model.saved.path else [])
    refuse_foreign(option, folder, FILES)
    text = card(model.saved, name or folder.resolve().name, model.figures, model.command)
    folder.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(folder)
    write_exported(folder, model.saved, ledger)
    write_text(folder / CARD, text, ledger=ledger)
    return folder


def push(model: Model, target: str, *, private: bool = False) -> str:
    """Uploads a model to a hub repository, which is made if it is not there; returns its web address.

    Args:
        model: what to write.
        target: hf://OWNER/NAME, or hf://OWNER/NAME@BRANCH.
        private: whether a new repository is shown to its owner only.

    Raises FetchError that names the repository if the hub refuses or can't be reached.
    """
    address = target_of(target)
    api = repository.api()
    with tempfile.TemporaryDirectory() as folder:
        export(model, folder, name=target)
        try:
            with repository.without_bars():
                return _upload(api, address, folder, private)
        except Exception as error:  # errors of the hub's client have no base of Python's own
            raise FetchError(f"{printable(target)} can't be written: {repository.explain(error)}") from error


def target_of(target: str) -> repository.Address:
    """The repository of an address; ValueError unless a model can be written there."""
    address = repository.parse(target)
    if address.kind != "model" or address.path:
        raise ValueError(f"{printable(target)}: a model goes into a repository of its own: hf://OWNER/NAME")
    return address


def _upload(api: Any, address: repository.Address, folder: str, private: bool) -> str:
    url = api.create_repo(address.repo, private=private, exist_ok=True)
    if address.revision != "main":
        api.create_branch(address.repo, branch=address.revision, exist_ok=True)
    api.upload_folder(
        repo_id=address.repo,
        folder_path=folder,
        revision=address.revision,
        allow_patterns=list(FILES),
        commit_message="Upload with detkit push",
    )
    return str(url)
