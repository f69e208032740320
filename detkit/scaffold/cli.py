"""The verb `detkit new`: a folder with a part, a config that trains it, a test and a README."""

from __future__ import annotations

import argparse
import importlib.util
import keyword
import re
import shlex
from pathlib import Path

from detkit.registry import REGISTRIES, Registry, load_plugins

KINDS = {
    "backbone": "backbones",
    "neck": "necks",
    "anchors": "anchors",
    "head": "heads",
    "assigner": "assigners",
    "loss": "class_losses",
    "box-loss": "box_losses",
    "dataset": "datasets",
    "hook": "hooks",
    "logger": "loggers",
}
"""Kind of project -> its registry. The template of kind `box-loss` is box_loss/my_box_loss.py with `MyBoxLoss`."""
TEMPLATES = Path(__file__).parent


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=list(KINDS), help=", ".join(KINDS), metavar="KIND")
    parser.add_argument("name", help="of the project and its module; the class of my_net is MyNet")
    parser.add_argument("--folder", default="projects", metavar="DIR", help="folder of the project; default: projects")


def run(args: argparse.Namespace) -> int:
    """Writes the project and prints the next commands."""
    target = new_project(args.kind, args.name, Path(args.folder))
    for path in sorted(target.iterdir()):
        print(path)
    config = shlex.quote(str(target / "config.yaml"))
    print(f"\nNext:\n  pytest {shlex.quote(str(target))}\n  detkit train {config}")
    return 0


def new_project(kind: str, name: str, folder: Path) -> Path:
    """Writes the project `folder`/`name` of a kind out of `KINDS` and gives its folder.

    Raises ValueError, before anything is written, for a name that can't be a module's or whose class is
    taken, and FileExistsError for a project that is there.
    """
    registry = next(r for r in REGISTRIES if r.name == KINDS[kind])
    class_name = check_name(name, registry)
    target = folder / name
    if target.exists():
        raise FileExistsError(f"{target} exists already and was not changed: choose another name or another --folder")
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"--folder: {folder} is a file")
    files = render(kind, name, class_name, target)
    target.mkdir(parents=True)
    for file, text in files.items():
        (target / file).write_text(text, encoding="utf-8")
    return target


def check_name(name: str, registry: Registry) -> str:
    """The class name that belongs to a project's name; ValueError that says what is wrong with the name."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name):
        words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+", "_", name).strip("_").lower()
        hint = words if re.match("[a-z]", words) else "my_net"
        raise ValueError(f"{name!r} is not a valid module name: use lower-case letters, digits and _, as in {hint}")
    if keyword.iskeyword(name):
        raise ValueError(f"{name!r} is a Python keyword: choose another name, as in my_{name}")
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.origin is not None:
        raise ValueError(
            f"{name!r} is the name of an installed module ({spec.origin}), which the project would hide: "
            f"choose another name, as in my_{name}"
        )
    class_name = "".join(word[0].upper() + word[1:] for word in name.split("_"))
    load_plugins()
    if class_name in registry.names():
        raise ValueError(
            f"{name!r} would register {class_name}, which is already in {registry.name}, at "
            f"{registry.entry(class_name).location}: choose another name, as in my_{name}"
        )
    return class_name


def render(kind: str, name: str, class_name: str, target: Path) -> dict[str, str]:
    """File name -> text of a new project: the template with its own names put in."""
    stem = f"my_{kind.replace('-', '_')}"
    template_class = "".join(word.capitalize() for word in stem.split("_"))
    source = TEMPLATES / stem.removeprefix("my_")
    replacements = {f"projects/{stem}": target.as_posix(), stem: name, template_class: class_name}
    words = re.compile("|".join(replacements))  # in one pass: my_loss2 and a folder my_losses hold the template's name

    files = {}
    for file in (f"{stem}.py", f"test_{stem}.py", "config.yaml"):
        text = (source / file).read_text(encoding="utf-8")
        files[file.replace(stem, name)] = words.sub(lambda match: replacements[match[0]], text)
    files["README.md"] = (TEMPLATES / "README.md").read_text(encoding="utf-8").format(
        name=name, class_name=class_name, registry=KINDS[kind], kind=kind, place=shlex.quote(target.as_posix())
    )  # fmt: skip
    return files
