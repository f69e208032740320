"""Contracts that the author of a part runs on it: `check_backbone(MyNet)` raises ContractError at the first
broken rule, `print(check_backbone(MyNet, check_all=True))` shows all of them.

Loaded on first use, so that `detkit check-part --help` does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detkit.testing.contracts import (
        CONTRACTS,
        Check,
        Contract,
        ContractError,
        Report,
        Result,
        check_anchor_generator,
        check_assigner,
        check_backbone,
        check_box_loss,
        check_class_loss,
        check_coder,
        check_dataset,
        check_head,
        check_neck,
        check_nms,
        check_normalizer,
        check_transform,
    )

__all__ = [
    "CONTRACTS", "Check", "Contract", "ContractError", "Report", "Result", "check_anchor_generator", "check_assigner",
    "check_backbone", "check_box_loss", "check_class_loss", "check_coder", "check_dataset", "check_head", "check_neck",
    "check_nms", "check_normalizer", "check_transform",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'detkit.testing' has no attribute {name!r}")
    globals()[name] = found = getattr(import_module("detkit.testing.contracts"), name)
    return found
