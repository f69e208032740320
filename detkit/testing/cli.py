"""`detkit check-part backbones MyNet --import my_net.py [key=value ...]`: does a part keep its contract?"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `detkit check-part --help`."""
    parser.add_argument("registry", help="backbones, necks, class_losses, ...")
    parser.add_argument("part", nargs="?", help="its name, as in `type:`")
    parser.add_argument("values", nargs="*", metavar="key=value", help="arguments of the part, where it needs others")
    parser.add_argument(
        "--import", dest="imports", action="append", default=[], help="file or module that registers it"
    )
    parser.add_argument(
        "--verbose", action="store_true", help="show what the part and its libraries print, below the table"
    )
    parser.add_argument("--list", action="store_true", help="show the checks and why each matters, run none")


def run(args: argparse.Namespace) -> int:
    """Prints a table of checks; 1 if one failed."""
    from detkit.config import import_entry
    from detkit.registry import REGISTRIES
    from detkit.registry.arguments import nearest
    from detkit.testing import CONTRACTS
    from detkit.utils.quiet import capture_output, shows_everything

    if args.registry not in CONTRACTS:
        raise ValueError(
            f"{args.registry!r} is no registry with a contract{nearest(args.registry, list(CONTRACTS))} "
            f"Known: {', '.join(CONTRACTS)}"
        )
    contract = CONTRACTS[args.registry]
    if args.list:
        width = max(len(c.name) for c in contract.checks)
        print("\n".join(f"  {c.name:{width}}  {c.why}" for c in contract.checks))
        return 0
    if args.part is None:
        raise ValueError(f"which part of {args.registry}? Give its name, or --list to see the checks")
    registry = next(r for r in REGISTRIES if r.name == args.registry)
    node = {"type": args.part, **_values(args.values)}

    def factory(**derived: Any) -> Any:
        return registry.build(node, **derived)

    factory.__name__ = args.part
    with capture_output() as said:
        for entry in args.imports:
            import_entry(entry, Path.cwd(), "--import")
        registry.get(args.part)
        contract.subject(factory).build()  # a slip in the arguments is no broken check
        report = contract(factory, check_all=True)
    print(report, flush=True)
    if lines := said.text.splitlines():
        if args.verbose or shows_everything():
            print(f"\n{args.part} and its libraries printed:\n{said.text}", file=sys.stderr)
        else:
            print(f"({args.part} and its libraries printed {len(lines)} lines; --verbose shows them)")
    return 1 if report.failed else 0


def _values(pairs: list[str]) -> dict[str, Any]:
    import yaml

    found = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"{pair!r} is not key=value")
        found[key] = yaml.safe_load(value)
    return found
