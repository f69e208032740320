"""Contracts that the author of a part runs on it: `check_backbone(MyNet)` raises ContractError at the first
broken rule, `print(check_backbone(MyNet, check_all=True))` shows all of them.

Loaded on first use, so that `detkit check-part --help` does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detkit.testing.contract import CONTRACTS, Check, Contract, ContractError, Report, Result
    from detkit.testing.data import check_dataset, check_transform
    from detkit.testing.features import check_anchor_generator, check_backbone, check_head, check_neck
    from detkit.testing.hooks import check_hook, check_logger
    from detkit.testing.joint import check_joint_loss
    from detkit.testing.losses import check_box_loss, check_class_loss, check_normalizer
    from detkit.testing.matching import check_assigner, check_coder, check_nms
    from detkit.testing.terms import check_auxiliary_loss, check_box_weight, check_quality_loss

__all__ = [
    "CONTRACTS", "Check", "Contract", "ContractError", "Report", "Result", "check_anchor_generator",
    "check_assigner", "check_auxiliary_loss", "check_backbone", "check_box_loss", "check_box_weight",
    "check_class_loss", "check_coder", "check_dataset", "check_head", "check_hook", "check_joint_loss", "check_logger",
    "check_neck", "check_nms", "check_normalizer", "check_quality_loss", "check_transform",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name in __all__:
        for file in ("features", "matching", "losses", "joint", "terms", "data", "hooks", "contract"):
            module = import_module(f"{__name__}.{file}")
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
