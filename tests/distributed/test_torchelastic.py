"""The private members of torchelastic that detkit relies on, and the message when a new torch changes one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
import torch
from torch.distributed.elastic.agent.server.api import WorkerSpec
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent

from detkit.distributed.torchelastic import ATTRIBUTES, METHODS, ElasticAgent

if TYPE_CHECKING:
    from torch.distributed.elastic.rendezvous import RendezvousHandler

ADAPT = "detkit/distributed/torchelastic.py must be adapted"


def agent(folder: Path) -> ElasticAgent:
    handler = cast("RendezvousHandler", None)  # asked first when the agent runs
    spec = WorkerSpec(role="test", local_world_size=1, rdzv_handler=handler, entrypoint=sys.executable)
    return ElasticAgent(spec, str(folder))


def refusal(folder: Path) -> str:
    with pytest.raises(RuntimeError) as caught:
        agent(folder)
    return str(caught.value)


def test_this_torch_has_the_members(tmp_path: Path) -> None:
    assert agent(tmp_path).restarts_left == 3


@pytest.mark.parametrize("name", METHODS)
def test_a_method_that_is_gone_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for owner in LocalElasticAgent.__mro__:
        if name in vars(owner):
            monkeypatch.delattr(owner, name)
    # Classes that lack an abstract method can't be built: what counts is the check.
    monkeypatch.setattr(ElasticAgent, "__abstractmethods__", frozenset())
    assert refusal(tmp_path) == f"torch {torch.__version__}: LocalElasticAgent has no {name} any more: {ADAPT}"


@pytest.mark.parametrize("name", METHODS)
def test_a_method_with_other_parameters_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalElasticAgent, name, lambda self, group, more: None)
    text = refusal(tmp_path)
    assert f"LocalElasticAgent's {name} takes (self, group, more), not (self, " in text
    assert text.endswith(ADAPT)


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_an_attribute_that_is_gone_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = LocalElasticAgent.__init__

    def without(self: LocalElasticAgent, *args: object, **more: object) -> None:
        build(self, *args, **more)  # type: ignore[arg-type]
        delattr(self, name)

    monkeypatch.setattr(LocalElasticAgent, "__init__", without)
    assert refusal(tmp_path) == f"torch {torch.__version__}: LocalElasticAgent has no {name} any more: {ADAPT}"
