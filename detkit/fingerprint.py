"""Fingerprint of a run's code: a hash of every file that takes part, under a name that no folder changes.

Taking part are detkit's own Python files and native libraries, the files and modules of `imports:`, the packages of
plugins, modules that bring a part of the config, and whatever of these is imported by one of them, however deep. Of
installed packages that they import, all Python files count as one entry. What can't be seen: data files and
environment variables that code reads, and text that it runs by `exec`.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import inspect
import logging
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import FunctionType, ModuleType

from detkit.config import Config
from detkit.config.imports import loaded_file, resolved_file
from detkit.registry import PLUGIN_GROUP, REGISTRIES
from detkit.utils.types import Value

log = logging.getLogger("detkit")

Code = dict[str, str]
"""Name of a file -> hash of its content."""

OWN, NATIVE, PLUGIN, INSTALLED = "detkit/", "detkit/_C", "plugin ", "installed "
KNOWN_BY_VERSION = frozenset({"torch", "torchvision", "numpy", "PIL"})
"""Packages of which every run notes the version."""
PACKAGE = Path(__file__).resolve().parent
STANDARD = tuple(Path(sysconfig.get_path(kind)).resolve() for kind in ("stdlib", "platstdlib"))
AT_START = ("sitecustomize", "usercustomize")
GONE = "not there"
IMPORTED: dict[Path, tuple[ModuleSpec | None, str]] = {}
"""File -> the spec of the module that was loaded from it, which a reload replaces, and the hash of its content."""
SAID: set[tuple[Path, str]] = set()
"""Edits that the log has reported."""


def fingerprint(config: Config) -> Code:
    """The code of a run of this config, as its files are now."""
    values = config.to_dict()
    files = {f"{OWN}{path.relative_to(PACKAGE).as_posix()}": path for path in sorted(PACKAGE.rglob("*.py"))}
    files |= {f"{OWN}{path.name.partition('.')[0]}": path for path in native_libraries()}
    crawl = _Crawl()
    code = {name: crawl.hash_of(path) for name, path in files.items()}
    for module in plugin_modules():
        crawl.package(module)
    for entry in values.get("imports") or []:
        crawl.entry(str(entry))
    for cls in used_parts(values):
        crawl.part(cls)
    crawl.finish()
    return code | crawl.code


def digest(code: Code) -> str:
    """Twelve hex digits of a fingerprint."""
    text = "\n".join(f"{name} {value}" for name, value in sorted(code.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def source_alone(code: Code) -> Code:
    """Without the native libraries, which every machine may have compiled for itself."""
    return {name: value for name, value in code.items() if not name.startswith(NATIVE)}


def changes(old: Code, new: Code, *, gone: bool = True) -> list[str]:
    """A line for every file that is not the same; an identical file under another name is no change.

    gone: whether one that is no longer there counts.
    """
    lost, come = {n: old[n] for n in old.keys() - new.keys()}, {n: new[n] for n in new.keys() - old.keys()}
    moved = Counter(lost.values()) & Counter(come.values())
    lines = {name: f"{name} has changed" for name in old.keys() & new.keys() if old[name] != new[name]}
    for names, what in ((lost if gone else {}, "takes part no more"), (come, "takes part now and did not before")):
        left = Counter(moved)
        for name, value in sorted(names.items()):
            if left[value] > 0:
                left[value] -= 1
            else:
                lines[name] = f"{name} {what}"
    return [line for _, line in sorted(lines.items())]


def content_hash(paths: Iterable[Path]) -> str:
    """Sixteen hex digits of the content of files, one after the other."""
    sha = hashlib.sha256()
    for path in paths:
        try:
            sha.update(path.read_bytes())
        except OSError:
            sha.update(GONE.encode())
    return sha.hexdigest()[:16]


def native_libraries() -> list[Path]:
    """Files of the native libraries that are loaded."""
    from detkit.native.library import native

    loaded = {"_C": native.cpu, "_C_cuda": native.cuda}
    files = (path for end in ("so", "pyd", "dylib") for path in PACKAGE.glob(f"_C*.*{end}"))
    return sorted(path for path in files if loaded.get(path.name.partition(".")[0]))


def plugin_modules() -> list[str]:
    """Names of the modules behind every entry point of a plugin."""
    points = importlib.metadata.entry_points(group=PLUGIN_GROUP)
    return sorted({point.value.partition(":")[0].strip() for point in points})


def used_parts(values: Value) -> list[type]:
    """Classes that a config may mean by its types, but for detkit's own."""
    names = sorted({str(name) for name in types_of(values)})
    entries = [r.entry(name).cls for r in REGISTRIES for name in names if name in r.names()]
    return [cls for cls in entries if not cls.__module__.startswith("detkit.")]


def types_of(values: Value) -> Iterator[Value]:
    """Every value of a key `type`, however deep."""
    if isinstance(values, Mapping):
        if "type" in values:
            yield values["type"]
        values = list(values.values())
    if isinstance(values, list):
        for value in values:
            yield from types_of(value)


class _Crawl:
    """Collects files from one to the next that it imports. code: hash of each file that it has met, by name."""

    def __init__(self) -> None:
        self.code: Code = {}
        self._seen: set[Path] = set()
        self._installed: set[str] = set()
        self._folders: set[Path] = set()
        self._loaded = {
            file: module.__spec__
            for module in list(sys.modules.values())
            if (file := loaded_file(module)) is not None and vars(module).get("__spec__") is not None
        }

    def hash_of(self, file: Path) -> str:
        """Of the content that runs: a file that was edited after this process had imported it still runs as it was.

        The edit is said once. A file is known from the first fingerprint after its import.
        """
        now, spec = content_hash([file]), self._loaded.get(file)
        if spec is None:
            return now
        known = IMPORTED.setdefault(file, (spec, now))
        if known[0] is not spec:  # imported again, or reloaded
            known = IMPORTED[file] = spec, now
        if known[1] != now and (file, now) not in SAID:
            SAID.add((file, now))
            log.warning("%s was edited after this process had imported it: this run uses and records the old code; "
                        "restart Python to run the new one", file)  # fmt: skip
        return known[1]

    def entry(self, entry: str) -> None:
        """A file or module of `imports:`."""
        if not entry.endswith(".py"):
            file = file_of(entry)
            if file is not None and installed_package(file) is not None and not file.is_relative_to(PACKAGE):
                self.package(entry, "")  # file by file, as its parts are what the run is made of
            else:
                self.module(entry)
                self._folders |= {file.parent} if file is not None else set()
            return
        file = Path(entry).resolve()
        self._folders.add(file.parent)
        self.file(file, file.name, "")

    def part(self, cls: type) -> None:
        """The module that brings a part; of a notebook's cell, the text of the class."""
        if self.module(cls.__module__):
            return
        try:
            text = inspect.getsource(cls)
        except (OSError, TypeError):
            text = GONE
        self.code[f"{cls.__module__}:{cls.__qualname__}"] = hashlib.sha256(text.encode()).hexdigest()[:16]

    def package(self, module: str, prefix: str = PLUGIN) -> None:
        """All files of a plugin or of an installed package of parts: of its package, or the one file that it is."""
        top = module.partition(".")[0]
        self._installed.add(top)  # else its own imports would add it a second time, as one entry
        for folder in search_path(top) or []:
            for path in sorted(Path(folder).resolve().rglob("*")):
                if path.suffix in (".py", ".so", ".pyd"):
                    self.file(path, f"{prefix}{top}/{path.relative_to(Path(folder).resolve()).as_posix()}", "")
        if (file := file_of(module)) is not None:
            self.file(file, f"{prefix}{name_of(module, file)}", module)

    def module(self, name: str) -> bool:
        """A module, loaded or not; False if it has no file."""
        file = file_of(name)
        if file is not None:
            self.module_file(file, name)
        return file is not None

    def module_file(self, file: Path, name: str) -> None:
        """The file of a module, wherever it belongs."""
        if file.is_relative_to(PACKAGE) or any(file.is_relative_to(folder) for folder in STANDARD):
            return
        if (top := installed_package(file)) is not None:
            self.installed(top)
        else:
            self.file(file, name_of(name, file), name)

    def installed(self, top: str) -> None:
        """An installed package, as one entry."""
        if top in KNOWN_BY_VERSION or top in self._installed:
            return
        self._installed.add(top)
        folders = [Path(folder) for folder in search_path(top) or []]
        file = file_of(top)
        files = [p for folder in folders for p in sorted(folder.rglob("*.py"))] or ([file] if file else [])
        self.code[f"{INSTALLED}{top}"] = content_hash(files)

    def file(self, file: Path, name: str, module: str) -> None:
        """A file and what it imports. module: its dotted name, which relative imports start from."""
        if file in self._seen:
            return
        self._seen.add(file)
        number, unique = 1, name
        while unique in self.code:
            number += 1
            unique = f"{name} ({number})"
        self.code[unique] = self.hash_of(file)
        package = module if file.name == "__init__.py" else module.rpartition(".")[0]
        for other in imports_of(file, package):
            self.module(other)
        for path, other in held_by(file):
            self.module_file(path, other)

    def finish(self) -> None:
        """Adds modules that lie beside an imported file and were loaded in a way that no `import` shows.

        Also those that Python itself loads at its start, which may replace what others define.
        """
        for name in AT_START:
            if name in sys.modules:
                self.module(name)
        for name, module in sorted(sys.modules.items()):
            file = loaded_file(module)
            if file is not None and any(file.is_relative_to(folder) for folder in self._folders):
                self.module(name)


def imports_of(file: Path, package: str) -> list[str]:
    """Dotted names of all that a source file imports, at its top or in a function; parents come first."""
    if file.suffix != ".py":
        return []
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, ValueError, SyntaxError):
        return []
    names: dict[str, None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level and not package:
                continue  # of a plugin, all of whose files count, or no module at all
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            wanted = [base, *(f"{base}.{alias.name}" for alias in node.names)] if base else []
        else:
            continue
        for name in wanted:
            parts = name.split(".")
            names |= dict.fromkeys(".".join(parts[: i + 1]) for i in range(len(parts)))
    return list(names)


def held_by(file: Path) -> list[tuple[Path, str]]:
    """Files and modules whose modules, functions or classes a loaded file holds, in whatever way they came."""
    origins: dict[tuple[Path, str], None] = {}
    for module in list(sys.modules.values()):
        if loaded_file(module) != file:
            continue
        for value in list(vars(module).values()):
            path, name = origin_of(value)
            if path is not None and path != file:
                origins[path, name] = None
    return list(origins)


def origin_of(value: object) -> tuple[Path | None, str]:
    """Where a module, class or function was written: its file, and the name of its module."""
    if isinstance(value, ModuleType):
        return loaded_file(value), value.__name__
    functions = [value] if isinstance(value, FunctionType) else []
    if isinstance(value, type):
        functions = [
            f for f in vars(value).values() if isinstance(f, FunctionType) and f.__module__ == value.__module__
        ]
    for function in functions:
        path, name = resolved_file(function.__code__.co_filename), str(function.__module__)
        return path, name if path == loaded_file(sys.modules.get(name)) else getattr(path, "stem", name)
    return None, ""


def file_of(name: str) -> Path | None:
    """The file of a module, found without importing it; None for one without a file."""
    module = sys.modules.get(name)
    if module is not None:
        return loaded_file(module)
    if name.partition(".")[0] in sys.stdlib_module_names:
        return None
    spec = find(name)
    origin = spec.origin if spec is not None else None
    return Path(origin).resolve() if origin and Path(origin).is_file() else None


def search_path(name: str) -> list[str] | None:
    """The folders of a package; None for a module that is none, or isn't found."""
    module = sys.modules.get(name)
    if module is not None:
        folders = getattr(module, "__dict__", {}).get("__path__")
        return None if folders is None else list(folders)
    spec = find(name)
    folders = spec.submodule_search_locations if spec is not None else None
    return None if folders is None else list(folders)


def find(name: str) -> ModuleSpec | None:
    """The spec of a module that is not loaded, parents first, none of them imported."""
    parent = name.rpartition(".")[0]
    folders = search_path(parent) if parent else None
    if parent and folders is None:
        return None
    try:
        return PathFinder.find_spec(name, folders)
    except (ImportError, ValueError, AttributeError):
        return None


def name_of(module: str, file: Path) -> str:
    """`a.b` -> a/b.py; of a script or a bare file, its own name."""
    if module == "__main__" or module.startswith("detkit_import_"):
        return file.name
    base = module.replace(".", "/")
    return f"{base}/__init__.py" if file.name == "__init__.py" else base + file.suffix


def installed_package(file: Path) -> str | None:
    """The installed package that a file belongs to; None for a file of somebody's project."""
    for site in ("site-packages", "dist-packages"):
        if site in file.parts:
            return file.parts[file.parts.index(site) + 1].partition(".")[0]
    return None
