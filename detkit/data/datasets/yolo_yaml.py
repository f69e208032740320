"""The top level of a data.yaml, as it is written."""

from __future__ import annotations

from collections.abc import Iterator

import yaml

from detkit.data.datasets.file_formats import describe_text

DEEPEST = 20
"""Levels of a data.yaml; its keys have two."""
Field = str | list[str] | dict[str, str]


def yaml_fields(text: str, name: str) -> dict[str, Field]:
    """The top level of a YAML file, every scalar as it is written: `no` is a class, not false. Tags are not used."""
    try:
        check_depth(text, name)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark is not None else name
        raise ValueError(f"{where}: not YAML: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(root, yaml.MappingNode):
        known = describe_text(text)
        raise ValueError(f"{name}: not a data.yaml of YOLO: {f'the file is {known}' if known else 'it has no keys'}")
    return dict(yaml_pairs(root, name))


def check_depth(text: str, name: str) -> None:
    """Raises ValueError for brackets in brackets, which would fill stack and time before anything is read."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ValueError(f"{name}: not a data.yaml of YOLO: it is nested too deeply")


def yaml_pairs(node: yaml.MappingNode, name: str) -> Iterator[tuple[str, Field]]:
    """Keys and values of a mapping, values deeper than one level left out; ValueError for a key that is there twice."""
    seen: dict[str, int] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        line = key.start_mark.line + 1
        if key.value in seen:
            raise ValueError(f"{name}:{line}: {key.value} is there twice, first in line {seen[key.value]}")
        seen[key.value] = line
        if isinstance(value, yaml.ScalarNode):
            yield key.value, value.value
        elif isinstance(value, yaml.SequenceNode):
            yield key.value, [item.value if isinstance(item, yaml.ScalarNode) else "" for item in value.value]
        else:
            yield key.value, dict(scalar_pairs(value, f"{name}: {key.value}"))


def scalar_pairs(node: yaml.MappingNode, name: str) -> Iterator[tuple[str, str]]:
    """Pairs of a mapping whose keys and values are scalars; ValueError for a key that is there twice."""
    seen = set()
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode) or not isinstance(value, yaml.ScalarNode):
            continue
        if key.value in seen:
            raise ValueError(f"{name}: {key.value} is there twice, again in line {key.start_mark.line + 1}")
        seen.add(key.value)
        yield key.value, value.value
