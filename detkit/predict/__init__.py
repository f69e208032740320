"""Detections in images and files."""
