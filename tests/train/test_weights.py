from __future__ import annotations

import torch
from torch import nn

from detkit.structures import ClassMap
from detkit.train.weights import format_rows, init_from


class Net(nn.Module):
    def __init__(self, classes: int, width: int = 3, extra: bool = False) -> None:
        super().__init__()
        self.body = nn.Linear(2, width)
        self.class_out = nn.Conv2d(4, 2 * classes, 1)
        if extra:
            self.extra = nn.Linear(1, 1)


def classes(*names: str) -> ClassMap:
    return ClassMap(names, tuple(range(len(names))))


def test_same_classes_load_whole() -> None:
    new, old = Net(2), Net(2)
    rows = init_from(new, old.state_dict(), classes("a", "b"), classes("a", "b"), (2, 2))
    assert {r.status for r in rows} == {"loaded"}
    assert torch.equal(new.class_out.weight, old.class_out.weight)


def test_columns_follow_the_class_name() -> None:
    new, old = Net(2), Net(3)
    before = new.class_out.weight.detach().clone().view(2, 2, 4)
    rows = init_from(new, old.state_dict(), classes("cat", "dog", "cow"), classes("cow", "fox"), (3, 2))
    mine, theirs = new.class_out.weight.view(2, 2, 4), old.class_out.weight.view(2, 3, 4)
    assert torch.equal(mine[:, 0], theirs[:, 2])
    assert torch.equal(mine[:, 1], before[:, 1])
    assert torch.equal(new.class_out.bias.view(2, 2)[:, 0], old.class_out.bias.view(2, 3)[:, 2])
    assert {r.name: r.status for r in rows}["class_out.weight"] == "partly"


def test_the_same_number_of_classes_in_another_order_is_no_trap() -> None:
    new, old = Net(2), Net(2)
    init_from(new, old.state_dict(), classes("cat", "dog"), classes("dog", "cat"), (2, 2))
    assert torch.equal(new.class_out.bias.view(2, 2), old.class_out.bias.view(2, 2).flip(1))


def test_the_table_tells_of_every_tensor() -> None:
    new, old = Net(2, width=5), Net(2, extra=True)
    rows = init_from(new, old.state_dict(), classes("a", "b"), classes("c", "d"), (2, 2))
    status = {r.name: r.status for r in rows}
    assert status == {
        "body.weight": "reinit",
        "body.bias": "reinit",
        "class_out.weight": "reinit",
        "class_out.bias": "reinit",
        "extra.weight": "unused",
        "extra.bias": "unused",
    }
    table = format_rows(rows)
    assert "(3, 2) there, (5, 2) here" in table
    assert "0 loaded, 0 partly, 4 reinit, 2 unused" in table
