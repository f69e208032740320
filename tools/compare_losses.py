"""A thin main for `detkit compare`, for launchers that want a file: python tools/compare_losses.py CONFIG VARIANT..."""

import sys

from detkit.cli import main

if __name__ == "__main__":
    sys.exit(main(["compare", *sys.argv[1:]]))
