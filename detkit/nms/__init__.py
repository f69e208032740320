"""Suppression of duplicate detections, by part."""
