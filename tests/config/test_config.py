"""Every way in which a config can be wrong, and that each is named with its file, line, key and way out."""

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detkit.config import Config, load_config
from detkit.config.raw import parse_file
from detkit.registry import BACKBONES
from tests.refusals import Refuses

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "configs/base/retinanet.yaml"
FRAGMENTS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "configs/losses").glob("*.yaml"))
TRAININGS = {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs/training").glob("*.yaml")}
CONFIGS = sorted(
    {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml")} - {*FRAGMENTS, *TRAININGS}
)


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    with BACKBONES.temporary():
        yield


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a config that overlays RetinaNet; gives its path."""

    def make(text: str, name: str = "mine.yaml", base: Path | str | None = BASE) -> Path:
        path = tmp_path / name
        path.write_text(f"_base_: {base}\n{text}" if base else text)
        return path

    return make


def error_of(path: Path, *overrides: Any) -> str:
    with pytest.raises(ValueError) as caught:
        load_config(path, overrides)
    return str(caught.value)


@pytest.mark.parametrize("path", CONFIGS)
def test_every_config_of_the_repository_is_right(path: str) -> None:
    load_config(ROOT / path)


@pytest.mark.parametrize("base", ["base/retinanet.yaml", "quickstart/shapes.yaml"])
@pytest.mark.parametrize("fragment", FRAGMENTS)
def test_every_fragment_goes_over_a_config(tmp_path: Path, fragment: str, base: str) -> None:
    path = tmp_path / "both.yaml"
    path.write_text(f"_base_: [{ROOT / 'configs' / base}, {ROOT / fragment}]\n")
    config, (values, _) = load_config(path), parse_file(ROOT / fragment)
    for slot, part in values["losses"].items():
        assert lies_in(part, config.losses[slot])
        assert fragment in config.origin(f"losses.{slot}.type")


def lies_in(part: Any, whole: Any) -> bool:
    """Whether every value of nested mappings is in `whole`, which may have more."""
    return all(lies_in(v, whole[k]) if isinstance(v, dict) else whole[k] == v for k, v in part.items())


@pytest.mark.parametrize(
    ("text", "line", "parts"),
    [
        ("backbon: 3", 2, ["backbon: unknown key at the top level", "did you mean backbone?"]),
        ("backbone:\n  dept: 18", 3, ["backbone.dept: unknown key of ResNet", "did you mean depth?"]),
        ("losses:\n  clasification: {}", 3, ["losses.clasification: unknown key", "did you mean classification?"]),
        ("losses:\n  box:\n    bta: 1", 4, ["losses.box.bta", "did you mean beta?"]),
        ("data:\n  loader:\n    batchsize: 3", 4, ["data.loader.batchsize", "did you mean batch_size?"]),
        ("backbone:\n  depth: '18'", 3, ["backbone.depth: '18' is not one of 18, 34, 50"]),
        ("backbone:\n  depth: 19", 3, ["backbone.depth: 19 is not one of"]),
        ("backbone:\n  norm: batchnorm", 3, ["backbone.norm: 'batchnorm' is not one of frozen_bn, bn"]),
        ("backbone:\n  freeze_at: 1.5", 3, ["backbone.freeze_at: 1.5 is not an int"]),
        ("backbone:\n  freeze_at: true", 3, ["backbone.freeze_at: true is not an int"]),
        ("anchors:\n  aspect_ratios: 3", 3, ["anchors.aspect_ratios: 3 is not a list of float"]),
        ("coder:\n  weights: [1, 2, 3]", 3, ["coder.weights: [1, 2, 3] is not a list of 4"]),
        ("backbone: resnet50", 2, ["backbone: expected a part"]),
        ("backbone:\n  type: ResNett", 3, ["'ResNett' is not in backbones", "did you mean ResNet?", "`imports:`"]),
        ("head:\n  num_columns: 3", 3, ["head.num_columns: is derived", "remove this key"]),
        ("neck:\n  in_shapes: {}", 3, ["neck.in_shapes: is derived", "the backbone's levels"]),
        ("head:\n  num_classes: 3", 3, ["head.num_classes", "come from the data set"]),
        ("num_classes: 3", 2, ["num_classes", "come from the data set"]),
        ("train: {}", 2, ["train.iterations: missing"]),
        ("train:\n  iterations: -1", 3, ["iterations", "-1"]),
        ("data:\n  train:\n    dataset:\n      type: CocoDataset", 4, ["dataset.annotations: missing"]),
        ("data:\n  train:\n    transforms: 3", 4, ["data.train.transforms: expected a list"]),
        ("postprocess:\n  score_threshold: 2.0", 3, ["postprocess.score_threshold: 2 must be at least 0 and"]),
        ("pixels:\n  std: [0, 1, 1]", 3, ["pixels.std"]),
        ("imports: [nowhere_to_be_found]", 2, ["imports: 'nowhere_to_be_found': ModuleNotFoundError"]),
        ("imports: [./nowhere.py]", 2, ["imports: './nowhere.py'", "file not found"]),
        ("imports: ./net.py", 2, ["imports: must be a list of modules and files, as in [./my_net.py], not './net.py'"]),
        ("seed: ${nothing.here}", 2, ["seed: Interpolation key 'nothing.here' not found"]),
        ("pixels:\n  mean:\n    - ???", 4, ["pixels.mean.0: missing value (`???`)"]),
        ("backbone:\n  type: [ResNet]", 3, ["backbone.type: ['ResNet'] is not a name; must be one of", "ResNet"]),
        ("assigner:\n  positive: 0.3\n  negative: 0.5", None, ["assigner.negative: 0.5 must not exceed positive: 0.3"]),
        ("schedule:\n  type: Cosine\n  final_factor: 3", 4, ["schedule.final_factor: 3 must be between 0 and 1"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_place(
    write: Callable[..., Path], text: str, line: int | None, parts: list[str]
) -> None:
    path = write(text)
    message = error_of(path)
    assert f"{path}:{line}:" in message if line else str(path) in message
    for part in parts:
        assert part in message


def test_all_errors_are_told_at_once(write: Callable[..., Path]) -> None:
    message = error_of(write("backbon: 1\nhead:\n  norms: gn\nneck:\n  chanels: 3"))
    assert len(message.splitlines()) == 3


def test_missing_parts_and_types_are_named(write: Callable[..., Path]) -> None:
    message = error_of(write("backbone: {depth: 18}", base=None))
    assert "backbone.type: missing, one of" in message
    assert "neck: missing: give it a `type`" in message


def test_broken_yaml_names_the_line(refuses: Refuses, write: Callable[..., Path]) -> None:
    with refuses(ValueError):
        load_config(write("a: [1,\nb: }"))
    with refuses(ValueError):
        load_config(write("head:\n\tnorm: gn"))
    with refuses(ValueError):
        load_config(write("seed: 1\nseed: 2"))
    with refuses(ValueError):
        load_config(write("- 1", base=None))
    with refuses(ValueError):
        load_config(write("seed: ${"))
    latin = write("")
    latin.write_bytes(b"seed: 1 # \xe9\xff")
    with refuses(ValueError):
        load_config(latin)


@pytest.mark.parametrize("base", ["", "3", "{a: 1}", "[1]"])
def test_a_base_is_a_file_or_files(refuses: Refuses, write: Callable[..., Path], base: str) -> None:
    with refuses(ValueError):
        load_config(write(f"_base_: {base}", base=None))


def test_files_that_are_not_there(refuses: Refuses, write: Callable[..., Path], tmp_path: Path) -> None:
    write("seed: 1", name="mine.yaml")
    with refuses(FileNotFoundError):
        load_config(tmp_path / "mein.yaml")
    with refuses(FileNotFoundError):
        load_config(write("", name="child.yaml", base="gone.yaml"))
    write("", name="a.yaml", base="b.yaml")
    with refuses(ValueError):
        load_config(write("", name="b.yaml", base="a.yaml").parent / "a.yaml")


def test_overlays_merge_and_remember_their_origin(write: Callable[..., Path], tmp_path: Path) -> None:
    write("backbone: {depth: 18, norm: gn}\nanchors:\n  aspect_ratios: [1, 2]", name="below.yaml")
    path = write("backbone:\n  depth: 34\nanchors:\n  aspect_ratios: [3]", name="above.yaml", base="below.yaml")
    config = load_config(path, ["backbone.freeze_at=1"])
    assert config.backbone == {**config.to_dict()["backbone"], "depth": 34, "norm": "gn", "freeze_at": 1}
    assert list(config.anchors.aspect_ratios) == [3.0]
    assert config.origin("backbone.depth") == f"{tmp_path / 'above.yaml'}:3"
    assert config.origin("backbone.norm") == f"{tmp_path / 'below.yaml'}:2"
    assert config.origin("backbone.type").endswith("configs/base/retinanet.yaml:3")
    assert config.origin("backbone.freeze_at") == "command line (backbone.freeze_at=1)"
    assert config.origin("backbone.in_channels") == "default of ResNet"


def test_several_bases_are_laid_in_order(write: Callable[..., Path]) -> None:
    write("seed: 1\nbackbone: {depth: 18}", name="one.yaml")
    write("seed: 2", name="two.yaml", base=None)
    config = load_config(write("", name="both.yaml", base="[one.yaml, two.yaml]"))
    assert (config.seed, config.backbone.depth) == (2, 18)


def test_another_type_drops_the_arguments_of_the_old_one(write: Callable[..., Path]) -> None:
    path = write("losses:\n  box:\n    beta: 0.5")
    assert load_config(path).losses.box.beta == 0.5
    above = write("losses:\n  box:\n    type: GIoULoss", name="above.yaml", base="mine.yaml")
    assert load_config(above).to_dict()["losses"]["box"] == {"type": "GIoULoss", "weight": 1.0}
    by_override = load_config(path, ["losses.box.type=GIoULoss", "losses.box.weight=2"])
    assert by_override.to_dict()["losses"]["box"] == {"type": "GIoULoss", "weight": 2.0}
    whole = load_config(path, ["losses.box={type: L1Loss, weight: 3}"])
    assert whole.to_dict()["losses"]["box"] == {"type": "L1Loss", "weight": 3.0}
    assert whole.origin("losses.box.weight").startswith("command line")


def test_a_part_that_leaves_its_default_type_unsaid_keeps_its_arguments(write: Callable[..., Path]) -> None:
    below = yaml.safe_load(BASE.read_text())
    below["coder"] = {"weights": [1, 2, 3, 4]}
    write(yaml.safe_dump(below), name="below.yaml", base=None)
    above = write("coder: {type: DeltaCoder}", name="above.yaml", base="below.yaml")
    for config in (load_config(above), load_config(above.parent / "below.yaml", ["coder.type=DeltaCoder"])):
        assert list(config.coder.weights) == [1, 2, 3, 4]


@pytest.mark.parametrize("change", ["losses.box.type=GIoULoss", "losses.box={type: GIoULoss}"])
def test_no_override_drops_an_earlier_one_unsaid(refuses: Refuses, write: Callable[..., Path], change: str) -> None:
    with refuses(ValueError):
        load_config(write(""), ["losses.box.weight=2", change])


def test_overrides_are_read_as_yaml(write: Callable[..., Path]) -> None:
    text = "data:\n  train:\n    dataset: {type: ShapesDataset}\n    transforms:\n      - {type: RandomHorizontalFlip}"
    config = load_config(
        write(text), ["seed=7", "losses.classification.alpha=null", "losses.classification.gamma=1e-3",
                      "data.train.transforms.0.p=0.25", "anchors.aspect_ratios=[1, 2.5]"],
    )  # fmt: skip
    assert config.seed == 7
    assert config.losses.classification.alpha is None
    assert config.losses.classification.gamma == 0.001
    assert config.data.train.transforms[0].p == 0.25
    assert list(config.anchors.aspect_ratios) == [1.0, 2.5]


@pytest.mark.parametrize(
    "override",
    ["seed", "=3", "seed=[1",
     "losses.box.weight=.nan", "train.clip_norm=.nan",
     "data.train.transforms.4.p=1", "optimiser.lr=1",
     "seed=${", "imports=./a.py",
     "imports.0=./a.py"],
)  # fmt: skip
def test_senseless_overrides_are_named(refuses: Refuses, write: Callable[..., Path], override: str) -> None:
    with refuses(ValueError):
        load_config(write(""), [override])


def test_a_list_index_outside_the_list(refuses: Refuses, write: Callable[..., Path]) -> None:
    text = "data:\n  train:\n    dataset: {type: ShapesDataset}\n    transforms: []"
    with refuses(ValueError):
        load_config(write(text), ["data.train.transforms.0.p=1"])


def test_the_dump_loads_alone_to_the_same_config(write: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "part.py").write_text(PART)
    config = load_config(write("imports: [./part.py]\nbackbone: {type: ImportedNet, width: 3}"))
    dumped = tmp_path / "elsewhere" / "config.yaml"
    dumped.parent.mkdir()
    dumped.write_text(config.to_yaml())
    again = load_config(dumped)
    assert again == config
    assert again.hash() == config.hash() == Config.from_dict(config.to_dict()).hash()
    assert load_config(dumped, ["seed=1"]).hash() != config.hash()
    assert yaml.safe_load(config.to_yaml())["backbone"]["width"] == 3


TEXTS = st.one_of(
    st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"], exclude_characters="$"), max_size=12),
    st.sampled_from(
        ["1e-3", "0E0", "null", "~", "true", "on", "1:30", "0x1f", "1_0", "2020-01-01", ".5", "- a", "# a"]
    ),
)
NUMBERS = st.floats(min_value=1e-12, max_value=1e12)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    weights=st.none() | TEXTS.filter(lambda text: text != "???" and "/" not in text),
    features=st.none() | st.lists(st.sampled_from(["c2", "c3", "c4", "c5"]), min_size=1),
    ratios=st.lists(st.floats(1e-4, 1e4), min_size=1, max_size=4),
    seed=st.integers(0, 2**31 - 1),
    box=st.sampled_from([{"type": "L1Loss"}, {"type": "GIoULoss", "weight": 3}])
    | st.fixed_dictionaries({"beta": NUMBERS}),
)
def test_whatever_a_config_holds_its_dump_loads_to_the_same(
    tmp_path: Path, weights: str | None, features: list[str] | None, ratios: list[float], seed: int, box: dict[str, Any]
) -> None:
    over = {"_base_": str(BASE), "backbone": {"weights": weights, "out_features": features}, "seed": seed}
    over |= {"anchors": {"aspect_ratios": ratios}, "losses": {"box": box}}
    (tmp_path / "over.yaml").write_text(json.dumps(over))
    config = load_config(tmp_path / "over.yaml")
    assert config.backbone.weights == weights
    assert list(config.anchors.aspect_ratios) == ratios
    (tmp_path / "dump.yaml").write_text(config.to_yaml(), encoding="utf-8")
    again = load_config(tmp_path / "dump.yaml")
    assert again.to_dict() == config.to_dict()
    assert again.hash() == config.hash()


PART = """
from detkit.backbones.base import Backbone
from detkit.config.raw import parse_file
from detkit.registry import BACKBONES
from detkit.structures import FeatureShape

@BACKBONES.register()
class ImportedNet(Backbone):
    def __init__(self, *, width: int = 8) -> None:
        super().__init__()
        self.out_shapes = {"c3": FeatureShape(width, 8)}
"""


def test_imports_take_bare_files_and_report_what_broke_in_them(write: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "part.py").write_text(PART)
    assert load_config(write("imports: [part.py]\nbackbone: {type: ImportedNet}")).backbone.width == 8
    assert BACKBONES.entry("ImportedNet").file == str(tmp_path / "part.py")
    for source, text in {
        "\n1 / 0": f"ZeroDivisionError: division by zero ({tmp_path / 'broken.py'}:2)",
        "raise SystemExit(3)": f"SystemExit: 3 ({tmp_path / 'broken.py'}:1)",
        "def f(:": "SyntaxError: ",
    }.items():
        (tmp_path / "broken.py").write_text(source)
        assert f"mine.yaml:2: imports: 'broken.py': {text}" in error_of(write("imports: [broken.py]"))


def test_a_module_that_is_not_installed_points_to_the_file(write: Callable[..., Path], tmp_path: Path) -> None:
    assert "; install its package, or name a file" in error_of(write("imports: [my_parts.nets]"))
    (tmp_path / "my_parts").mkdir()
    (tmp_path / "my_parts/nets.py").write_text(PART)
    assert "; for the file write ./my_parts/nets.py" in error_of(write("imports: [my_parts.nets]"))


def test_a_file_that_was_imported_by_name_is_not_run_again(
    write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "named_part.py").write_text(PART)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("named_part")
    load_config(write("imports: [./named_part.py]\nbackbone: {type: ImportedNet}"))
    assert BACKBONES.get("ImportedNet") is module.ImportedNet


def test_overridden_imports_replace_those_of_the_file(
    write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text("")
    monkeypatch.chdir(tmp_path)
    config = load_config(write("imports: [./one.py]"), ["imports=[./two.py]"])
    assert list(config.imports) == [str(tmp_path / "two.py")]
    assert list(load_config(write("imports: [./one.py]"), ["imports=[]"]).imports) == []


def test_configs_are_frozen_and_say_what_they_lack(refuses: Refuses, write: Callable[..., Path]) -> None:
    from omegaconf.errors import ReadonlyConfigError

    config = load_config(write("backbone: {depth: 18}"))
    with pytest.raises(ReadonlyConfigError):
        config.backbone.depth = 50
    with refuses(AttributeError):
        config.seed = 7
    with refuses(ValueError):
        config.require("data.train")
    with refuses(AttributeError):
        _ = config.optimizer
    assert "optimizer" not in config
    assert "backbone.depth" in config
    assert "backbone.weights" in config, "a value that is null is there"
    assert config.backbone.weights is None
    assert config.options("postprocess").max_detections == 100


def test_loading_needs_no_torchvision_and_no_weights() -> None:
    code = (
        "import sys, detkit.config as c; c.load_config(sys.argv[1]); "
        "assert 'torchvision' not in sys.modules and 'matplotlib' not in sys.modules"
    )
    quick = ROOT / "configs/quickstart/shapes.yaml"  # its transforms are torchvision's
    subprocess.run([sys.executable, "-c", code, str(quick)], check=True)


def test_a_base_inside_an_installed_package(refuses: Refuses, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("_base_: detkit:scaffold/base.yaml\nneck: {channels: 32}\n")
    config = load_config(tmp_path / "own.yaml")
    assert (config.neck.channels, config.backbone.depth) == (32, 18)
    for base in ("detkit:scaffold/none.yaml", "no_such_package:base.yaml"):
        (tmp_path / "own.yaml").write_text(f"_base_: {base}\n")
        with refuses(FileNotFoundError):
            load_config(tmp_path / "own.yaml")


@pytest.mark.parametrize("overrides", ["seed=1", [("seed", 1)]])
def test_overrides_that_are_no_list_are_not_taken_letter_by_letter(refuses: Refuses, overrides: Any) -> None:
    with refuses(ValueError):
        load_config(ROOT / "configs/quickstart/shapes.yaml", overrides)
