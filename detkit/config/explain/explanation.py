"""`explain` and `list_parts` as plain functions."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from detkit import registry
from detkit.config.config import Config
from detkit.config.explain.find import WHOLE, find
from detkit.config.explain.markdown import markdown_of
from detkit.config.explain.settings import Settings
from detkit.config.explain.text import WIDTH, overview_text, text_of
from detkit.config.explain.topics import Topic, nodes
from detkit.config.schema import Options
from detkit.registry.arguments import nearest
from detkit.utils.types import Tree


@dataclass(frozen=True, repr=False)
class Explanation:
    """What a name means; `str` gives text, a notebook shows it as Markdown. config: whose values it includes."""

    topics: tuple[Topic, ...]
    config: str = ""

    def text(self, width: int = WIDTH) -> str:
        """Lines of at most `width` characters."""
        return text_of(self.topics, width, self.config)

    def __str__(self) -> str:
        return self.text()

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        return markdown_of(self.topics)

    def to_dict(self) -> Tree:
        """The topics as plain data, for JSON."""
        return {"config": self.config or None, "topics": [dataclasses.asdict(topic) for topic in self.topics]}


def explain(name: str, config: Config | None = None) -> Explanation:
    """Explains a part, a key of a config, a registry, an options class or an argument.

    Args:
        name: as in `SigmoidFocalLoss`, `train`, `losses.classification`, `train.precision`, `backbones`, `gamma`. A
            part whose name two registries have is also reached as `backbones.ResNet`.
        config: adds the values that it sets and where they come from.

    Raises ValueError with the nearest name if there is nothing of that name.
    """
    registry.load_plugins()
    settings = Settings(config)
    return Explanation(find(name, settings), settings.name)


class Overview(Explanation):
    """The keys of a config, and the names of all parts."""

    def text(self, width: int = WIDTH) -> str:
        return overview_text(self.topics[0], width)


def overview(config: Config | None = None) -> Explanation:
    """What can be explained."""
    return Overview(explain(WHOLE, config).topics)


def everything(config: Config | None = None) -> Explanation:
    """Every section of options and every part."""
    keys = [path for path, node in nodes() if isinstance(node, Options)]
    topics = [topic for name in (*keys, *list_parts()) for topic in explain(name, config).topics]
    return Explanation(tuple(topics), config.name if config else "")


def list_parts(registry_name: str | None = None) -> list[str]:
    """Names of the parts of a registry, sorted; None: of all registries, each as `backbones.ResNet`.

    ValueError with the nearest name if there is no such registry.
    """
    registry.load_plugins()
    if registry_name is None:
        return [f"{parts.name}.{name}" for parts in registry.REGISTRIES for name in parts.names()]
    known = {parts.name: parts for parts in registry.REGISTRIES}
    if registry_name not in known:
        hint = nearest(str(registry_name), list(known))
        raise ValueError(f"{registry_name!r} is not a registry{hint} Registries: {', '.join(known)}")
    return known[registry_name].names()
