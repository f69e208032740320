"""What there is to say about a part, a key or a registry: plain data, which the writers put into text or Markdown."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pkgutil import resolve_name
from types import FunctionType
from typing import Any

from detkit import registry
from detkit.config.explain.settings import Setting, Settings
from detkit.config.explain.words import bounds_words, type_words, yaml_words
from detkit.config.schema import ROOT, Node, Options, Part, Parts, PlainValue, Section
from detkit.config.validate import join
from detkit.registry.arguments import Argument, arguments_of
from detkit.registry.docstrings import Docstring, Paper, docstring_of, papers, unit
from detkit.registry.source import Entry, entry_of


@dataclass(frozen=True)
class ArgumentTopic:
    """An argument in words. default: as YAML has it; None if it must be given."""

    name: str
    type: str
    default: str | None
    bounds: str
    unit: str
    meaning: str
    papers: tuple[Paper, ...] = ()
    setting: Setting | None = None


@dataclass(frozen=True)
class Row:
    """A key of a section or a part of a registry.

    takes: what stands under the key; empty for a part. registry: of the part, or whose parts the key takes.
    """

    name: str
    meaning: str
    takes: str = ""
    registry: str = ""
    setting: Setting | None = None


@dataclass(frozen=True)
class Method:
    """A method that the parts of a registry define: its signature, and what it takes and returns."""

    signature: str
    meaning: str


@dataclass(frozen=True)
class Topic:
    """All about one name.

    kind: part, options, slot, section, value, argument or registry. name: as `detkit explain` takes it. title: the name
    and what it is. owner: the class that is explained. keys: the config keys under which it may stand. base:
    "module:Class" that parts derive from. derived: arguments that detkit hands in -> their source. example: YAML.
    """

    kind: str
    name: str
    title: str
    summary: str
    paragraphs: tuple[str, ...] = ()
    papers: tuple[Paper, ...] = ()
    registry: str = ""
    owner: str = ""
    file: str = ""
    line: int = 0
    keys: tuple[str, ...] = ()
    base: str = ""
    methods: tuple[Method, ...] = ()
    arguments: tuple[ArgumentTopic, ...] = ()
    derived: tuple[tuple[str, str], ...] = ()
    rows: tuple[Row, ...] = ()
    example: str = ""

    @property
    def argument_names(self) -> list[str]:
        return [argument.name for argument in self.arguments]


def nodes(node: Node = ROOT, path: str = "") -> Iterator[tuple[str, Node]]:
    """Every key of a config that the schema names, with its node; the root has an empty key."""
    yield path, node
    if isinstance(node, Section):
        for key, child in node.keys.items():
            yield from nodes(child, join(path, key))


def slots_of(parts: registry.Registry) -> tuple[str, ...]:
    """The config keys that take a part, or a list of parts, of a registry."""
    return tuple(path for path, node in nodes() if isinstance(node, (Part, Parts)) and node.registry is parts)


def argument_topic(argument: Argument, doc: Docstring, settings: Settings, path: str) -> ArgumentTopic:
    """An argument; `path` is the key of its part or options, empty where the config has none."""
    meaning = doc.arguments.get(argument.name, "")
    words = type_words(argument.annotation)
    return ArgumentTopic(
        name=argument.name,
        type=words,
        default=None if argument.required else yaml_words(argument.default),
        bounds=bounds_words(argument.annotation),
        unit=unit(meaning) if "int" in words or "float" in words else "",
        meaning=meaning,
        papers=papers(meaning),
        setting=settings.at(join(path, argument.name)) if path else None,
    )


def part_topic(parts: registry.Registry, name: str, settings: Settings, path: str = "") -> Topic:
    """A registered part; `path` is the key under which the config has it, if it has."""
    entry, doc, keys = parts.entry(name), docstring_of(parts.get(name)), slots_of(parts)
    known = parts.arguments(name)
    return Topic(
        kind="part",
        name=name,
        title=f"{name}, a part of {parts.name}" + (f", at {path}" if path else ""),
        summary=doc.summary,
        paragraphs=doc.paragraphs,
        papers=doc.papers,
        registry=parts.name,
        owner=name,
        file=entry.file,
        line=entry.line,
        keys=keys,
        base=parts.base,
        methods=methods_of(parts),
        arguments=tuple(argument_topic(argument, doc, settings, path) for argument in known.values()),
        derived=tuple(parts.derived_arguments(name).items()),
        example=example(keys[0], name, known) if keys else "",
    )


def options_topic(node: Options, path: str, settings: Settings) -> Topic:
    """A section of a config whose keys are the fields of an options class."""
    cls: type = resolve_name(node.target)
    entry, doc, known = entry_of(cls), docstring_of(cls), arguments_of(cls)
    return Topic(
        kind="options",
        name=path,
        title=f"{path}, options ({cls.__name__})",
        summary=doc.summary,
        paragraphs=doc.paragraphs,
        papers=doc.papers,
        owner=cls.__name__,
        file=_file_of(cls, entry),
        line=entry.line,
        keys=(path,),
        arguments=tuple(argument_topic(argument, doc, settings, path) for argument in known.values()),
    )


def _file_of(cls: type, entry: Entry) -> str:
    """The file of a class; a dataclass has no function of its own that names it."""
    return inspect.getsourcefile(cls) or entry.file


def registry_topic(parts: registry.Registry) -> Topic:
    """The parts of a registry, and what they have in common."""
    doc, keys = base_doc(parts), slots_of(parts)
    return Topic(
        kind="registry",
        name=parts.name,
        title=f"{parts.name}, a registry" + (f" for {' and '.join(keys)}" if keys else ""),
        summary=doc.summary,
        registry=parts.name,
        keys=keys,
        base=parts.base,
        methods=methods_of(parts),
        derived=tuple(parts.derived.items()),
        rows=tuple(Row(name, docstring_of(parts.get(name)).summary, registry=parts.name) for name in parts.names()),
    )


def slot_topic(node: Part | Parts, path: str, settings: Settings) -> Topic:
    """A key that takes a part or a list of parts: the parts that fit, and the one that a config has."""
    common = registry_topic(node.registry)
    takes, setting = takes_words(node), settings.short(path, node)
    name, default = ("type", node.default) if isinstance(node, Part) else ("types", "[]")
    return Topic(
        kind="slot",
        name=path,
        title=f"{path}, {takes}",
        summary=common.summary,
        registry=common.registry,
        keys=(path,),
        base=common.base,
        methods=common.methods,
        derived=common.derived,
        rows=common.rows,
        arguments=(ArgumentTopic(name, takes, default, "", "", "", setting=setting),) if setting else (),
    )


def section_topic(node: Section, path: str, settings: Settings) -> Topic:
    """A key with named keys below it."""
    return Topic(
        kind="section",
        name=path or "config",
        title=f"{path}, a section" if path else "config, all its keys",
        summary=node.meaning,
        rows=tuple(key_row(join(path, key), child, settings) for key, child in node.keys.items()),
    )


def key_row(path: str, node: Node, settings: Settings) -> Row:
    """A key of a config in one line."""
    name = node.registry.name if isinstance(node, (Part, Parts)) else ""
    return Row(path, meaning_of(node), takes_words(node), name, settings.short(path, node))


def value_topic(node: PlainValue, path: str, settings: Settings) -> Topic:
    """A key of the top level that takes a plain value."""
    argument = Argument(path, node.annotation, node.default)
    doc = Docstring(arguments={path: node.meaning})
    return Topic("value", path, f"{path}, a value", "", arguments=(argument_topic(argument, doc, settings, ""),))


def takes_words(node: Node) -> str:
    """What a key takes."""
    if isinstance(node, Part):
        return f"a part of {node.registry.name}" + (f", default {node.default}" if node.default else "")
    if isinstance(node, Parts):
        return f"a list of parts of {node.registry.name}"
    if isinstance(node, PlainValue):
        return type_words(node.annotation)
    return "options" if isinstance(node, Options) else "a section"


def meaning_of(node: Node) -> str:
    """What a key is for, in a sentence: that of its schema, its options class, or the base of its parts."""
    if isinstance(node, (Section, PlainValue)):
        return node.meaning
    return (
        docstring_of(resolve_name(node.target)).summary
        if isinstance(node, Options)
        else base_doc(node.registry).summary
    )


def base_doc(parts: registry.Registry) -> Docstring:
    """The docstring of the class that the parts of a registry derive from."""
    return docstring_of(resolve_name(parts.base))


def methods_of(parts: registry.Registry) -> tuple[Method, ...]:
    """What a part is called with and returns: `forward`, `__call__`, or else the methods that a part defines.

    Those are the methods of the base that raise NotImplementedError; where none does (hooks), those that do nothing.
    """
    own = {name: item for name, item in vars(resolve_name(parts.base)).items() if inspect.isfunction(item)}
    main = [name for name in ("forward", "__call__") if name in own]
    required = [name for name, item in own.items() if "NotImplementedError" in item.__code__.co_names]
    names = main or required or [name for name, item in own.items() if not name.startswith("_") and _is_empty(item)]
    return tuple(Method(_signature(own[name]), _first_sentence(own[name])) for name in names)


def _is_empty(function: FunctionType) -> bool:
    """Whether a function uses no name: it does nothing, or returns what it was given."""
    return not function.__code__.co_names


def _signature(function: Callable[..., Any]) -> str:
    signature = inspect.signature(function)
    shown = signature.replace(parameters=list(signature.parameters.values())[1:])
    return f"{function.__name__}{shown}".replace("'", "")


def _first_sentence(function: Callable[..., Any]) -> str:
    return " ".join((inspect.getdoc(function) or "").partition("\n\n")[0].split())


def example(path: str, name: str, known: Mapping[str, Argument]) -> str:
    """YAML with a part of that name at a key: its defaults, and `???`, which must be replaced, where there are none."""
    *above, last = path.split(".")
    lines = [f"{'  ' * depth}{key}:" for depth, key in enumerate([*above, last])]
    values = [("type", name), *((key, "???" if a.required else yaml_words(a.default)) for key, a in known.items())]
    indent = "  " * len(lines)
    mark = "- " if isinstance(dict(nodes())[path], Parts) else ""
    starts = [indent + mark] + [indent + " " * len(mark)] * len(known)
    return "\n".join([*lines, *(f"{start}{key}: {value}" for start, (key, value) in zip(starts, values, strict=True))])
