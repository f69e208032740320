"""`detkit check-part backbones MyNet --import my_net.py [key=value ...]`: does a part keep its contract?"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

JOINT = "joint_losses"
"""The contract of class losses that are joint ones (`JointLoss`): they have no registry of their own."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("registry", help="backbones, necks, class_losses, ...")
    parser.add_argument("part", nargs="?", help="its name, as after `type:`")
    parser.add_argument("values", nargs="*", metavar="key=value", help="arguments of the part other than its defaults")
    parser.add_argument("--import", dest="imports", action="append", default=[],
                        help="file or module that registers the part")  # fmt: skip
    parser.add_argument("--verbose", action="store_true", help="show what the part and its libraries print")
    parser.add_argument("--list", action="store_true", help="list the checks and why each matters; run none")


def run(args: argparse.Namespace) -> int:
    """Prints a table of checks; 1 if one failed."""
    from detkit.config import import_entry
    from detkit.config.overrides import parse_override
    from detkit.registry import REGISTRIES
    from detkit.registry.arguments import nearest
    from detkit.testing import CONTRACTS
    from detkit.utils.quiet import capture_output, shows_everything

    if args.registry not in CONTRACTS:
        raise ValueError(
            f"{args.registry!r} is not a registry with a contract{nearest(args.registry, list(CONTRACTS))} "
            f"Known: {', '.join(CONTRACTS)}"
        )
    contract = CONTRACTS[args.registry]
    name = "class_losses" if args.registry == JOINT else args.registry
    if args.list:
        width = max(len(c.name) for c in contract.checks)
        print("\n".join(f"  {c.name:{width}}  {c.why}" for c in contract.checks))
        return 0
    if args.part is None:
        raise ValueError(f"missing the name of a part of {args.registry}; --list shows the checks")
    registry = next(r for r in REGISTRIES if r.name == name)
    node = {"type": args.part, **{".".join(keys): value for keys, value in map(parse_override, args.values)}}

    def factory(**derived: object) -> object:
        return registry.build(node, **derived)

    factory.__name__ = args.part
    with capture_output() as printed:
        for entry in args.imports:
            import_entry(entry, Path.cwd(), "--import")
        if getattr(registry.get(args.part), "joint", False):
            contract = CONTRACTS[JOINT]
        contract.subject(factory).build()  # a wrong argument is not a broken check
        report = contract(factory, check_all=True)
    print(report, flush=True)
    if lines := printed.text.splitlines():
        if args.verbose or shows_everything():
            print(f"\n{args.part} and its libraries printed:\n{printed.text}", file=sys.stderr)
        else:
            print(f"({args.part} and its libraries printed {len(lines)} lines; --verbose shows them)")
    return 1 if report.failed else 0
