"""Compiling, finding and loading the native library."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
"""The installed package: the libraries and the record of their build lie in it."""
REBUILD = "detkit doctor --build"
