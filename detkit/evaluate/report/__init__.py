"""What is printed and written of an evaluation."""

from __future__ import annotations

from detkit.evaluate.report.table import METRIC_NAMES, figure, format_table, to_json

__all__ = ["METRIC_NAMES", "figure", "format_table", "to_json"]
