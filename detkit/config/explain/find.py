"""What a name means: a key of a config, a part, a registry, an options class or an argument."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pkgutil import resolve_name

from detkit import registry
from detkit.config.explain.settings import Settings
from detkit.config.explain.topics import (
    Topic,
    key_row,
    nodes,
    options_topic,
    part_topic,
    registry_topic,
    section_topic,
    slot_topic,
    slots_of,
    value_topic,
)
from detkit.config.paths import MOVED
from detkit.config.raw import BASE_KEY
from detkit.config.schema import ROOT, Node, Options, Part, Parts, PlainValue, Section
from detkit.config.validate import join
from detkit.registry.arguments import arguments_of, nearest

WHOLE = "config"
"""The name of the whole config."""
FILE_KEYS = {
    BASE_KEY: PlainValue(
        str | list[str],
        [],
        "the config that this one is laid over, or several, the last one on top; relative to the config's folder",
    ),
    MOVED: PlainValue(
        dict[str, str], {}, "old folder -> new folder, for data that have moved: replaces the beginning of every path"
    ),
}
"""Keys that a config file may have and that are gone once it is read."""


def find(name: str, settings: Settings) -> tuple[Topic, ...]:
    """The topics of a name, several if it means several things; ValueError with the nearest name if there is none."""
    words = name.split(".")
    if name == WHOLE:
        return (root_topic(settings),)
    if name in FILE_KEYS:
        return (value_topic(FILE_KEYS[name], name, settings),)
    topics = [*_at_key(ROOT, words, "", settings)] if words[0] in ROOT.keys else []
    for parts in registry.REGISTRIES:
        topics += _in_registry(parts, words, settings)
    topics += _of_options_class(words, settings)
    topics = list(dict.fromkeys(topics or _with_argument(name, settings)))
    if not topics:
        raise ValueError(f"{name!r} is not a part, a key or an argument{nearest(name, names())} {HINT}")
    return tuple(topics)


HINT = "`detkit explain` lists what there is; a part in a file of your own needs --import FILE"


def names() -> list[str]:
    """Every name with a meaning of its own: keys, parts, registries, options classes, arguments."""
    keys = [path for path, _ in nodes() if path]
    parts = [name for parts in registry.REGISTRIES for name in parts.names()]
    arguments = [f"{path}.{key}" for path, node in nodes() if isinstance(node, Options) for key in _fields(node)]
    return [WHOLE, *FILE_KEYS, *keys, *parts, *(r.name for r in registry.REGISTRIES), *arguments]


def root_topic(settings: Settings) -> Topic:
    """All keys of a config: those of every section, and of the file."""
    keys = [*FILE_KEYS.items(), *((path, node) for path, node in nodes() if path)]
    return replace(section_topic(ROOT, "", settings), rows=tuple(key_row(path, node, settings) for path, node in keys))


def _at_key(node: Node, words: Sequence[str], path: str, settings: Settings) -> Iterator[Topic]:
    """The topics of a dotted key, `words`, below a node of the schema at `path`."""
    if isinstance(node, Section):
        if not words:
            yield section_topic(node, path, settings)
        elif words[0] in node.keys:
            yield from _at_key(node.keys[words[0]], words[1:], join(path, words[0]), settings)
        else:
            raise _unknown(words[0], path, list(node.keys))
    elif isinstance(node, Options):
        topic = options_topic(node, path, settings)
        yield _argument(topic, words, path) if words else topic
    elif isinstance(node, PlainValue):
        yield value_topic(node, path, settings)
    else:
        yield from _at_slot(node, words, path, settings)


def _at_slot(node: Part | Parts, words: Sequence[str], path: str, settings: Settings) -> Iterator[Topic]:
    """A slot and the parts that a config has there; a part, or an argument, that the words after its key name."""
    at = list(settings.paths_of(path, node))
    entry = words[0] if isinstance(node, Parts) and words and words[0].isdigit() else ""
    if entry:
        if settings.name and f"{path}.{entry}" not in at:
            raise ValueError(f"{path}.{entry}: {settings.name} has {len(at)} entries there, counted from 0")
        at, words = [here for here in at if here == f"{path}.{entry}"], words[1:]
    types = {here: setting.value for here in at if (setting := settings.type_at(here))}
    if not words or words[0] == "type":
        for here, name in types.items():
            yield part_topic(node.registry, name, settings, here)
        if not entry or not types:
            yield slot_topic(node, path, settings)
    elif words[0] in node.registry.names():
        yield from _part(node.registry, words, settings)
    else:
        yield from _argument_at_slot(node.registry, words, path, types, settings)


def _argument_at_slot(
    parts: registry.Registry, words: Sequence[str], path: str, types: dict[str, str], settings: Settings
) -> Iterator[Topic]:
    """An argument of the parts that a config has at a slot, or of every part that may stand there."""
    key = words[0]
    places = list(types.items()) or [("", name) for name in parts.names()]
    topics = {(here, name): part_topic(parts, name, settings, here) for here, name in places}
    matching = {place: topic for place, topic in topics.items() if key in topic.argument_names}
    for topic in topics.values():
        if not matching and key in dict(topic.derived):
            raise ValueError(f"{path}.{key} is derived: {topic.name} gets it from {dict(topic.derived)[key]}")
    if not matching:
        which = f" of {', '.join(types.values())}" if types else ""
        known = dict.fromkeys(name for topic in topics.values() for name in topic.argument_names)
        raise _unknown(key, path, list(known), which, near=parts.names())
    for (here, _), topic in matching.items():
        yield _argument(topic, words, here or path)


def _in_registry(parts: registry.Registry, words: Sequence[str], settings: Settings) -> Iterator[Topic]:
    """A registry, one of its parts, or an argument of a part: `heads`, `heads.Head`, `Head`, `Head.channels`."""
    if words[0] == parts.name:
        if len(words) == 1:
            if words[0] not in ROOT.keys:
                yield registry_topic(parts)
        elif words[1] in parts.names():
            yield from _part(parts, words[1:], settings)
        elif words[0] not in ROOT.keys:
            raise _unknown(words[1], parts.name, parts.names(), what="part")
    else:
        same = [name for name in parts.names() if name == words[0]]
        for name in same or [name for name in parts.names() if name.lower() == words[0].lower()]:
            yield from _part(parts, [name, *words[1:]], settings)


def _part(parts: registry.Registry, words: Sequence[str], settings: Settings) -> Iterator[Topic]:
    """A part wherever a config has it, or as it is by default; with a second word, an argument of it."""
    slots = dict(nodes())
    at = [here for path in slots_of(parts) for here in settings.paths_of(path, slots[path])]
    at = [here for here in at if (raw := settings.type_at(here)) and raw.value == words[0]]
    for here in at or [""]:
        topic = part_topic(parts, words[0], settings, here)
        yield _argument(topic, words[1:], here or words[0]) if len(words) > 1 else topic


def _of_options_class(words: Sequence[str], settings: Settings) -> Iterator[Topic]:
    for path, node in nodes():
        if isinstance(node, Options) and node.target.partition(":")[2] == words[0]:
            yield from _at_key(node, words[1:], path, settings)


def _with_argument(name: str, settings: Settings) -> Iterator[Topic]:
    """The argument of that name wherever there is one."""
    for parts in registry.REGISTRIES:
        for part in parts.names():
            if name in parts.arguments(part):
                yield from _part(parts, [part, name], settings)
    for path, node in nodes():
        if isinstance(node, Options) and name in _fields(node):
            yield from _at_key(node, [name], path, settings)


def _fields(node: Options) -> list[str]:
    return list(arguments_of(resolve_name(node.target)))


def _argument(topic: Topic, words: Sequence[str], path: str) -> Topic:
    """A topic cut down to the argument that the first word names; others may follow for an entry of a list or map."""
    key, *below = words
    arguments = tuple(argument for argument in topic.arguments if argument.name == key)
    if not arguments:
        raise _unknown(key, path, topic.argument_names)
    if below and not re.search(r"\b(list|map)\b|\[", arguments[0].type):
        raise ValueError(f"{path}.{'.'.join(words)}: {path}.{key} takes {arguments[0].type}, which has no keys")
    owner = topic.owner if path != topic.owner else f"a part of {topic.registry}"
    return Topic(
        kind="argument",
        name=f"{path}.{key}",
        title=f"{path}.{key}, an argument of {owner}",
        summary="",
        papers=topic.papers,
        registry=topic.registry,
        owner=topic.owner,
        file=topic.file,
        line=topic.line,
        arguments=arguments,
    )


def _unknown(
    key: str, path: str, known: Sequence[str], which: str = "", *, what: str = "key", near: Sequence[str] = ()
) -> ValueError:
    """near: names that may be meant besides the known ones."""
    hint = nearest(key, [*known, *near])
    return ValueError(f"{join(path, key)}: unknown {what}{which}{hint} Known: {', '.join(known) or 'none'}")
