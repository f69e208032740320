"""The model card of an exported model: README.md with the front matter that the hub reads."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detkit.checkpoint import Checkpoint
from detkit.hub.repository import library
from detkit.interop.exported import describe
from detkit.registry.path_types import is_path
from detkit.utils.types import Tree

FIGURES = {
    "ap": "AP", "ap50": "AP50", "ap75": "AP75",
    "ap_small": "AP small", "ap_medium": "AP medium", "ap_large": "AP large",
}  # fmt: skip
"""Figure of an evaluation -> its name on the card; AP is COCO's, the mean over IoU 0.50 to 0.95."""
PARTS = ("backbone", "neck", "anchors", "head", "assigner", "coder", "nms")


def card(saved: Checkpoint, name: str, figures: Mapping[str, Any], command: str = "") -> str:
    """The text of README.md.

    Args:
        saved: what is exported.
        name: what the model goes by: `hf://owner/name`, or the name of a folder.
        figures: of an evaluation of these very weights, as in result.json; empty where there is none.
        command: the command that trained them.
    """
    content = describe(saved)
    sections = [
        f"---\n{front_matter(content, name, figures)}\n---\n\n# {title(name)}",
        f"A dense object detector of {len(saved.classes)} classes, made with detkit {content['detkit_version']}; "
        f"the weights are those after step {saved.step}.",
        _usage(name, content["needs"]),
        _results(content["config"], figures),
        "## Classes\n\n" + ", ".join(f"`{_plain(class_name)}`" for class_name in saved.classes.names),
        "## Parts\n\n" + _parts(content["config"]),
        f"## Training\n\n```sh\n{without_home(command)}\n```" if command else "",
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


def front_matter(content: Tree, name: str, figures: Mapping[str, Any]) -> str:
    """The YAML block: library, task, tags and the figures as a `model-index`."""
    hub = library()
    data_name = data_set(content["config"])
    results = [
        hub.EvalResult(
            task_type="object-detection",
            dataset_type=re.sub(r"[^A-Za-z0-9_.-]+", "-", data_name).strip("-") or "own",
            dataset_name=data_name,
            metric_type=key,
            metric_name=text,
            metric_value=round(float(figures[key]), 4),
        )
        for key, text in FIGURES.items()
        if figures.get(key) is not None
    ]
    types = [str(content["config"][part]["type"]) for part in ("backbone", "neck", "head")]
    text: str = hub.ModelCardData(
        library_name="detkit",
        pipeline_tag="object-detection",
        tags=["object-detection", "detkit", *dict.fromkeys(kind.lower() for kind in types)],
        model_name=title(name),
        eval_results=results or None,
    ).to_yaml()
    return text


def title(name: str) -> str:
    """`owner/model` of an address; the name of a folder stays."""
    return _plain(name.removeprefix("hf://"))


def data_set(config: Tree) -> str:
    """What the validation data go by: the name of their first file or folder, else the type of the data set."""
    node = (config.get("data") or {}).get("val", {}).get("dataset") or {"type": "unknown data"}
    names = [Path(v).stem for k, v in node.items() if k in ("annotations", "root") and isinstance(v, str) and v]
    return names[0] if names else str(node["type"])


def without_home(command: str) -> str:
    """A command as a reader may see it: the program's own folder left out, the home folder as ~."""
    first, _, rest = command.partition(" ")
    home = os.path.expanduser("~")
    shown = f"{os.path.basename(first)} {rest}".strip()
    return shown.replace(home, "~") if home not in ("/", "~") else shown


def _usage(name: str, needs: list[str]) -> str:
    lines = ["import detkit", "", f'predict = detkit.load("{name}")', 'detections, = predict(["photo.jpg"])']
    text = "## Use\n\n```python\n" + "\n".join(lines) + "\n```\n\n"
    text += (
        f"```sh\npip install 'detkit[hub]'\ndetkit predict {name} photos/\ndetkit train CONFIG --init-from {name}\n```"
    )
    return text + (f"\n\nThe model has parts of its own: import {', '.join(needs)} first." if needs else "")


def _results(config: Tree, figures: Mapping[str, Any]) -> str:
    known = {key: text for key, text in FIGURES.items() if figures.get(key) is not None}
    if not known:
        return ""
    images = f", {figures['num_images']} images" if figures.get("num_images") else ""
    rows = [_row("all classes", figures, known)]
    rows += [_row(f"`{_plain(k)}`", v, known) for k, v in (figures.get("per_class") or {}).items()]
    head = "| class | " + " | ".join(known.values()) + " |\n|---|" + "---|" * len(known)
    return f"## Results\n\nOn `{_plain(data_set(config))}`{images}, by COCO's rules:\n\n{head}\n" + "\n".join(rows)


def _row(name: str, values: Mapping[str, Any], known: Mapping[str, str]) -> str:
    cells = ["n/a" if values.get(key) is None else f"{values[key]:.3f}" for key in known]
    return f"| {name} | " + " | ".join(cells) + " |"


def _parts(config: Tree) -> str:
    losses = {f"losses.{key}": node for key, node in (config.get("losses") or {}).items()}
    nodes = {**{part: config.get(part) for part in PARTS}, **losses}
    return "\n".join(f"- {part}: {_describe(node)}" for part, node in nodes.items() if isinstance(node, Mapping))


def _describe(node: Mapping[str, Any]) -> str:
    arguments = [
        f"{key} {value}"
        for key, value in node.items()
        if key != "type"
        and value is not None
        and not (isinstance(value, str) and is_path(value, "a path") and "/" in value)
    ]
    return f"`{node.get('type')}`" + (f" ({_plain(', '.join(arguments))})" if arguments else "")


def _plain(text: object) -> str:
    """Text that Markdown shows as it is, on one line."""
    return re.sub(r"[\x00-\x1f\x7f`<>|]", " ", str(text)).strip()
