"""The sums of a step: terms and divisors of its micro-batches as rows of numbers that ranks add up."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from detkit.structures import Losses


@dataclass(frozen=True)
class Layout:
    """What the numbers of a row are: the terms, then the numbers of each divisor.

    divided_by: term -> divisor. shapes: divisor -> shape of its numbers.
    """

    terms: tuple[str, ...]
    divided_by: dict[str, str]
    shapes: dict[str, torch.Size]

    @classmethod
    def of(cls, losses: Losses) -> Layout:
        divided_by = {name: losses.divisor_of(name) for name in losses.terms}
        return cls(tuple(losses.terms), divided_by, {name: n.shape for name, n in losses.normalizers.items()})

    def numbers(self, row: Tensor) -> dict[str, Tensor]:
        """The numbers of each divisor in a row."""
        parts = torch.split(row[len(self.terms) :], [shape.numel() for shape in self.shapes.values()])
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}


def row_of(losses: Losses) -> Tensor:
    """(W,) doubles: the terms and the numbers of the divisors of a micro-batch, without graph."""
    parts = [*losses.terms.values(), *losses.normalizers.values()]
    return torch.cat([x.detach().double().reshape(-1) for x in parts])


def relative(divisors: dict[str, Tensor]) -> dict[str, Tensor]:
    """divisor -> the first one over it: factors under which all terms may be divided by the first."""
    first = next(iter(divisors.values())).double()
    return {name: first / divisor.double() for name, divisor in divisors.items()}
