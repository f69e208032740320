"""Files of safetensors: tensors and text, no code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from detkit.utils.console import printable
from detkit.utils.outputs import Ledger, write_bytes

ENDING = ".safetensors"
EXTRA = "a .safetensors file needs safetensors: pip install 'detkit[hub]'"


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file on the CPU, and the text beside them; ValueError that names the file if it is damaged."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError as error:
        raise ImportError(f"{printable(path)}: {EXTRA}") from error
    path.open("rb").close()  # for the system's own error on a file that can't be opened
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, ValueError, RuntimeError, AttributeError) as error:
        text = str(error).strip().partition("\n")[0]
        raise ValueError(f"{printable(path)} is not a whole safetensors file: {text}") from error


def write_safetensors(
    path: Path, tensors: Mapping[str, Tensor], text: Mapping[str, str], ledger: Ledger | None = None
) -> None:
    """Writes the file in place all at once. Tensors that share memory are written each by itself."""
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise ImportError(f"{printable(path)}: {EXTRA}") from error
    alone = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_bytes(path, save(alone, metadata=dict(text)), ledger=ledger)
