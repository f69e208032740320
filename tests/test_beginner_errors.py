"""What somebody with a first backbone gets wrong, and what detkit says to it: word for word, from `detkit train`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from detkit.cli import main
from detkit.registry import BACKBONES, plugins

GOOD = """import torch
from torch import Tensor, nn
from detkit.backbones.base import Backbone
from detkit.registry import BACKBONES
from detkit.structures import FeatureShape

@BACKBONES.register()
class MyNet(Backbone):
    def __init__(self, *, width: int = 8) -> None:
        super().__init__()
        self.fine = nn.Conv2d(3, width, 8, 8)
        self.coarse = nn.Conv2d(width, width, 2, 2)
        self.out_shapes = {"c3": FeatureShape(width, 8), "c4": FeatureShape(width, 16)}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        fine = self.fine(images)
        return {"c3": fine, "c4": self.coarse(fine)}
"""
SHAPES = '        self.out_shapes = {"c3": FeatureShape(width, 8), "c4": FeatureShape(width, 16)}\n'
MAPS = 'return {"c3": fine, "c4": self.coarse(fine)}'
CONFIG = "_base_: detkit:scaffold/base.yaml\nimports: [./my_net.py]\nbackbone: {type: MyNet}\n"


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Writes my_net.py with one mistake and a config, runs one step, gives back what the user reads."""
    monkeypatch.setattr(plugins, "imported", [])

    def run(old: str = "", new: str = "", config: Any = CONFIG) -> Any:
        assert old in GOOD
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        monkeypatch.chdir(folder)
        Path("my_net.py").write_text(GOOD.replace(old, new), encoding="utf-8")
        Path("my_net.yaml").write_text(config, encoding="utf-8")
        short = [
            "train.iterations=1",
            "schedule.warmup_iterations=0",
            "data.train.dataset.num_images=2",
            "data.val.dataset.num_images=1",
        ]
        with BACKBONES.temporary():
            code = main(["train", "my_net.yaml", *short, "data.loader.batch_size=2"])
        text = capsys.readouterr().err
        assert code == (0 if not old and config == CONFIG else 2), text
        return text.partition("error: ")[2].strip()

    return run


def test_without_a_mistake_it_trains(said: Callable[..., Any]) -> None:
    said()
    assert Path("runs/my_net/result.json").exists()


def test_the_part_is_not_imported(said: Callable[..., Any]) -> None:
    assert said(config=CONFIG.replace("imports: [./my_net.py]\n", "")) == (
        "my_net.yaml:2: backbone.type: 'MyNet' is not in backbones. Known: "
        f"{', '.join(BACKBONES.names())}. Imported: detkit.backbones (built in). If you defined it in a file of your "
        "own, add that file or module to `imports:` in the config."
    )


def test_the_file_is_not_where_the_config_says(said: Callable[..., Any]) -> None:
    assert said(config=CONFIG.replace("./my_net.py", "./net.py")) == (
        "my_net.yaml:2: imports: './net.py': FileNotFoundError: no file net.py"
    )
    assert said(config=CONFIG.replace("./my_net.py", "my_net")).endswith("; for the file write ./my_net.py")


def test_the_name_is_taken(said: Callable[..., Any]) -> None:
    text = said("class MyNet", "class ResNet")
    assert text.startswith(
        "my_net.yaml:2: imports: './my_net.py': ValueError: backbones: the name 'ResNet' is taken by ResNet at "
    )
    assert text.endswith("/my_net.py:7 needs another one, e.g. @BACKBONES.register('ResNet2') (my_net.py:7)")


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (
            "(Backbone)", "(nn.Module)",
            "MyNet can't go into backbones: it is not a subclass of detkit.backbones.base.Backbone (my_net.py:7)",
        ),
        (
            "*, width: int = 8", "*, width=8",
            "MyNet.__init__ can't be a schema: argument 'width' has no type annotation (my_net.py:7)",
        ),
        (
            "*, width: int = 8", "width: int = 8",
            "MyNet.__init__ can't be a schema: argument 'width' is positional; put `*` before the first argument "
            "(my_net.py:7)",
        ),
        ("register()", "register", "write @BACKBONES.register() with brackets over MyNet (my_net.py:7)"),
    ],
    ids=["wrong base class", "unannotated", "positional", "no brackets"],
)  # fmt: skip
def test_a_class_that_can_not_be_registered(said: Callable[..., Any], old: str, new: str, text: str) -> None:
    found = said(old, new)
    assert found.startswith("my_net.yaml:2: imports: './my_net.py': ValueError: ")
    assert found.endswith(text)


def test_super_is_not_called(said: Callable[..., Any]) -> None:
    text = said("        super().__init__()\n", "")
    says = "my_net.py:7: MyNet.__init__ must call super().__init__() before anything else"
    assert text.endswith(says)
    bare = "        super().__init__()\n        self.fine = nn.Conv2d(3, width, 8, 8)\n"
    bare += "        self.coarse = nn.Conv2d(width, width, 2, 2)\n"
    assert said(bare, "").endswith(says), (
        "also where no layer is assigned, which would be torch's first chance to complain"
    )


WRITE = (
    "its constructor must set the levels of its output, finest first, as in "
    'self.out_shapes = {"c3": FeatureShape(channels=128, stride=8), ...}'
)


@pytest.mark.parametrize(
    ("new", "text"),
    [
        ("", "is not set"),
        ("        self.out_shapes = [width, width]\n", "is [8, 8]"),
        ('        self.out_shapes = {"c3": (width, 8)}\n', "is {'c3': (8, 8)}"),
    ],
)
def test_the_levels_are_not_declared(said: Callable[..., Any], new: str, text: str) -> None:
    assert said(SHAPES, new) == f"backbone: MyNet.out_shapes {text}: {WRITE}"


@pytest.mark.parametrize(
    ("new", "text"), [("return [fine]", "list"), ("return fine", "Tensor"), ("fine = self.coarse(fine)", "NoneType")]
)
def test_forward_gives_no_dict(said: Callable[..., Any], new: str, text: str) -> None:
    assert said(MAPS, new) == (
        f"backbone: MyNet.forward gives a {text}, not a dict of feature maps by level name, as in "
        "return {'c3': ..., 'c4': ...}"
    )


def test_there_is_no_forward(said: Callable[..., Any]) -> None:
    assert said("def forward", "def forwards") == "backbone: MyNet has no forward method"


def test_channels_and_strides_that_are_not_as_declared_come_as_a_table(said: Callable[..., Any]) -> None:
    table = """backbone: MyNet.out_shapes does not match the output of MyNet for a 64x64 image:
  level      stride measured  channels  measured  anchors
  c3              8        8         8         8        -
  c4             16       16        16         8        -"""
    assert said('"c4": FeatureShape(width, 16)', '"c4": FeatureShape(2 * width, 16)') == table
    assert said('"c4": FeatureShape(width, 16)', '"c4": FeatureShape(width, 32)') == table.replace(
        "c4             16       16        16         8", "c4             32       16         8         8"
    )
    text = said('"c4": self', '"c5": self')
    assert "  c4             16        -         8         -" in text
    assert "  c5              -       16         -         8" in text


def test_four_channels_where_images_have_three(said: Callable[..., Any]) -> None:
    text = said("Conv2d(3,", "Conv2d(4,")
    assert text.startswith(
        "backbone: MyNet can't take an image of 3 channels (pixels.mean has 3 values), (1, 3, 64, 64): "
    )
    assert text.endswith("to have 4 channels, but got 3 channels instead (my_net.py:16)")
    resnet = CONFIG.replace("imports: [./my_net.py]\nbackbone: {type: MyNet}\n", "backbone: {in_channels: 4}\n")
    assert said(config=resnet).startswith("backbone: ResNet can't take an image of 3 channels")


def test_pixels_of_four_channels_where_images_have_three(said: Callable[..., Any]) -> None:
    four = CONFIG + "pixels: {mean: [0, 0, 0, 0], std: [1, 1, 1, 1]}\n"
    assert said("Conv2d(3,", "Conv2d(4,", four) == (
        "images have 3 channels, pixels.mean has 4 values: give pixels.mean and pixels.std one value per channel, and "
        "use a backbone for that number (data sets give 3, RGB)"
    )


def test_a_key_that_the_constructor_does_not_have(said: Callable[..., Any]) -> None:
    assert said(config=CONFIG.replace("MyNet", "MyNet, widht: 4")) == (
        "my_net.yaml:3: backbone.widht: unknown key of MyNet; did you mean width? Known: width"
    )
    assert said(config=CONFIG.replace("MyNet", "MyNet, width: wide")) == (
        "my_net.yaml:3: backbone.width: 'wide' is not int"
    )
