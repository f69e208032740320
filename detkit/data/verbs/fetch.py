"""The verb `detkit data fetch`."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", nargs="?", help="a set of the list, or the address of a zip or tar file; none: the list"
    )
    parser.add_argument("folder", nargs="?", help="where to unpack it: a new or empty folder")
    parser.add_argument("--sha256", default="", metavar="DIGITS", help="SHA-256 that the archive must have")


def run(args: argparse.Namespace) -> int:
    """Prints the list, or downloads and unpacks a set and prints what was found in it."""
    from detkit.data.fetch import describe_sets, fetch_set
    from detkit.data.reading import describe_place, read_source
    from detkit.data.writers.target import check_target

    if args.name is None:
        print("\n".join(describe_sets()))
        return 0
    if args.folder is None:
        raise ValueError(f"name the folder, too: detkit data fetch {args.name} FOLDER")
    folder = Path(args.folder)
    check_target("folder", folder)
    digest = fetch_set(args.name, folder, args.sha256)
    print(f"{folder}: unpacked; the archive's SHA-256 is {digest} (--sha256 {digest[:16]} asks for it the next time)")
    try:
        print("\n".join(describe_place(folder, read_source(folder))))
    except (ValueError, OSError) as error:
        print(f"note: {error}")
    return 0
