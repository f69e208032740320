"""Every contract, by the registry whose parts it is for."""

from __future__ import annotations

from detkit.testing.data import check_dataset, check_transform
from detkit.testing.features import check_anchor_generator, check_backbone, check_head, check_neck
from detkit.testing.losses import check_box_loss, check_class_loss, check_normalizer
from detkit.testing.matching import check_assigner, check_coder, check_nms
from detkit.testing.report import Check, Contract, ContractError, Report, Result

CONTRACTS: dict[str, Contract] = {
    "backbones": check_backbone,
    "necks": check_neck,
    "anchors": check_anchor_generator,
    "heads": check_head,
    "assigners": check_assigner,
    "coders": check_coder,
    "class_losses": check_class_loss,
    "box_losses": check_box_loss,
    "normalizers": check_normalizer,
    "nms": check_nms,
    "datasets": check_dataset,
    "transforms": check_transform,
}
"""Name of a registry -> the contract of its parts."""

__all__ = [
    "CONTRACTS", "Check", "Contract", "ContractError", "Report", "Result", "check_anchor_generator", "check_assigner",
    "check_backbone", "check_box_loss", "check_class_loss", "check_coder", "check_dataset", "check_head", "check_neck",
    "check_nms", "check_normalizer", "check_transform",
]  # fmt: skip
