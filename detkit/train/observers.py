"""The hooks and loggers of a config."""

from __future__ import annotations

from typing import Any

from detkit.config import Config
from detkit.hooks.base import Hook
from detkit.loggers.base import Loggers, check_installed
from detkit.registry import HOOKS, LOGGERS

TENSORBOARD = "TensorBoard"


def build_hooks(config: Config) -> list[Hook[Any]]:
    """The hooks in their order; each knows its place in the config."""
    hooks: list[Hook[Any]] = []
    for i in range(len(config.hooks)):
        hook: Hook[Any] = config.build(HOOKS, f"hooks.{i}")
        hook.place = f"hooks.{i}"
        hooks.append(hook)
    return hooks


def build_loggers(config: Config) -> Loggers:
    """The loggers; ValueError that names the line of the config where a package is missing."""
    loggers = []
    for node in logger_nodes(config):
        logger = LOGGERS.build(node)
        check_installed(logger, f"{config.location('loggers')}: loggers")
        loggers.append(logger)
    return Loggers(loggers)


def logger_nodes(config: Config) -> list[Any]:
    """The nodes of `loggers`, after `train.tensorboard` of older configs has added or removed TensorBoard."""
    wanted: bool | None = config.options("train").tensorboard
    nodes = list(config.loggers)
    if wanted is False:
        return [node for node in nodes if node["type"] != TENSORBOARD]
    if wanted and not any(node["type"] == TENSORBOARD for node in nodes):
        return [*nodes, {"type": TENSORBOARD}]
    return nodes
