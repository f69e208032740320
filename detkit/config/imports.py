"""The entries of `imports:`: modules and bare files that register parts."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import sys
import traceback
from pathlib import Path

from detkit import registry
from detkit.config.paths import PathResolver
from detkit.config.raw import ConfigError, short_path

PREFIX = "detkit_import_"
"""How the module of a bare file is named."""


def import_entry(entry: str, folder: Path, location: str, resolver: PathResolver | None = None) -> str:
    """Imports a module or a bare file (relative to `folder`); returns the entry as a saved config can use it.

    location: what an error names, as in "configs/mine.yaml:3". resolver: knows which folders have moved.
    """
    try:
        if not entry.endswith(".py"):
            importlib.import_module(entry)
            registry.note_import(entry)
            return entry
        file = (folder / entry).resolve()
        file = Path(resolver.move(str(file))) if resolver else file
        if not file.is_file():
            raise FileNotFoundError(f"file not found: {short_path(file)}")
        import_file(file)
        registry.note_import(short_path(file))
        return str(file)
    except (Exception, SystemExit) as error:
        text = f"{type(error).__name__}: {error}{_raised_at(error)}{_import_hint(entry, folder, error)}"
        raise ConfigError([f"{location}: imports: {entry!r}: {text}"]) from error


def _raised_at(error: BaseException) -> str:
    """` (file.py:3)`: where imported code failed; empty if it never ran. A SyntaxError names its line itself."""
    skipped = (Path(__file__).parents[1], Path(importlib.__file__ or "").parent)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen")
        and not any(Path(frame.filename).is_relative_to(folder) for folder in skipped)
    ]
    return f" ({short_path(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""


def _import_hint(entry: str, folder: Path, error: BaseException) -> str:
    """The way out where a module is not installed: an existing bare file, or installing its package."""
    if not isinstance(error, ModuleNotFoundError) or error.name is None or not f"{entry}.".startswith(f"{error.name}."):
        return ""
    file = Path(*entry.split(".")).with_suffix(".py")
    if (folder / file).is_file():
        return f"; for the file write ./{file.as_posix()}"
    return "; install its package, or name a file by its path, as in ./my_net.py"


def import_file(file: Path) -> None:
    """Runs a bare file as a module, once per process; the files beside it are not on the import path.

    A file that was imported by an ordinary import is not run again: that would make its classes twice.
    """
    if any(loaded_file(module) == file for module in list(sys.modules.values())):
        return
    module_name = f"{PREFIX}{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(module_name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise


def imported_files() -> list[str]:
    """The bare files that were imported, in their order."""
    modules = [module for name, module in list(sys.modules.items()) if name.startswith(PREFIX)]
    return [str(file) for module in modules if (file := loaded_file(module))]


def loaded_file(module: object) -> Path | None:
    """A loaded module's file, without triggering modules that import themselves on attribute access."""
    file = getattr(module, "__dict__", {}).get("__file__")
    return resolved_file(file) if isinstance(file, str) else None


@functools.cache
def resolved_file(file: str) -> Path | None:
    """The absolute path of a file; None if there is none."""
    path = Path(file).resolve()
    return path if path.is_file() else None
