"""The gradients of MMDetection: they show what is a constant to the loss, such as the weights of boxes."""

from __future__ import annotations

from types import ModuleType

import pytest

from tests.family import reference as ref
from tests.family import test_ddod, test_paa, test_tood, test_vfnet

LOOSE = 2e-3
"""Rounding moves an input across the kink of a ReLU here and there; a missing factor moves the norms more."""
OBJECTS = ["full", "half"]
CASES = [
    *((test_paa, "paa_r18", variant) for variant in OBJECTS),
    *((test_vfnet, "vfnet_r18", variant) for variant in OBJECTS),
    *((test_tood, "tood_r18", variant) for variant in [*OBJECTS, "full_initial"]),
    *((test_ddod, "ddod_r18", variant) for variant in OBJECTS),
]


@pytest.mark.parametrize(("module", "name", "variant"), CASES, ids=lambda value: getattr(value, "__name__", value))
def test_norms_of_the_gradients(module: ModuleType, name: str, variant: str) -> None:
    model, detector, _ = module.built()
    if module is test_tood:
        test_tood.at_start(detector, variant)
    if module is test_ddod:
        detector = test_ddod.with_factors(detector, model, variant)
    detector.zero_grad()
    losses = detector.loss(ref.predict(detector), ref.targets_of(variant))
    divisors = detector.divide({key: n.double() for key, n in losses.normalizers.items()})
    losses.over(divisors).backward()
    wanted = dict(zip(model.about["grad_keys"], model[f"{variant}.grad_norms"].tolist(), strict=True))
    compared = set()
    for key, parameter in detector.named_parameters():
        if parameter.grad is None:
            continue
        if key in ref.SCALES:
            found = {f"{ref.SCALES[key]}.{i}.scale": g.norm() for i, g in enumerate(parameter.grad)}
        else:
            found = {ref.foreign(key, [*ref.BODY, *module.RULES]): parameter.grad.norm()}
        for foreign, norm in found.items():
            if foreign in wanted:  # detkit freezes other stages, and every norm of the backbone
                assert float(norm) == pytest.approx(wanted[foreign], rel=LOOSE, abs=1e-6), (key, foreign)
                compared.add(foreign)
    detector.zero_grad()
    assert {key for key in wanted if key.startswith(("bbox_head", "neck"))} <= compared
