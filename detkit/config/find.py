"""Where a config is: a path, a file inside an installed package, or the name of a config that comes with detkit."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

from detkit.hub import is_remote, local_path
from detkit.registry.arguments import nearest
from detkit.utils.console import printable

PACKAGE = Path(__file__).resolve().parents[1]
PREFIX = "detkit:configs/"
"""Before the path of a config that comes with detkit, as messages show it and `find_config` takes it."""
SUFFIXES = (".yaml", ".yml")
LIST = "`detkit list configs` prints the names"


def find_config(source: str | os.PathLike[str], folder: Path | None = None) -> Path:
    """The file of a config, given as a path or by name.

    An address (see `detkit.hub.local_path`) is fetched. A path to an existing file comes next, then `package:path`
    of an installed package, as in `detkit:scaffold/base.yaml`, then a name: the path below detkit's configs
    (`retinanet/r50_fpn_1x`, with or without `configs/` before and `.yaml` after it), or a file's own name, if no
    other has it (`focal`).

    Args:
        source: the path or name.
        folder: what a relative path is relative to; the current folder if None.

    Raises FileNotFoundError with the nearest name, IsADirectoryError for a folder, and ValueError for a name of
    several configs.
    """
    if is_remote(source):
        return local_path(source)
    text = str(source)
    file = Path.cwd() / text if folder is None else folder / text
    if file.is_file():
        return file
    fitting = configs_named(text)
    if len(fitting) > 1:
        names = ", ".join(config_name(path) for path in fitting)
        raise ValueError(f"{text!r} is the name of several configs: write one of {names}")
    if fitting:
        return fitting[0]
    inside = _file_in_package(text)
    if inside is not None and inside.is_file():
        return inside
    if file.is_dir():
        raise IsADirectoryError(
            f"{printable(text)} is a folder: name the config file in it. If it holds data, name a config and set its "
            "data.root to the folder, or let `detkit train` with the folder choose a config"
        )
    raise FileNotFoundError(_not_found(text, inside or (None if folder is None else file), file.parent))


def own_folder() -> Path:
    """The folder of detkit's own configs: inside an installed detkit, beside the package in a checkout."""
    installed = PACKAGE / "configs"
    return installed if installed.is_dir() else PACKAGE.parent / "configs"


def own_configs() -> dict[str, Path]:
    """Name -> file of every config that comes with detkit: the path below the folder, without `.yaml`."""
    return {config_name(path): path for path in sorted(own_folder().rglob("*.yaml"))}


def config_name(path: Path) -> str:
    """The name of one of detkit's own configs: the path below the folder of configs, without `.yaml`."""
    return path.relative_to(own_folder()).as_posix().removesuffix(".yaml")


def configs_named(text: str) -> list[Path]:
    """detkit's own configs of a name: the one whose path it is, else all whose file has that name."""
    name = text.removeprefix("detkit:").removeprefix("configs/").removesuffix(".yaml")
    configs = own_configs()
    if name in configs:
        return [configs[name]]
    return [path for known, path in configs.items() if known.rpartition("/")[2] == name]


def own_name(path: Path) -> str | None:
    """What stands for a config that came with detkit in a message: `detkit:configs/...`; None for any other."""
    if path.is_relative_to(own_folder()):
        return PREFIX + path.relative_to(own_folder()).as_posix()
    return f"detkit:{path.relative_to(PACKAGE).as_posix()}" if path.is_relative_to(PACKAGE) else None


def _file_in_package(text: str) -> Path | None:
    """The file that `package:path` means, whether it exists or not; None if the text does not begin with a package."""
    package, colon, inside = text.partition(":")
    spec = importlib.util.find_spec(package) if colon and package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)), inside).resolve()


def _not_found(text: str, searched: Path | None, beside: Path) -> str:
    """The message for a config that is not there. searched: the file, where the text does not name it; beside: its
    folder, whose other files may be meant."""
    configs = own_configs()
    if re.fullmatch(r"[\w+-][\w.+-]*(/[\w.+-]+)*", text) and not text.endswith(SUFFIXES):
        known = [*dict.fromkeys(name.rpartition("/")[2] for name in configs), *configs]
        return f"{text!r} is neither a config file nor the name of a config{nearest(text, known).rstrip('.')}; {LIST}"
    near = nearest(Path(text).name, [path.name for path in beside.glob("*.yaml")]).rstrip(".")
    near = near or nearest(text, [f"configs/{name}.yaml" for name in configs]).rstrip(".")
    where = "" if searched is None else f" ({printable(os.path.normpath(searched))})"
    return f"config file not found: {printable(text)}{where}{near or '; ' + LIST}"
