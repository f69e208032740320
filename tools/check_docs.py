"""Checks what the documentation names: links, commands and their options, make targets, paths, messages. No network.

python -m tools.check_docs            # exit code 1 if something is named that does not exist
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import io
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from detkit.cli import VERBS, Parser, parse

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("*.md", "docs/**/*.md", ".github/*.md", ".github/ISSUE_TEMPLATE/*.yml", ".ci/run", "projects/*/README.md")
FENCE = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]*)\)")
CODE = re.compile(r"`([^`\n]+)`")
PATH = re.compile(r"(?<![\w./-])(?:benchmarks|configs|detkit|docs|projects|tests|tools)/[\w./*-]*\w")
MESSAGES = "docs/troubleshooting.md"
"""Page whose text blocks quote messages, with ... for what differs."""
SNAPSHOT = re.compile(r"^# name: .*\n((?:(?!^# ---).*\n)*)", re.MULTILINE)
WRITTEN_BY_COMMANDS = ("projects/my_", "configs/mine", "detkit/_C", "detkit/_build_info")
"""Paths that a reader, a command or the build makes."""


def pages(root: Path) -> list[Path]:
    """The pages that are checked."""
    return sorted(path for pattern in PAGES for path in root.glob(pattern))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def link_problems(page: Path, text: str) -> Iterator[str]:
    """Links to files and headings that do not exist."""
    for link in LINK.findall(CODE.sub("", FENCE.sub("", text))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        if not target.exists():
            yield f"link to {link}: no such file"
        elif anchor and anchor not in anchors(target):
            yield f"link to {link}: {target.name} has no such heading"


def commands(text: str) -> list[str]:
    """The lines of fenced blocks, continued ones joined, and inline code."""
    blocks = "\n".join(FENCE.findall(text))
    lines = [line.split("  #")[0].strip() for line in re.sub(r"\\\n\s*", " ", blocks).splitlines()]
    return [*filter(None, lines), *CODE.findall(FENCE.sub("", text))]


def make_problems(text: str, makefile: str) -> Iterator[str]:
    """Targets that the Makefile lacks."""
    lines = [*commands(text), *re.findall(r"^(?:- run: |\s*run: )?(make .+)$", text, re.MULTILINE)]
    for line in lines:
        if line.startswith("make "):
            for target in re.findall(r"[a-z][\w-]*", line.removeprefix("make ").split("#")[0]):
                if not re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE):
                    yield f"`{line}`: the Makefile has no target {target}"


def command_problems(text: str) -> Iterator[str]:
    """Commands of detkit that its own parsers refuse. Synopses with optional words and diagrams are skipped."""
    for line in commands(text):
        if line.startswith("detkit ") and not re.search(r"\s\[|\.\.\.|\||\S {3}", line):
            said = refusal(shlex.split(line, comments=True)[1:])
            if said:
                yield f"`{line}`: {said}"


def refusal(words: list[str]) -> str:
    """What argparse says against a command; empty if it takes it, or if only words that a reader knows are left out."""
    verb = words[0]
    if verb.startswith("--"):
        return ""
    if verb not in VERBS:
        return f"no verb {verb}"
    location, line = VERBS[verb]
    module_name, _, prefix = location.partition(":")
    parser = Parser(prog=f"detkit {verb}", description=line)
    getattr(importlib.import_module(module_name), f"add_arguments{'_' + prefix if prefix else ''}")(parser)
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            parse(parser, words[1:])
    except SystemExit as stop:
        if stop.code == 0:  # --help
            return ""
        said = errors.getvalue().strip().splitlines()[-1].partition("error: ")[2]
        incomplete = "arguments are required" in said or "expected one argument" in said
        return "" if incomplete else said
    return ""


def path_problems(text: str, root: Path) -> Iterator[str]:
    """Paths of the repository that are not there."""
    for path in sorted(set(PATH.findall(LINK.sub("", text)))):
        if not path.startswith(WRITTEN_BY_COMMANDS) and not any(root.glob(path)):
            yield f"{path}: no such file or folder"


def message_problems(page: Path, text: str, root: Path) -> Iterator[str]:
    """Quoted messages that no snapshot of the tests holds."""
    if page != root / MESSAGES:
        return
    known = [message for path in sorted(root.glob("tests/**/*.ambr")) for message in snapshots(path)]
    for quoted in re.findall(r"^```text\n(.*?)\n```", text, re.MULTILINE | re.DOTALL):
        pieces = [re.escape(piece.strip()) for piece in quoted.split("...") if piece.strip()]
        pattern = re.compile(".*".join(pieces), re.DOTALL)
        if not any(pattern.search(message) for message in known):
            yield f"no test holds the message {quoted!r}"


def snapshots(path: Path) -> list[str]:
    """The texts of a file of syrupy, as the program prints them."""
    bodies = [body.strip() for body in SNAPSHOT.findall(path.read_text(encoding="utf-8"))]
    return [body if body.startswith("'''") or body[:1] not in "'\"" else ast.literal_eval(body) for body in bodies]


def problems(root: Path = ROOT) -> list[str]:
    """One line for each thing that is named and does not exist."""
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    found = []
    for page in pages(root):
        text = page.read_text(encoding="utf-8")
        checks = (
            link_problems(page, text),
            make_problems(text, makefile),
            command_problems(text),
            path_problems(text, root),
            message_problems(page, text, root),
        )
        found += [f"{page.relative_to(root)}: {problem}" for check in checks for problem in check]
    return found


def main() -> int:
    """Prints the problems; 1 if there are any."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    found = problems()
    print("\n".join(found) or f"{len(pages(ROOT))} pages: all links, commands, targets, paths and messages exist")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
