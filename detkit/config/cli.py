"""The verbs `detkit list` and `detkit config`."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detkit.registry import Registry


CONFIGS = "configs"
TITLES = {
    "config": "configs, for detkit train NAME",
    "detector": "detectors without data and training, for `_base_: NAME`",
    "training": "data and training without a detector, for `_base_: [DETECTOR, NAME]`",
    "overlay": "losses, for --overlay NAME and detkit compare",
}


def add_arguments_list(parser: argparse.ArgumentParser) -> None:
    text = "one registry, e.g. backbones, or configs: those that come with detkit; default: all registries"
    parser.add_argument("registry", nargs="?", help=text)
    parser.add_argument("--import", dest="imports", action="append", default=[], metavar="MODULE_OR_FILE",
                        help="module or file to import first, as `imports:` in a config")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON")


def run_list(args: argparse.Namespace) -> int:
    """Prints parts with their location and first line, or the configs that come with detkit."""
    if args.registry == CONFIGS:
        return list_configs(as_json=args.json)
    from pathlib import Path

    from detkit import registry
    from detkit.config import import_entry
    from detkit.registry.arguments import nearest

    registry.load_plugins()
    for entry in args.imports:
        import_entry(entry, Path.cwd(), "--import")
    names = [r.name for r in registry.REGISTRIES]
    if args.registry not in (None, *names):
        near = nearest(args.registry, [*names, CONFIGS])
        raise ValueError(f"{args.registry!r} is not a registry{near} Registries: {', '.join(names)}; or {CONFIGS}")
    chosen = {r.name: parts_of(r) for r in registry.REGISTRIES if args.registry in (None, r.name)}
    if args.json:
        print(json.dumps(chosen, indent=1))
        return 0
    for name, parts in chosen.items():
        print(name)
        for part in parts:
            print(f"  {part['name']:24} {part['location']}  {part['summary']}")
    return 0


def parts_of(registry: Registry) -> list[dict[str, str]]:
    """Name, location and first line of every part of a registry."""
    from detkit.config.raw import short_path

    entries = [(name, registry.entry(name)) for name in registry.names()]
    return [
        {
            "name": name,
            "location": f"{short_path(entry.file)}:{entry.line}",
            "summary": (entry.cls.__doc__ or "").strip().partition("\n")[0],
        }
        for name, entry in entries
    ]


def list_configs(*, as_json: bool) -> int:
    """Prints the configs that come with detkit: what can be trained with its data, size and AP, bases, and overlays."""
    from detkit.config.catalog import UNMEASURED, catalog

    entries = catalog()
    if as_json:
        print(json.dumps([entry.to_dict() for entry in entries], indent=1))
        return 0
    for kind, title in TITLES.items():
        print(title)
        for entry in entries:
            if entry.kind == kind:
                print(f"  {entry.name:26} {entry.summary}")
            if entry.kind == kind == "config":
                ap = UNMEASURED if entry.ap is None else f"{entry.ap:.3f}, {entry.measured_in}"
                for line in (f"data: {entry.data}", f"size: {entry.size}", f"AP: {ap}", f"file: {entry.file}"):
                    print(f"  {'':26}   {line}")
    return 0


def add_arguments_config(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", required=True)
    show = verbs.add_parser("show", help="every value of a config after bases, overrides and defaults")
    show.add_argument("config", help="config file or name (detkit list configs)")
    show.add_argument("overrides", nargs="*", metavar="key=value", help="overrides, as for detkit train")
    show.add_argument("--overlay", metavar="FILE", action="append", default=[], help="as for detkit train")
    show.add_argument("--origin", action="store_true", help="show the file and line of every value")
    check = verbs.add_parser("check", help="check configs; exit code 1 if any is invalid")
    check.add_argument("configs", nargs="+", metavar="CONFIG or key=value",
                       help="config files or names, and overrides of all of them")  # fmt: skip
    check.add_argument("--overlay", metavar="FILE", action="append", default=[], help="as for detkit train")


def run_config(args: argparse.Namespace) -> int:
    """`config show` prints YAML, or a table with --origin; `config check` a line for every file or error."""
    from detkit.config import load_config

    if args.verb == "check":
        return _check(args.configs, args.overlay)
    config = load_config(args.config, args.overrides, overlays=args.overlay)
    if not args.origin:
        print(config.to_yaml(), end="")
        return 0
    rows = [(path, _text(value), config.origin(path)) for path, value in config.leaves()]
    widths = [min(60, max(len(row[i]) for row in rows)) for i in range(2)]
    for path, value, origin in rows:
        print(f"{path:{widths[0]}}  {value:{widths[1]}}  {origin}")
    return 0


def _check(words: list[str], overlays: list[str]) -> int:
    from pathlib import Path

    from detkit.config import ConfigError, load_config

    overrides = [word for word in words if "=" in word and not Path(word).exists()]
    paths = [word for word in words if word not in overrides]
    if not paths:
        raise ValueError(f"{overrides[0]}: there is no config to check: detkit config check CONFIG key=value ...")
    wrong = 0
    for path in paths:
        try:
            load_config(path, overrides, overlays=overlays).check()
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
