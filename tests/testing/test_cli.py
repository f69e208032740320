"""`detkit check-part`, as its page shows it and as a beginner gets it wrong."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from detkit.cli import main
from detkit.registry import BACKBONES

PAGE = Path(__file__).parents[2] / "docs" / "contracts.md"
BROKEN = """
from torch import Tensor, nn
from detkit.backbones.base import Backbone
from detkit.registry import BACKBONES
from detkit.structures import FeatureShape

@BACKBONES.register()
class BrokenNet(Backbone):
    def __init__(self, *, width: int = 4) -> None:
        super().__init__()
        self.conv, self.spare = nn.Conv2d(3, width, 3, 8, 1), nn.Linear(2, 2)
        self.out_shapes = {"c3": FeatureShape(width, 8)}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"c3": self.conv(images)}
"""


@pytest.mark.parametrize("command", re.findall(r"^    detkit (.+)$", PAGE.read_text(), re.MULTILINE))
def test_the_commands_of_the_page_run(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(shlex.split(command)) == 0
    assert re.search(r"0 of \d+ checks failed|gradients_reach", capsys.readouterr().out)


def test_a_broken_part_is_told_what_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_net.py").write_text(BROKEN)
    monkeypatch.chdir(tmp_path)
    with BACKBONES.temporary():
        assert main(["check-part", "backbones", "BrokenNet", "width=6", "--import", "my_net.py"]) == 1
    said = capsys.readouterr().out
    assert re.search(r"gradients_reach_every_parameter +FAILED", said)
    assert "no gradient reaches spare.weight, spare.bias" in said
    assert "why it matters: a parameter without gradient stops DDP" in said
    assert re.search(r"eval_is_deterministic +ok", said)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["backbone", "ResNet"], "'backbone' is not a registry with a contract.*backbones"),
        (["backbones", "ResNett"], "ResNett.*ResNet"),
        (["backbones"], "missing the name of a part of backbones"),
        (["backbones", "ResNet", "18"], "'18' is not of the form key=value"),
        (["backbones", "ResNet", "deep=18"], "deep.*depth"),
        (["backbones", "ResNet", "--import", "nowhere.py"], "nowhere.py"),
    ],
)
def test_a_slip_is_named(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-part", *words]) != 0
    assert re.search(message, capsys.readouterr().err, re.DOTALL)
