import importlib.metadata
import types

import pytest

from detkit import registry as registry_module
from detkit.backbones.base import Backbone
from detkit.backbones.resnet import ResNet
from detkit.registry import BACKBONES, HEADS, REGISTRIES, load_plugins


@pytest.fixture(autouse=True)
def forget():
    with BACKBONES.temporary():
        yield


def run_cell(source, name="cell", **extra):
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


def test_a_cell_that_runs_again_replaces_its_class():
    run_cell(CELL.format(width=1), "1")
    run_cell(CELL.format(width=2), "2")
    assert BACKBONES.arguments("CellNet")["width"].default == 2


def test_the_same_name_from_another_place_names_both():
    class ResNet(Backbone):
        def __init__(self, *, width: int = 1) -> None:
            super().__init__()

    with pytest.raises(ValueError, match=r"'ResNet' is taken by ResNet at .*resnet.py:\d+.*test_registry.py:\d+"):
        BACKBONES.register()(ResNet)
    BACKBONES.register("MyResNet")(ResNet)
    assert BACKBONES.get("MyResNet") is ResNet


def test_a_class_of_another_kind_is_refused():
    class NoNet:
        def __init__(self, *, width: int = 1) -> None: ...

    with pytest.raises(ValueError, match=r"NoNet can't go into backbones: .*detkit.backbones.base.Backbone"):
        BACKBONES.register()(NoNet)


def net(init):
    return type("Net", (Backbone,), {"__init__": init})


def positional(self, width: int = 1) -> None: ...
def unannotated(self, *, width=1) -> None: ...
def starred(self, **rest: int) -> None: ...


@pytest.mark.parametrize(
    ("init", "text"),
    [
        (positional, "'width' is positional"),
        (unannotated, "'width' has no type annotation"),
        (starred, r"takes \*rest"),
    ],
)
def test_a_constructor_that_is_no_schema_is_refused(init, text):
    with pytest.raises(ValueError, match=text):
        BACKBONES.register()(net(init))


def test_the_decorator_without_brackets_is_explained():
    with pytest.raises(ValueError, match=r"with brackets over ResNet"):
        BACKBONES.register(ResNet)


def test_an_unknown_name_says_what_is_near_and_what_was_imported():
    with pytest.raises(
        ValueError, match=r"'ResNte' is not in backbones; did you mean ResNet\?.*detkit.backbones.*`imports:`"
    ):
        BACKBONES.get("ResNte")
    with pytest.raises(ValueError, match="not in backbones"):
        BACKBONES.unregister("Nothing")


def test_build_checks_arguments_and_hands_derived_ones_only_where_wanted():
    net = BACKBONES.build({"type": "ResNet", "depth": 18, "norm": "gn"}, unasked=3)
    assert isinstance(net, ResNet)
    for node, text in (
        ({"type": "ResNet", "dept": 18}, "unknown argument 'dept'; did you mean depth"),
        ({"type": "ResNet", "depth": "18"}, "ResNet.depth: '18' is not one of"),
        ({"type": "ResNet", "depth": 18, "freeze_at": 9}, "ResNet: freeze_at: 9"),
    ):
        with pytest.raises(ValueError, match=text):
            BACKBONES.build(node)
    with pytest.raises(ValueError, match="missing argument in_channels, anchors_per_cell"):
        HEADS.build({"type": "SharedTowerHead"})


def test_what_is_a_setting_and_what_is_derived():
    assert "num_convs" in HEADS.arguments("SharedTowerHead")
    assert "num_columns" not in HEADS.arguments("SharedTowerHead")
    assert set(HEADS.derived_arguments("SharedTowerHead")) == {
        "in_channels", "anchors_per_cell", "num_columns", "class_bias",
    }  # fmt: skip


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda r: r.name)
def test_every_registry_has_parts_and_every_part_says_what_it_is(registry):
    assert registry.names()
    for name in registry.names():
        assert (registry.get(name).__doc__ or "").strip(), f"{name} has no docstring"
        assert registry.arguments(name).keys().isdisjoint(registry.derived_arguments(name))


class Point:
    name, value = "mine", "my_package.parts"

    def __init__(self, load):
        self.load = load


@pytest.fixture
def plugins(monkeypatch):
    def install(load):
        monkeypatch.setattr(registry_module, "_plugins_loaded", [])
        monkeypatch.setattr(registry_module, "imported", [])
        monkeypatch.setattr(
            importlib.metadata, "entry_points", lambda group: [Point(load)] * (group == "detkit.plugins")
        )

    return install


def test_plugins_are_loaded_once_and_shown_in_errors(plugins):
    calls = []
    plugins(lambda: calls.append(1))
    load_plugins(), load_plugins()
    assert calls == [1]
    with pytest.raises(ValueError, match=r"my_package.parts \(plugin\)"):
        BACKBONES.get("Nothing")


def test_a_broken_plugin_is_named(plugins):
    def load():
        raise RuntimeError("no such thing")

    plugins(load)
    with pytest.raises(
        ImportError, match=r"plugin 'mine' \(my_package.parts\) can't be imported: RuntimeError: no such"
    ):
        load_plugins()
