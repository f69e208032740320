"""The verbs `detkit list` and `detkit config`."""

from __future__ import annotations

import argparse
import sys


def add_arguments_list(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("registry", nargs="?", help="one registry, e.g. backbones; default: all")
    parser.add_argument("--import", dest="imports", action="append", default=[], metavar="MODULE_OR_FILE",
                        help="module or file to import first, as `imports:` in a config")  # fmt: skip


def run_list(args: argparse.Namespace) -> int:
    """Prints every part: name, location and the first line of its docstring."""
    from pathlib import Path

    from detkit import registry
    from detkit.config import import_entry
    from detkit.config.raw import short_path
    from detkit.registry.arguments import nearest

    registry.load_plugins()
    for entry in args.imports:
        import_entry(entry, Path.cwd(), "--import")
    names = [r.name for r in registry.REGISTRIES]
    if args.registry is not None and args.registry not in names:
        raise ValueError(
            f"{args.registry!r} is not a registry{nearest(args.registry, names)} Registries: {', '.join(names)}"
        )
    for parts in registry.REGISTRIES:
        if args.registry not in (None, parts.name):
            continue
        print(parts.name)
        for name in parts.names():
            entry = parts.entry(name)
            line = (entry.cls.__doc__ or "").strip().partition("\n")[0]
            print(f"  {name:24} {short_path(entry.file)}:{entry.line}  {line}")
    return 0


def add_arguments_config(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", required=True)
    show = verbs.add_parser("show", help="every value of a config after bases, overrides and defaults")
    show.add_argument("config", help="config file")
    show.add_argument("overrides", nargs="*", metavar="key=value", help="overrides, as for detkit train")
    show.add_argument("--origin", action="store_true", help="show the file and line of every value")
    check = verbs.add_parser("check", help="check configs; exit code 1 if any is invalid")
    check.add_argument("configs", nargs="+", metavar="CONFIG", help="config files")


def run_config(args: argparse.Namespace) -> int:
    """`config show` prints YAML, or a table with --origin; `config check` a line for every file or error."""
    from detkit.config import load_config

    if args.verb == "check":
        return _check(args.configs)
    config = load_config(args.config, args.overrides)
    if not args.origin:
        print(config.to_yaml(), end="")
        return 0
    rows = [(path, _text(value), config.origin(path)) for path, value in config.leaves()]
    widths = [min(60, max(len(row[i]) for row in rows)) for i in range(2)]
    for path, value, origin in rows:
        print(f"{path:{widths[0]}}  {value:{widths[1]}}  {origin}")
    return 0


def _check(paths: list[str]) -> int:
    from detkit.config import ConfigError, load_config

    wrong = 0
    for path in paths:
        try:
            load_config(path).check()
        except (ConfigError, ValueError, OSError) as error:
            wrong += 1
            print(error, file=sys.stderr)
        else:
            print(f"{path}: ok")
    if wrong:
        print(f"{wrong} of {len(paths)} configs are invalid", file=sys.stderr)
    return 1 if wrong else 0


def _text(value: object) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
