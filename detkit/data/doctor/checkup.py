"""All checks of a data set, one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from detkit.data.doctor.checks.boxes import check_boxes
from detkit.data.doctor.checks.classes import check_classes
from detkit.data.doctor.checks.duplicates import check_duplicates
from detkit.data.doctor.checks.formats import check_formats
from detkit.data.doctor.checks.images import check_images
from detkit.data.doctor.checks.outliers import check_outliers
from detkit.data.doctor.checks.sizes import check_sizes
from detkit.data.doctor.findings import Case, Findings, Kind
from detkit.data.doctor.subject import Subject

CHECKS = (check_images, check_boxes, check_duplicates, check_classes, check_sizes, check_outliers)

UNREAD = Kind(
    "unread-split", "error", "a split can't be read; only the others are checked",
    "correct what is named, or remove the split from the data",
)  # fmt: skip


def unread_splits(errors: Mapping[str, Exception]) -> Findings:
    """The splits that can't be read, by their names, and why."""
    findings = Findings()
    findings.add(UNREAD, (Case(split=split, text=str(error)) for split, error in errors.items()))
    return findings


def examine(subject: Subject, path: Path | None = None) -> Findings:
    """Runs every check that needs no detector. path: the place of the data, where other formats of it may lie."""
    findings = Findings()
    for check in CHECKS:
        findings.merge(check(subject))
    if path is not None:
        findings.merge(check_formats(subject, path))
    return findings
