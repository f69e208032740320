from pathlib import Path

import pytest
import yaml

from detkit.config import Config, load_config
from detkit.train.auto.choices import Choices, to_yaml

BASE = "detkit:configs/retinanet/r18_fpn_small.yaml"


def choices(*overrides: str) -> Choices:
    chosen = Choices(BASE, overrides)
    chosen.choose("train.iterations", 123, "fits into the time")
    chosen.choose("neck.channels", 64)
    return chosen


def test_the_file_loads_to_the_same_config(tmp_path: Path) -> None:
    config = choices("optimizer.lr=0.5").config()
    (file := tmp_path / "auto.yaml").write_text(to_yaml(config.to_dict(), {}, ["head"]))
    assert load_config(file).to_dict() == config.to_dict()


def test_reasons_are_comments_above_their_keys() -> None:
    chosen = choices()
    text = to_yaml(chosen.config().to_dict(), chosen.comments(chosen.config()), ["made"])
    lines = text.splitlines()
    assert lines[0] == "# made"
    assert lines[lines.index("  # fits into the time") + 1] == "  iterations: 123"


def test_the_command_line_goes_before_a_choice_and_is_named_as_the_reason() -> None:
    chosen = choices("train.iterations=7")
    config: Config = chosen.config()
    assert config.options("train").iterations == 7
    assert chosen.is_given("train.iterations")
    assert not chosen.is_given("train.precision")
    assert chosen.comments(config) == {"train.iterations": "given on the command line"}
    assert chosen.lines(config) == ["train.iterations: 7", "    # given on the command line"]


@pytest.mark.parametrize("value", ["no", "1e3", "a: b", "# x", "ü ' \"", None, 1e-8, [], {}])
def test_values_survive(value: object) -> None:
    assert yaml.safe_load(to_yaml({"k": {"l": value}}, {}, [])) == {"k": {"l": value}}
