"""Contracts that the author of a part runs on it: `check_backbone(MyNet)` raises ContractError at the first
broken rule, `print(check_backbone(MyNet, check_all=True))` shows all of them.

Loaded on first use, so that `detkit check-part --help` does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detkit.testing.contract import CONTRACTS as CONTRACTS
    from detkit.testing.contract import Check as Check
    from detkit.testing.contract import Contract as Contract
    from detkit.testing.contract import ContractError as ContractError
    from detkit.testing.contract import Report as Report
    from detkit.testing.contract import Result as Result
    from detkit.testing.data import check_dataset as check_dataset
    from detkit.testing.data import check_transform as check_transform
    from detkit.testing.features import check_anchor_generator as check_anchor_generator
    from detkit.testing.features import check_backbone as check_backbone
    from detkit.testing.features import check_head as check_head
    from detkit.testing.features import check_neck as check_neck
    from detkit.testing.hooks import check_hook as check_hook
    from detkit.testing.hooks import check_logger as check_logger
    from detkit.testing.losses import check_box_loss as check_box_loss
    from detkit.testing.losses import check_class_loss as check_class_loss
    from detkit.testing.losses import check_normalizer as check_normalizer
    from detkit.testing.matching import check_assigner as check_assigner
    from detkit.testing.matching import check_coder as check_coder
    from detkit.testing.matching import check_nms as check_nms

__all__ = [
    "CONTRACTS",
    "Check",
    "Contract",
    "ContractError",
    "Report",
    "Result",
    "check_anchor_generator",
    "check_assigner",
    "check_backbone",
    "check_box_loss",
    "check_class_loss",
    "check_coder",
    "check_dataset",
    "check_head",
    "check_hook",
    "check_logger",
    "check_neck",
    "check_nms",
    "check_normalizer",
    "check_transform",
]


def __getattr__(name: str) -> object:
    if name in __all__:
        for file in ("features", "matching", "losses", "data", "hooks", "contract"):
            module = import_module(f"{__name__}.{file}")
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
