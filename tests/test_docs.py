"""What the documentation names exists, and a page that names something else is caught."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from detkit.config import load_config
from tools import check_docs

SOUND = """# Page

See [above](#page), `make test` and configs/*.yaml.

```sh
detkit eval runs/a --json x.json  # AP
```
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository of one sound page."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/a.yaml").touch()
    (tmp_path / "Makefile").write_text("test:\n\ttrue\n", encoding="utf-8")
    (tmp_path / "README.md").write_text(SOUND, encoding="utf-8")
    return tmp_path


def test_all_that_the_docs_name_exists() -> None:
    assert check_docs.problems() == []
    assert len(check_docs.pages(check_docs.ROOT)) > 12


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("", "", ""),
        ("(#page)", "(#pages)", "link to #pages: README.md has no such heading"),
        ("(#page)", "(other.md)", "link to other.md: no such file"),
        ("make test", "make tests", "`make tests`: the Makefile has no target tests"),
        ("configs/*.yaml", "configs/b.yaml", "configs/b.yaml: no such file or folder"),
        ("detkit eval", "detkit evaluate", "`detkit evaluate runs/a --json x.json`: no verb evaluate"),
        ("--json x", "--jsn x", "`detkit eval runs/a --jsn x.json`: unrecognized arguments: --jsn x.json"),
    ],
)
def test_what_does_not_exist_is_found(root: Path, old: str, new: str, said: str) -> None:
    (root / "README.md").write_text(SOUND.replace(old, new), encoding="utf-8")
    found = check_docs.problems(root)
    assert len(found) == bool(said)
    assert not said or found[0].startswith(f"README.md: {said}")


SNAPSHOTS = """# serializer version: 1
# name: test_a
  'a.yaml:3: gama: unknown key; did you mean gamma?'
# ---
# name: test_b
  '''
  nothing to train on: 2 objects
    image a.jpg
  '''
# ---
"""


@pytest.mark.parametrize(
    ("quoted", "known"),
    [
        ("... gama: unknown key; ...", True),
        ("nothing to train on: ... image a.jpg", True),
        ("unknown key: gama", False),
        ("... gama: ... nothing to train on", False),
    ],
)
def test_a_quoted_message_is_one_that_the_tests_hold(root: Path, quoted: str, known: bool) -> None:
    for folder in ("docs", "tests/__snapshots__"):
        (root / folder).mkdir(parents=True)
    (root / "tests/__snapshots__/a.ambr").write_text(SNAPSHOTS, encoding="utf-8")
    (root / check_docs.MESSAGES).write_text(f"# Messages\n\n```text\n{quoted}\n```\n", encoding="utf-8")
    expected = [] if known else [f"{check_docs.MESSAGES}: no test holds the message {quoted!r}"]
    assert check_docs.problems(root) == expected


def results(name: str) -> Any:
    return json.loads((check_docs.ROOT / "benchmarks/results" / name).read_text(encoding="utf-8"))


def only(rows: list[Any], **wanted: Any) -> Any:
    (row,) = [row for row in rows if wanted.items() <= row.items()]
    return row


def figures() -> list[str]:
    """The measured columns of the README's table, made from the recorded results."""
    step = only(results("step_cpu.json")["rows"], model="R50", size=640)
    infer = [
        only(results("infer_cpu.json")["rows"], model="R50", mode="busy", peer=p) for p in ("detkit", "torchvision")
    ]
    loss = [
        only(results("loss_cpu.json")["rows"], side=640, threads=2, loss=name)["ms"]
        for name in ("detkit", "torchvision", "fvcore")
    ]
    nms = only(results("nms_cpu.json")["rows"], op="nms", boxes="cluster", n=10_000, threads=1)
    coco = results("eval_coco.json")
    assert coco["largest_difference"] == 0
    detections = coco["images"] * coco["detections"]
    return [
        f"{step['detkit_s']:.2f} s, {step['detkit_mib']:,.0f} MiB | torchvision: {step['torchvision_s']:.2f} s, "
        f"{step['torchvision_mib']:,.0f} MiB",
        f"{infer[0]['total_s'] * 1e3:.0f} ms | torchvision: {infer[1]['total_s'] * 1e3:.0f} ms",
        f"{infer[0]['post_s'] * 1e3:.0f} ms | torchvision: {infer[1]['post_s'] * 1e3:.0f} ms",
        f"{loss[0]:.1f} ms | torchvision: {loss[1]:.0f} ms, fvcore: {loss[2]:.0f} ms",
        f"{nms['detkit_ms']:.2f} ms | torchvision: {nms['torchvision_ms']:.1f} ms",
        f"{coco['images']:,} images, {detections:,} detections | {coco['detkit_s']:.1f} s | "
        f"pycocotools: {coco['pycocotools_s']:.1f} s, the same figures",
    ]


def test_the_readme_shows_the_recorded_figures() -> None:
    text = (check_docs.ROOT / "README.md").read_text(encoding="utf-8")
    table = [line for line in text.splitlines() if line.endswith(".json |")]
    assert len(table) == len(figures())
    for line, figure in zip(table, figures(), strict=True):
        assert figure in line
        assert (check_docs.ROOT / "benchmarks/results" / line.split("|")[-2].strip()).is_file()


def flat(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def test_keys_for_those_who_come_from_detectron2_are_those_of_its_config_here() -> None:
    """The table names keys and values; each is in the config that converted models get."""
    text = (check_docs.ROOT / "docs/from-other-toolkits.md").read_text(encoding="utf-8")
    rows = text.partition("| Detectron2 | detkit |")[2].partition("\n\n")[0]
    config = load_config(check_docs.ROOT / "detkit/interop/detectron2_r50_fpn.yaml").to_dict()
    known = dict(flat(config))
    compared = 0
    for code in check_docs.CODE.findall("\n".join(row.split("|")[2] for row in rows.splitlines()[2:])):
        tree = yaml.safe_load(code)
        for key, value in flat(tree) if isinstance(tree, dict) else ():
            assert value == ["..."] or known[key] == value, code
            compared += 1
    assert compared >= 25
