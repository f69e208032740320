"""All checks of a data set, one after the other."""

from __future__ import annotations

from pathlib import Path

from detkit.data.doctor.checks.boxes import check_boxes
from detkit.data.doctor.checks.classes import check_classes
from detkit.data.doctor.checks.duplicates import check_duplicates
from detkit.data.doctor.checks.formats import check_formats
from detkit.data.doctor.checks.images import check_images
from detkit.data.doctor.checks.outliers import check_outliers
from detkit.data.doctor.checks.sizes import check_sizes
from detkit.data.doctor.findings import Findings
from detkit.data.doctor.subject import Subject

CHECKS = (check_images, check_boxes, check_duplicates, check_classes, check_sizes, check_outliers)


def examine(subject: Subject, path: Path | None = None) -> Findings:
    """Runs every check that needs no detector. path: the place of the data, where other formats of it may lie."""
    findings = Findings()
    for check in CHECKS:
        findings.merge(check(subject))
    if path is not None:
        findings.merge(check_formats(subject, path))
    return findings
