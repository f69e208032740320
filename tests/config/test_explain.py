"""`detkit explain` covers every part and option, finds what a user means, and docs/reference is what it writes."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
from omegaconf import OmegaConf

from detkit.cli import main
from detkit.config import explain as package
from detkit.config import load_config
from detkit.config.explain import explain, list_parts
from detkit.config.explain.find import names
from detkit.config.explain.markdown import escaped, linked
from detkit.config.explain.reference import INDEX, OPTIONS, is_built_in, reference_pages
from detkit.config.explain.settings import Settings
from detkit.config.explain.topics import Topic, nodes, options_topic, part_topic, slots_of
from detkit.config.explain.words import bounds_words, type_words, yaml_words
from detkit.config.schema import Options, Parts
from detkit.necks.base import Neck
from detkit.registry import BACKBONES, HEADS, NECKS, REGISTRIES, Fraction, Registry, Side, enforce_bounds
from detkit.registry.arguments import own_parameters
from detkit.registry.docstrings import parse_docstring
from tests.refusals import Refuses

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs/reference"
QUICK = str(ROOT / "configs/quickstart/shapes.yaml")
PARTS = [(r, name) for r in REGISTRIES for name in r.names() if is_built_in(r.entry(name))]
OPTION_NODES = [(path, node) for path, node in nodes() if isinstance(node, Options)]
WITH_A_UNIT = re.compile(
    r"(^|_)(height|width|size|short|pad_to|iterations|every|minutes|timeout|megapixels|batch_size|steps|area_limits)$"
)
FROM_PAPERS = ("backbones", "necks", "anchors", "heads", "assigners", "coders", "class_losses", "box_losses", "nms")
WITHOUT_A_PAPER = {
    "TimmBackbone", "TorchvisionBackbone", "NoNeck", "TorchvisionAnchors", "InsideImageAssigner", "L1Loss", "HardNMS",
}  # fmt: skip
IN_A_JOURNAL = {"PIoULoss"}


@functools.cache
def built_in_pages() -> dict[str, str]:
    return reference_pages(is_built_in)


def topics() -> Iterator[Topic]:
    """Every part and every section of options."""
    for registry, name in PARTS:
        yield part_topic(registry, name, Settings())
    for path, node in OPTION_NODES:
        yield options_topic(node, path, Settings())


# What is covered.


def test_the_reference_is_what_explain_writes() -> None:
    pages = built_in_pages()
    assert {path.name for path in REFERENCE.iterdir()} == set(pages)
    for name, text in pages.items():
        written = (REFERENCE / name).read_text(encoding="utf-8")
        assert written == text, (
            f"docs/reference/{name} is out of date: run `detkit explain --all --output docs/reference`"
        )


def test_the_reference_has_every_part_option_and_argument() -> None:
    pages = built_in_pages()
    assert len(pages) == len(REGISTRIES) + 2
    shown = {
        (name, heading, argument)
        for name, text in pages.items()
        for heading, body in re.findall(r"^## (\S+)$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
        for argument in re.findall(r"^\| `(\w+)` \|", body, re.MULTILINE) or [""]
        if name != INDEX
    }
    parts = {(f"{r.name}.md", n, argument) for r, n in PARTS for argument in r.arguments(n) or [""]}
    fields = {
        (OPTIONS, path, parameter.name)
        for path, node in OPTION_NODES
        for parameter in own_parameters(resolve_name(node.target))
    }
    assert shown == parts | fields
    assert len(parts) > 200
    assert len(fields) > 40


def test_every_options_class_is_a_section_of_the_config() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "detkit").rglob("*.py"))
    classes = set(re.findall(r"^class (\w+Options)\b", code, re.MULTILINE)) - {"LaunchOptions"}  # of the command line
    assert classes == {node.target.partition(":")[2] for _, node in OPTION_NODES}


def unexplained(all_topics: Iterable[Topic]) -> list[str]:
    """What a topic leaves out."""
    return [
        f"{topic.name}{'.' if name else ''}{name}"
        for topic in all_topics
        for name, text in [("", topic.summary), *((argument.name, argument.meaning) for argument in topic.arguments)]
        if not text
    ]


def test_every_part_and_argument_has_a_meaning() -> None:
    assert unexplained(topics()) == []


def test_every_key_has_a_meaning() -> None:
    assert [row.name for row in explain("config").topics[0].rows if not row.meaning] == []


def test_a_part_without_meanings_is_found() -> None:
    with NECKS.temporary():

        @NECKS.register()
        class Unexplained(Neck):
            def __init__(self, *, depth: int = 1) -> None:
                super().__init__()

        assert unexplained(explain("Unexplained").topics) == ["Unexplained", "Unexplained.depth"]
        assert "depth " in str(explain("Unexplained"))
        assert "\n  Unexplained" in str(explain("necks"))


def test_no_docstring_explains_an_argument_that_is_not_one() -> None:
    classes = [r.get(name) for r, name in PARTS] + [resolve_name(node.target) for _, node in OPTION_NODES]
    for cls in classes:
        stray = set(parse_docstring(cls.__doc__ or "").arguments) - {p.name for p in own_parameters(cls)}
        assert not stray, f"{cls.__name__}: {stray}"


def test_a_number_whose_name_speaks_of_a_size_or_a_time_has_a_unit() -> None:
    lacking = [
        f"{topic.name}.{argument.name}"
        for topic in topics()
        for argument in topic.arguments
        if WITH_A_UNIT.search(argument.name) and not argument.unit
    ]
    assert lacking == ["CSPDarknet.width", "CSPNeXt.width", "VGG.width"]  # ratios


def test_a_part_that_follows_a_paper_names_it() -> None:
    without = {topic.name for topic in topics() if topic.registry in FROM_PAPERS and not topic.papers}
    assert without == WITHOUT_A_PAPER | IN_A_JOURNAL


@pytest.mark.parametrize(("registry", "name"), [pytest.param(r, n, id=f"{r.name}-{n}") for r, n in PARTS])
def test_an_example_is_yaml_with_the_defaults(registry: Registry, name: str) -> None:
    tree: Any = OmegaConf.to_container(OmegaConf.create(part_topic(registry, name, Settings()).example))
    slot = slots_of(registry)[0]
    for key in slot.split("."):
        tree = tree[key]
    node = tree[0] if isinstance(dict(nodes())[slot], Parts) else tree
    assert node.pop("type") == name
    known = registry.arguments(name)
    assert list(node) == list(known)
    for key, argument in known.items():
        expected = "???" if argument.required else argument.default
        assert node[key] == (list(map(_as_list, expected)) if isinstance(expected, tuple) else expected)


def _as_list(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


# What a user may ask for.


@pytest.mark.parametrize(
    ("name", "kind", "titles", "words"),
    [
        ("SigmoidFocalLoss", "part", ["SigmoidFocalLoss, a part of class_losses"],
         ["source: arXiv 1708.02002, equation 5", "losses.classification", "forward(logits: Tensor", "at least 0"]),
        ("sigmoidfocalloss", "part", ["SigmoidFocalLoss, a part of class_losses"], []),
        ("class_losses.SigmoidFocalLoss", "part", ["SigmoidFocalLoss, a part of class_losses"], []),
        ("losses.classification.SigmoidFocalLoss", "part", ["SigmoidFocalLoss, a part of class_losses"], []),
        ("FPN", "part", ["FPN, a part of necks"],
         ["in_shapes: a config can't set it; a part gets it from the backbone's levels"]),
        ("train", "options", ["train, options (TrainOptions)"], ["required; at least 1", "default null", "in seconds"]),
        ("TrainOptions", "options", ["train, options (TrainOptions)"], []),
        ("data.loader", "options", ["data.loader, options (LoaderOptions)"], ["num_workers"]),
        ("train.precision", "argument", ["train.precision, an argument of TrainOptions"], ["fp32, bf16 or fp16"]),
        ("TrainOptions.precision", "argument", ["train.precision, an argument of TrainOptions"], []),
        ("SGD.lr", "argument", ["SGD.lr, an argument of a part of optimizers"], ["float; required; at least 0"]),
        ("data.classes.class_map.cat", "argument", ["data.classes.class_map, an argument of ClassOptions"], []),
        ("losses.classification", "slot", ["losses.classification, a part of class_losses"], ["VarifocalLoss"]),
        ("losses.classification.type", "slot", ["losses.classification, a part of class_losses"], []),
        ("coder", "slot", ["coder, a part of coders, default DeltaCoder"], []),
        ("data.train.transforms", "slot", ["data.train.transforms, a list of parts of transforms"], ["Resize "]),
        ("data.train.transforms.0", "slot", ["data.train.transforms, a list of parts of transforms"], []),
        ("anchors", "slot", ["anchors, a part of anchors"], ["SSDAnchors"]),
        ("backbones", "registry", ["backbones, a registry for backbone"], ["ResNet", "dict[str, Tensor]"]),
        ("coders", "registry", ["coders, a registry for coder"], ["encode(boxes: Tensor", "decode(deltas: Tensor"]),
        ("hooks", "slot", ["hooks, a list of parts of hooks"], ["after_step(trainer: T, report", "before_train("]),
        ("loggers", "slot", ["loggers, a list of parts of loggers"], ["log(step: int, values: Mapping[str, float])"]),
        ("losses", "section", ["losses, a section"], ["losses.box", "a part of box_losses"]),
        ("config", "section", ["config, all its keys"], ["_base_", "data.train.dataset", "evaluator"]),
        ("seed", "value", ["seed, a value"], ["63-bit"]),
        ("_base_", "value", ["_base_, a value"], ["str or list of str"]),
        ("momentum", "argument",
         ["GHMCLoss.momentum, an argument of a part of class_losses",
          "WiseIoULoss.momentum, an argument of a part of box_losses",
          "EmaPositiveCount.momentum, an argument of a part of normalizers",
          "RunningPositiveCount.momentum, an argument of a part of normalizers",
          "SGD.momentum, an argument of a part of optimizers"], []),
        ("hang_timeout", "argument", ["train.hang_timeout, an argument of TrainOptions"], ["in seconds"]),
        ("schedule.gamma", "argument", ["schedule.gamma, an argument of MultiStep"], ["default 0.1"]),
    ],
)  # fmt: skip
def test_a_name_is_explained(name: str, kind: str, titles: list[str], words: list[str]) -> None:
    explanation = explain(name)
    assert [(topic.kind, topic.title) for topic in explanation.topics] == [(kind, title) for title in titles]
    text = str(explanation)
    assert repr(explanation) == text
    assert [word for word in words if word not in " ".join(text.split())] == []
    json.dumps(explanation.to_dict())


@pytest.mark.parametrize("name", names())
def test_every_name_that_is_suggested_is_explained(name: str) -> None:
    assert explain(name).topics


@pytest.mark.parametrize(
    "name",
    ["SigmoidFocaLoss", "trian", "losses.clasification", "data.loader.workers", "losses.box.gama", "nms.Hard",
     "FPN.chanels", "neck.in_shapes", "train.precision.fp32", "nothing at all", ""],
)  # fmt: skip
def test_an_unknown_name_gets_the_nearest(name: str, refuses: Refuses) -> None:
    with refuses(ValueError):
        explain(name)


def test_a_name_of_two_registries_is_explained_for_both() -> None:
    with BACKBONES.temporary():
        BACKBONES.register("FPN")(BACKBONES.get("ResNet"))
        assert [topic.registry for topic in explain("FPN").topics] == ["backbones", "necks"]
        assert [topic.registry for topic in explain("necks.FPN").topics] == ["necks"]
        assert "backbones.FPN" in list_parts()


def test_an_argument_that_a_config_cannot_hold() -> None:
    with HEADS.temporary():

        @HEADS.register()
        class Nested(HEADS.get("PerLevelHead")):  # type: ignore[misc]
            """A head.

            Args:
                neck: what comes before.
            """

            def __init__(self, *, neck: Neck | None = None) -> None:
                raise NotImplementedError

        text = " ".join(str(explain("Nested")).split())
        assert "neck: a config can't set it; a part gets it from its default, since a config can't hold a Neck" in text


def test_parts_are_listed() -> None:
    assert "DeltaCoder" in list_parts("coders")
    assert {"backbones.ResNet", "nms.HardNMS"} <= set(list_parts())
    for name in list_parts():
        assert len(explain(name).topics) == 1
    with pytest.raises(ValueError, match="'backbons' is not a registry; did you mean backbones"):
        list_parts("backbons")


# Beside a config.


def test_values_of_a_config_and_their_origins() -> None:
    config = load_config(QUICK, ["train.precision=bf16", "losses.classification.gamma=1.5"])
    train = explain("train", config).topics[0]
    now = {argument.name: argument.setting for argument in train.arguments}
    assert {key: setting.value for key, setting in now.items()} == {
        argument.name: yaml_words(config.to_dict()["train"][argument.name]) for argument in train.arguments
    }
    assert now["precision"].origin == "command line (train.precision=bf16)"
    assert now["compile"].origin == "default of TrainOptions"
    assert now["iterations"].origin.startswith("configs/quickstart/shapes.yaml:")
    part, slot = explain("losses.classification", config).topics
    assert part.title == "SigmoidFocalLoss, a part of class_losses, at losses.classification"
    assert "now 1.5 (command line (losses.classification.gamma=1.5))" in str(explain("SigmoidFocalLoss", config))
    assert (slot.kind, slot.arguments[0].setting.value) == ("slot", "SigmoidFocalLoss")
    assert "does not use it" in str(explain("PAFPN", config))
    assert "does not use it" not in str(explain("FPN", config))
    rows = {row.name: row.setting for row in explain("config", config).topics[0].rows}
    assert rows["backbone"].value == "ResNet"
    assert rows["train"] is None


def test_entries_of_a_list_of_parts(refuses: Refuses) -> None:
    config = load_config(QUICK)
    flips = ["RandomHorizontalFlip", "RandomVerticalFlip"]
    assert [topic.owner for topic in explain("data.train.transforms", config).topics[:-1]] == flips
    assert [topic.owner for topic in explain("data.train.transforms.1", config).topics] == flips[1:]
    (p,) = explain("data.train.transforms.1.p", config).topics
    assert (p.name, p.arguments[0].setting.value) == ("data.train.transforms.1.p", "0.5")
    with refuses(ValueError):
        explain("data.train.transforms.2", config)
    with refuses(ValueError):
        explain("losses.box.gama", config)


# The command.


def test_the_command_prints_an_overview(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain"]) == 0
    out = capsys.readouterr().out
    assert [name for registry, name in PARTS if name not in out] == []
    assert [path for path, _ in nodes() if path not in out] == []


def test_the_command_explains_a_config_with_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "train.precision", "train.precision=bf16", "--config", QUICK]) == 0
    assert "now bf16 (command line (train.precision=bf16))" in capsys.readouterr().out
    assert main(["explain", "--config", QUICK, "backbone.depth=34"]) == 0
    assert "now ResNet (" in capsys.readouterr().out


def test_the_command_imports_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.py").write_text(
        "from detkit.necks.base import Neck\nfrom detkit.registry import NECKS, Fraction\n"
        '@NECKS.register()\nclass ExplainedNeck(Neck):\n    """Mine alone (1612.03144, section 3).\n\n    Args:\n'
        '        drop: fraction of channels.\n    """\n'
        "    def __init__(self, *, drop: Fraction = 0.5) -> None:\n        super().__init__()\n"
    )
    assert main(["explain", "ExplainedNeck"]) == 2
    assert "needs --import FILE" in capsys.readouterr().err
    with NECKS.temporary():
        assert main(["explain", "ExplainedNeck", "--import", str(tmp_path / "mine.py")]) == 0
    out = capsys.readouterr().out
    assert "Mine alone" in out
    assert "source: arXiv 1612.03144, section 3" in out
    assert "mine.py:3" in out
    assert "float; default 0.5; between 0 and 1" in out


def test_the_command_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "FPN", "--json", "-"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["topics"][0]["arguments"][0]["name"] == "channels"
    for _ in range(2):  # it replaces its own file
        assert main(["explain", "FPN", "--json", str(tmp_path / "fpn.json")]) == 0
    assert json.loads((tmp_path / "fpn.json").read_text())["topics"] == printed["topics"]
    assert "a part of necks" in capsys.readouterr().out
    (tmp_path / "mine.json").write_text("{}")
    assert main(["explain", "FPN", "--json", str(tmp_path / "mine.json")]) == 2
    assert (tmp_path / "mine.json").read_text() == "{}"


def test_the_command_writes_the_pages_and_replaces_only_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "reference"
    for _ in range(2):
        assert main(["explain", "--all", "--output", str(folder)]) == 0
    assert f"{len(REGISTRIES) + 2} pages in {folder}" in capsys.readouterr().out
    (folder / "notes.md").write_text("mine")
    (folder / "heads.md").write_text("mine too")
    assert main(["explain", "--all", "--output", str(folder)]) == 2
    assert "heads.md" in capsys.readouterr().err
    assert [(folder / name).read_text() for name in ("notes.md", "heads.md")] == ["mine", "mine too"]
    assert main(["explain", "--all"]) == 0
    parts = sum(len(registry.names()) for registry in REGISTRIES)  # other tests' plugins are among them
    assert capsys.readouterr().out.count("\n  code:   ") == parts + len(OPTION_NODES)


@pytest.mark.parametrize(
    "words", [["train", "a=1"], ["--all", "FPN"], ["--output", "x"], ["FPN", "PAFPN"], ["FPN", "--config", "no.yaml"]]
)
def test_words_that_do_not_go_together(words: list[str], refuses: Refuses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETKIT_TRACEBACK", "1")
    with refuses((ValueError, FileNotFoundError)):
        main(["explain", *words])


# Words.


@enforce_bounds
@dataclass(frozen=True, kw_only=True)
class Shapes:
    """Annotations of all kinds."""

    sides: list[tuple[Side, Side]]
    mix: dict[str, Fraction] | None = None


@pytest.mark.parametrize(
    ("annotation", "words", "bounds"),
    [
        (int, "int", ""),
        (Fraction | None, "float or null", "between 0 and 1"),
        (list[list[Fraction]], "list of lists of float", "each between 0 and 1"),
        (tuple[Side, Side], "[int, int]", "each between 1 and 16384"),
        (tuple[str, ...], "list of str", ""),
        (dict[str, Fraction], "map of str to float", "each between 0 and 1"),
    ],
)
def test_types_and_bounds(annotation: object, words: str, bounds: str) -> None:
    assert (type_words(annotation), bounds_words(annotation)) == (words, bounds)


@pytest.mark.parametrize(
    "value", [None, True, 1, 1e-8, "a", "no", "null", "1.5", "", "a: b", [1, "x"], {"a": None}, {}]
)
def test_a_value_reads_as_yaml(value: object) -> None:
    assert OmegaConf.to_container(OmegaConf.create(f"key: {yaml_words(value)}")) == {"key": value}


def test_markdown_shows_text_as_it_is() -> None:
    assert escaped("|a*b| < `x|y*z`") == r"\|a\*b\| \< `x\|y*z`"
    assert linked("as (1708.02002, table 1)") == "as ([1708.02002](https://arxiv.org/abs/1708.02002), table 1)"


def test_a_notebook_shows_markdown() -> None:
    text = explain("FPN")._repr_markdown_()
    assert text.startswith("### FPN")
    assert "| `channels` | int<br>default `256`<br>between 1 and 65536 | channels of every level. |" in text


def test_rows_of_a_table_have_the_cells_of_its_head() -> None:
    tables = re.findall(r"(?:^\|.*\|\n)+", "".join(built_in_pages().values()), re.MULTILINE)
    assert len(tables) > len(REGISTRIES)
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1, table


def test_the_package_has_the_two_functions() -> None:
    assert set(package.__all__) == {"Explanation", "explain", "list_parts"}
