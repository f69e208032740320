"""Which sub-verb of `detkit compare` a command line means."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from detkit.cli import Parser, main, parse
from detkit.compare.cli import add_arguments, parse_seeds


def parsed(*words: str) -> Namespace:
    parser = Parser(prog="detkit compare")
    add_arguments(parser)
    return parse(parser, words)


def test_run_is_the_default() -> None:
    for words in (("a.yaml", "b.yaml", "--seeds", "2"), ("--seeds", "2", "a.yaml", "b.yaml")):
        for args in (parsed(*words), parsed("run", *words)):
            assert (args.verb, args.config, args.variants, args.seeds) == ("run", "a.yaml", ["b.yaml"], "2")


def test_report_takes_folders() -> None:
    args = parsed("report", "runs/a", "--output", "both", "runs/b")
    assert (args.verb, args.folders, args.output) == ("report", [Path("runs/a"), Path("runs/b")], Path("both"))


@pytest.mark.parametrize("name", ["report", "run"])
def test_a_config_may_be_named_like_a_sub_verb(name: str) -> None:
    args = parsed("run", name, "b.yaml")
    assert (args.verb, args.config) == ("run", name)


def test_report_behind_an_option_is_not_taken_for_a_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--output", str(tmp_path), "report", str(tmp_path)]) == 2
    assert "detkit compare report DIR" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["report", "--help"]])
def test_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["compare", *words])
    assert ended.value.code == 0
    assert "exit codes of both sub-verbs" in capsys.readouterr().out


def test_several_benches_need_an_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "report", str(tmp_path), str(tmp_path)]) == 2
    assert "--output" in capsys.readouterr().err


def test_seeds_are_a_count_or_a_list() -> None:
    assert (parse_seeds("3"), parse_seeds("4,7"), parse_seeds("4,")) == ([0, 1, 2], [4, 7], [4])
