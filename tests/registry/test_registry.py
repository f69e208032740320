import dataclasses
import importlib.metadata
import importlib.util
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from detkit.backbones.base import Backbone
from detkit.backbones.resnet import ResNet
from detkit.coders.base import BoxCoder
from detkit.registry import BACKBONES, CODERS, HEADS, REGISTRIES, Registry, load_plugins
from detkit.registry import plugins as plugin_module
from tests.refusals import Refuses

KNOWN = r"(?<=Known: )[^.]*"
"""Other tests of the process may have registered parts."""


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    with BACKBONES.temporary():
        yield


def run_cell(source: str, name: str = "cell", **extra: Any) -> None:
    """Runs source as a notebook does: the same module, a file name that is no file."""
    module = types.ModuleType("__main__")
    exec(compile(source, f"<ipython-input-{name}>", "exec"), {"__name__": "__main__", **module.__dict__, **extra})


CELL = """
from detkit.backbones.base import Backbone
from detkit.registry import BACKBONES

@BACKBONES.register()
class CellNet(Backbone):
    def __init__(self, *, width: int = {width}) -> None:
        super().__init__()
"""


def test_a_cell_that_runs_again_replaces_its_class() -> None:
    run_cell(CELL.format(width=1), "1")
    run_cell(CELL.format(width=2), "2")
    assert BACKBONES.arguments("CellNet")["width"].default == 2


def test_a_cell_without_functions_of_its_own_registers_too() -> None:
    cell = CELL.partition("    def __init__")[0] + '    """A net."""'
    run_cell(cell, "1"), run_cell(cell, "2")
    assert BACKBONES.get("CellNet").__doc__ == "A net."


def load_file(path: Path, name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_file_that_runs_again_replaces_its_class_edited_or_not(tmp_path: Path) -> None:
    path = tmp_path / "cell_net.py"
    path.write_text(CELL.format(width=1))
    load_file(path, "first_name"), load_file(path, "second_name")
    path.write_text("# a new line moves the class\n" + CELL.format(width=2))
    load_file(path, "second_name")
    assert BACKBONES.arguments("CellNet")["width"].default == 2
    assert BACKBONES.entry("CellNet").location == f"{path}:8"


def test_a_name_of_a_built_in_part_is_the_newcomers_error_even_before_those_are_loaded(tmp_path: Path) -> None:
    (tmp_path / "early.py").write_text(CELL.format(width=1).replace("CellNet", "ResNet"))
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import early"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ValueError: backbones: the name 'ResNet' is taken by ResNet at" in done.stderr
    assert f"ResNet at {tmp_path / 'early.py'}:5 under another one" in done.stderr


def test_a_room_that_failed_to_load_is_tried_again_and_never_half_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = tmp_path / "room_of_parts"
    (room / "deep").mkdir(parents=True)
    (room / "__init__.py").write_text("class Base: ...\n")
    (room / "_private.py").write_text("1 / 0")
    (room / "deep/__init__.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(str(tmp_path))
    parts = Registry("parts", "room_of_parts:Base", "room_of_parts")
    monkeypatch.setattr("detkit.registry.registry.TEST_PARTS", parts, raising=False)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            parts.names()
    (room / "deep/__init__.py").write_text("# mended, and no longer of the same length\n")
    (room / "deep/part.py").write_text(
        "from detkit.registry.registry import TEST_PARTS\nfrom room_of_parts import Base\n"
        "@TEST_PARTS.register('Deep')\nclass Deep(Base): ...\n"
    )
    importlib.invalidate_caches()
    assert parts.names() == ["Deep"]


def test_the_same_name_from_another_place_names_both(refuses: Refuses) -> None:
    class ResNet(Backbone):
        def __init__(self, *, width: int = 1) -> None:
            super().__init__()

    with refuses(ValueError):
        BACKBONES.register()(ResNet)
    BACKBONES.register("MyResNet")(ResNet)
    assert BACKBONES.get("MyResNet") is ResNet


def test_a_class_of_another_kind_is_refused(refuses: Refuses) -> None:
    class NoNet:
        def __init__(self, *, width: int = 1) -> None: ...

    with refuses(ValueError):
        BACKBONES.register()(NoNet)


def net(init: Callable[..., Any]) -> type:
    return type("Net", (Backbone,), {"__init__": init})


def positional(self: Any, width: int = 1) -> None: ...
def unannotated(self: Any, *, width=1) -> None: ...  # type: ignore[no-untyped-def]
def starred(self: Any, **rest: int) -> None: ...
def bare(self: Any, *, widths: list = (1,)) -> None: ...  # type: ignore[assignment]


@pytest.mark.parametrize(
    "init",
    [
        positional,
        unannotated,
        starred,
        bare,
    ],
)
def test_a_constructor_that_is_no_schema_is_refused(refuses: Refuses, init: Callable[..., Any]) -> None:
    with refuses(ValueError):
        BACKBONES.register()(net(init))


def misfit(self: Any, *, width: int = 0.5) -> None: ...  # type: ignore[assignment]
def unfillable(self: Any, *, shape: Path) -> None: ...
def kept(self: Any, *, width: int = 1, shape: Path = Path()) -> None: ...


def test_arguments_that_no_config_could_give_are_named_with_their_place(refuses: Refuses) -> None:
    for init in (
        misfit,
        unfillable,
    ):
        with BACKBONES.temporary():
            BACKBONES.register()(net(init))
            with refuses(ValueError):
                BACKBONES.arguments("Net")
    BACKBONES.register()(net(kept))
    assert set(BACKBONES.arguments("Net")) == {"width"}
    assert BACKBONES.derived_arguments("Net") == {"shape": "its default, since a config can't hold a Path"}


def test_a_dataclass_is_a_part_with_its_factories_as_defaults() -> None:
    @dataclasses.dataclass(kw_only=True)
    class Weights(BoxCoder):
        values: list[float] = dataclasses.field(default_factory=lambda: [1.0, 2.0])

    with CODERS.temporary():
        CODERS.add(Weights, "Weights")
        assert CODERS.arguments("Weights")["values"].default == [1.0, 2.0]


def test_the_decorator_without_brackets_is_explained(refuses: Refuses) -> None:
    with refuses(ValueError):
        BACKBONES.register(ResNet)  # type: ignore[arg-type]


def test_an_unknown_name_says_what_is_near_and_what_was_imported(
    refuses: Refuses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin_module, "imported", [])
    with refuses(ValueError, hide=KNOWN):
        BACKBONES.get("ResNte")


def test_build_checks_arguments_and_hands_derived_ones_only_where_wanted(refuses: Refuses) -> None:
    net = BACKBONES.build({"type": "ResNet", "depth": 18, "norm": "gn"}, unasked=3)
    assert isinstance(net, ResNet)
    for node in (
        {"type": "ResNet", "dept": 18},
        {"type": "ResNet", "depth": "18"},
        {"type": "ResNet", "depth": 18, "freeze_at": 9},
    ):
        with refuses(ValueError):
            BACKBONES.build(node)
    with refuses(ValueError):
        HEADS.build({"type": "SharedTowerHead"})


def test_what_is_a_setting_and_what_is_derived() -> None:
    assert "num_convs" in HEADS.arguments("SharedTowerHead")
    assert "num_columns" not in HEADS.arguments("SharedTowerHead")
    assert set(HEADS.derived_arguments("SharedTowerHead")) == {
        "in_channels", "anchors_per_cell", "num_columns", "class_bias", "box_columns", "with_quality",
    }  # fmt: skip


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda r: r.name)
def test_every_registry_has_parts_and_every_part_says_what_it_is(registry: Registry) -> None:
    assert registry.names()
    for name in registry.names():
        assert (registry.get(name).__doc__ or "").strip(), f"{name} has no docstring"
        assert registry.arguments(name).keys().isdisjoint(registry.derived_arguments(name))


class Point:
    name, value = "mine", "my_package.parts"

    def __init__(self, load: Any) -> None:
        self.load = load


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    def install(load: Any) -> None:
        load_plugins.cache_clear()
        monkeypatch.setattr(plugin_module, "imported", [])
        monkeypatch.setattr(
            importlib.metadata, "entry_points", lambda group: [Point(load)] * (group == "detkit.plugins")
        )

    yield install
    load_plugins.cache_clear()


def test_plugins_are_loaded_once_and_shown_in_errors(refuses: Refuses, plugins: Callable[..., None]) -> None:
    calls = []
    plugins(lambda: calls.append(1))
    load_plugins(), load_plugins()
    assert calls == [1]
    with refuses(ValueError, hide=KNOWN):
        BACKBONES.get("Nothing")


def test_a_broken_plugin_is_named(refuses: Refuses, plugins: Callable[..., None]) -> None:
    def load() -> None:
        raise RuntimeError("no such thing")

    plugins(load)
    for _ in range(2):  # a second try must not pass as if the plugin were there
        with refuses(ImportError):
            load_plugins()


def test_threads_that_ask_at_once_all_find_the_built_in_parts() -> None:
    program = """
import sys, threading
from detkit.registry import REGISTRIES
sys.setswitchinterval(1e-6)
found, start = [], threading.Barrier(8)
def ask(k):
    start.wait()
    for i in range(len(REGISTRIES)):
        r = REGISTRIES[(i + k) % len(REGISTRIES)]
        found.append((r.name, tuple(r.names())))
threads = [threading.Thread(target=ask, args=(k,)) for k in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
assert len(found) == 8 * len(REGISTRIES), len(found)
for r in REGISTRIES:
    assert {names for name, names in found if name == r.name} == {tuple(r.names())}, r
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
