"""Contracts of backbones, necks, anchor generators and heads."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from detkit.heads.base import HeadOutputs
from detkit.structures import FeatureShape
from detkit.testing.contract import Checks, Contract, Nest, Subject, TestedPart, expect, must_not_draw, must_not_raise
from detkit.testing.memory import add_memory_checks
from detkit.testing.modules import MODULE_CHECKS, add_forward_checks, expect_same, tensors
from detkit.utils.types import Tree

SIZES = ((64, 64), (65, 97), (96, 160))
RESNET = {f"c{i}": FeatureShape(16 * 2**i, 2**i) for i in (2, 3, 4, 5)}
IN_SHAPES: tuple[Tree, ...] = (
    {"in_shapes": {k: RESNET[k] for k in ("c3", "c4", "c5")}},
    {"in_shapes": RESNET},
    {"in_shapes": {"conv4_3": FeatureShape(512, 8), "conv7": FeatureShape(1024, 16)}},
    {"in_shapes": {"p3": FeatureShape(64, 16), "p4": FeatureShape(128, 32)}},
)
STRIDES: tuple[Tree, ...] = tuple(
    {"strides": s} for s in ((8, 16, 32, 64, 128), (8, 16, 32, 64, 100, 300), (8, 16, 32), (4, 8, 16, 32), (16,))
)
LEVELS = ((8, 8), (4, 4), (2, 2))
OTHER_LEVELS: tuple[tuple[tuple[int, int], ...], ...] = (((8, 8),), ((16, 16), (8, 8), (4, 4), (2, 2), (1, 1)))
"""Of one level, and of the five that an FPN has."""
COLUMNS = 3
OPENINGS: Tree = {"box_columns": 6, "with_quality": True}
"""Derived arguments that a head need not take: columns of an unusual coder, and a quality branch."""
HEADS: tuple[Tree, ...] = tuple(
    {
        "in_channels": channels,
        "anchors_per_cell": per_cell,
        "num_columns": COLUMNS,
        "class_bias": torch.tensor([-2.0, -3.0, -4.0]),
    }
    for channels in ((64, 64, 64), (64, 96, 128))
    for per_cell in ((3, 3, 3), (1, 1, 1), (4, 6, 4))
)


def _images(s: Subject, size: tuple[int, int]) -> Tensor:
    return torch.randn(2, getattr(s.part, "in_channels", 3), *size)


def _features(s: Subject, size: tuple[int, int]) -> dict[str, Tensor]:
    shapes: dict[str, FeatureShape] = s.derived["in_shapes"]
    return {k: torch.randn(2, f.channels, -(-size[0] // f.stride), -(-size[1] // f.stride)) for k, f in shapes.items()}


def _levels(s: Subject, size: tuple[int, int]) -> list[Tensor]:
    return [torch.randn(2, c, *shape) for c, shape in zip(s.derived["in_channels"], LEVELS, strict=False)]


check_backbone = Contract("backbones", "backbone", inputs=_images)
check_neck = Contract("necks", "neck", IN_SHAPES, _features)
check_anchor_generator = Contract("anchors", "anchor generator", STRIDES)
check_head = Contract("heads", "head", HEADS, _levels)
add_forward_checks(check_backbone, "images have 3 channels, or as many as the part's attribute `in_channels` says")
add_forward_checks(check_neck, "a neck gets a dict of maps by level, which `in_shapes` describes")
add_forward_checks(check_head, "a head gets a list of maps, as many and as wide as `in_channels` says")
LEVEL_CHECKS = Checks()
"""Of backbones and necks."""


@LEVEL_CHECKS.check("anchors and head are sized by the declaration, after a backbone also the neck.")
def declares_its_levels(s: Subject) -> None:
    shapes = s.part.out_shapes
    expect(isinstance(shapes, dict) and shapes, f"out_shapes is {shapes!r}, not a dict with levels")
    for name, shape in shapes.items():
        expect(isinstance(shape, FeatureShape), f"out_shapes[{name!r}] is a {type(shape).__name__}, not a FeatureShape")
    strides = [f.stride for f in shapes.values()]
    expect(strides == sorted(strides), f"strides {strides} do not go from the finest level to the coarsest")


@LEVEL_CHECKS.check("anchors would lie beside what the features see, at image sizes nobody tried.")
def levels_are_as_declared(s: Subject) -> None:
    for size in SIZES:
        with torch.no_grad():
            features = s.part.eval()(s.inputs(size))
        expect(isinstance(features, dict), f"forward gives a {type(features).__name__}, not a dict of maps by level")
        declared = s.part.out_shapes
        expect(list(features) == list(declared), f"declares levels {list(declared)}, puts out {list(features)}")
        for name, shape in declared.items():
            have = tuple(features[name].shape[1:])
            want = (shape.channels, -(-size[0] // shape.stride), -(-size[1] // shape.stride))
            image = f"{size[0]}x{size[1]} image"
            expect(
                have == want,
                f"level {name} of a {image} is {have}, by its declaration {want} "
                f"(channels, height, width; stride {shape.stride})",
            )


def _expect_rows(
    outputs: Sequence[Any],
    levels: Sequence[tuple[int, int]],
    per_cell: tuple[int, ...],
    of: str = "",
    box_columns: int = 4,
) -> None:
    logits, deltas, quality, first = HeadOutputs(*outputs)
    kinds = [("logits", logits, COLUMNS), ("deltas", deltas, box_columns)]
    kinds += [] if quality is None else [("quality", quality, 1)]
    for what, levelwise, columns in kinds + ([] if first is None else [("first", first, box_columns)]):
        expect(len(levelwise) == len(levels), f"{what} of {len(levelwise)} levels, want {len(levels)}")
        for i, ((h, w), a) in enumerate(zip(levels, per_cell, strict=True)):
            have, want = tuple(levelwise[i].shape), (2, h * w * a, columns)
            expect(have == want, f"{what} of level {i}{of} are {have}, want {want}")


@check_backbone.check("a parameter without a layer would get no learning rate from optimizer.layer_decay.")
def every_parameter_has_a_layer(s: Subject) -> None:
    layers = [list(names) for names in s.part.layer_names()]
    known = {name for name, _ in (*s.part.named_modules(), *s.part.named_parameters())}
    unknown = [name for names in layers for name in names if name not in known]
    expect(not unknown, f"layer_names has {unknown[:3]}, which are no modules or parameters")
    for name, _ in s.part.named_parameters() if layers else ():
        count = sum(f"{name}.".startswith(f"{part}.") for names in layers for part in names)
        expect(count == 1, f"layer_names has {name} in {count} layers, want 1; no layers at all is allowed")


@check_head.check("predictions would not match their anchors.")
def one_row_for_every_anchor(s: Subject) -> None:
    _expect_rows(s.part(_levels(s, SIZES[0])), LEVELS, s.derived["anchors_per_cell"])


def _expect_bias(logits: Tensor, level: int, bias: Tensor, of: str = "") -> None:
    seen = logits.mean(dim=(0, 1))
    near = (seen - bias).abs().max() < 0.5
    expect(near, f"mean logits of level {level}{of} at the start are {[round(v, 2) for v in seen.tolist()]}, "
           f"the loss asked for {bias.tolist()}")  # fmt: skip


@check_head.check("the config chooses the neck, and so the number of levels.")
def takes_other_numbers_of_levels(s: Subject) -> None:
    for levels in OTHER_LEVELS:
        count = len(levels)
        channels, per_cell = (
            (*s.derived[k], *s.derived[k][-1:] * count)[:count] for k in ("in_channels", "anchors_per_cell")
        )
        try:
            head = s.factory(**{**s.derived, "in_channels": channels, "anchors_per_cell": per_cell})
        except ValueError:
            continue  # refused with a reason, when the detector is built
        with must_not_raise(f"a forward over {count} level(s)"):
            outputs = head([torch.zeros(2, c, *shape) for c, shape in zip(channels, levels, strict=True)])
        _expect_rows(outputs, levels, per_cell, f" of {count}")
        for i, level in enumerate(outputs[0]):
            _expect_bias(level.detach(), i, s.derived["class_bias"], f" of {count}")
        torch.stack([o.sum() for o in tensors(outputs)]).sum().backward()  # type: ignore[no-untyped-call]
        lost = [n for n, p in head.named_parameters() if p.requires_grad and p.grad is None]
        expect(not lost, f"with {count} level(s) no gradient reaches {', '.join(lost[:4])}")


@check_head.check("a coder with columns of its own, or a loss of quality, would find none, or make training fail.")
def serves_the_coder_and_the_quality_loss(s: Subject) -> None:
    known = inspect.signature(type(s.part).__init__).parameters
    anything = any(p.kind is p.VAR_KEYWORD for p in known.values())
    taken = {name: value for name, value in OPENINGS.items() if anything or name in known}
    if not taken:
        return
    head = s.factory(**{**s.derived, **taken})
    levels = _levels(s, SIZES[0])
    with must_not_raise(f"a forward with {', '.join(f'{k}={v}' for k, v in taken.items())}"):
        outputs = HeadOutputs(*head(levels))
    columns = int(taken.get("box_columns", 4))
    _expect_rows(outputs, LEVELS, s.derived["anchors_per_cell"], box_columns=columns)
    expect((outputs.quality is not None) is ("with_quality" in taken), "with_quality=True gives no quality")
    torch.stack([o.sum() for o in tensors(outputs)]).sum().backward()  # type: ignore[no-untyped-call]
    lost = [n for n, p in head.named_parameters() if p.requires_grad and p.grad is None]
    expect(not lost, f"no gradient reaches {', '.join(lost[:4])}")


@check_head.check("a prediction would be trained against an anchor elsewhere in the image.")
def rows_run_over_cells_row_by_row(s: Subject) -> None:
    s.part.eval()
    features = [f.requires_grad_() for f in _levels(s, SIZES[0])]
    for which in (0, 1):
        h, w = LEVELS[0]
        a = s.derived["anchors_per_cell"][0]
        for y, x in ((0, w - 1), (h - 1, 0)):
            row = s.part(features)[which][0][0, (y * w + x) * a]
            gradient = torch.autograd.grad((row * torch.randn_like(row)).sum(), features[0])[0][0].abs().sum(dim=0)
            top = divmod(int(gradient.argmax()), w)
            near = abs(top[0] - y) <= h // 2 - 1 and abs(top[1] - x) <= w // 2 - 1
            expect(near, f"{('logits', 'deltas')[which]} of cell {(y, x)} look at cell {top} most")


@check_head.check("thousands of background anchors would drown the first steps in a huge loss.")
def starts_at_the_bias_of_the_loss(s: Subject) -> None:
    s.part.eval()
    with torch.no_grad():
        logits = s.part([torch.zeros_like(f) for f in _levels(s, SIZES[0])])[0]
    for i, level in enumerate(logits):
        _expect_bias(level, i, s.derived["class_bias"])


def _anchors(s: Subject, image: tuple[int, int]) -> tuple[list[tuple[int, int]], list[Tensor]]:
    shapes = [(-(-image[0] // t), -(-image[1] // t)) for t in s.derived["strides"]]
    return shapes, s.part(shapes, image, torch.device("cpu"))


@check_anchor_generator.check("the head makes as many predictions as per_cell says.")
def count_is_as_declared(s: Subject) -> None:
    per_cell, count = s.part.per_cell, len(s.derived["strides"])
    expect(len(per_cell) == count, f"per_cell {per_cell} for {count} levels")
    for image in ((256, 384), (257, 383), (64, 64)):
        shapes, levels = _anchors(s, image)
        for i, (h, w) in enumerate(shapes):
            have, want = tuple(levels[i].shape), (h * w * s.part.per_cell[i], 4)
            expect(have == want, f"level {i} ({h}x{w} cells) has {have}, want {want}")


@check_anchor_generator.check("box coding divides by an anchor's sides and is exact to a pixel in float32 only.")
def boxes_are_valid(s: Subject) -> None:
    for i, level in enumerate(_anchors(s, (256, 384))[1]):
        expect(level.dtype == torch.float32, f"level {i} is {level.dtype}, not float32")
        expect(level.isfinite().all(), f"level {i} has values that are not finite")
        expect((level[:, 2:] > level[:, :2]).all(), f"level {i} has boxes without width or height")


@check_anchor_generator.check("every prediction would be trained against an anchor elsewhere in the image.")
def anchors_stand_on_their_cells(s: Subject) -> None:
    image = (384, 640)
    shapes, levels = _anchors(s, image)
    for i, ((h, w), stride) in enumerate(zip(shapes, s.derived["strides"], strict=True)):
        if image[0] % stride or image[1] % stride:
            continue
        boxes = levels[i].reshape(h, w, s.part.per_cell[i], 4)
        limits = boxes.new_tensor([image[1], image[0]])
        inside = ((boxes[..., :2] > 0) & (boxes[..., 2:] < limits)).all(dim=-1)  # others may be clipped
        y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
        cells = torch.stack((x, y), dim=-1)[:, :, None] * stride
        off = ((boxes[..., :2] + boxes[..., 2:]) / 2 - cells).abs().amax(dim=-1)
        off = torch.where(inside, off, 0.0)
        most = float(off.max())
        expect(most <= stride / 2 + 1, f"level {i} (stride {stride}) has an anchor {most:.1f} px off its cell's middle")


@check_anchor_generator.check("anchors are kept for a shape and used again.")
def same_shape_same_anchors(s: Subject) -> None:
    with must_not_draw():
        expect_same(_anchors(s, (96, 160))[1], _anchors(s, (96, 160))[1], "two calls")


def _module_step(s: Subject, part: TestedPart, k: int) -> Nest:
    """A training step of a module with weights, or its outputs in eval mode."""
    value = s.inputs(SIZES[0] if k % 3 else (64, 96))
    if not part.training:
        with torch.no_grad():
            return tensors(part(value))
    part.zero_grad()
    outputs = tensors(part(value))
    if any(o.requires_grad for o in outputs):
        torch.stack([(o * torch.randn_like(o)).sum() for o in outputs]).sum().backward()  # type: ignore[no-untyped-call]
    return [*(o.detach() for o in outputs), *(p.grad for p in part.parameters() if p.grad is not None)]


def _anchor_call(s: Subject, part: TestedPart, k: int) -> Nest:
    image = (64 + 32 * (k % 3), 96)
    return part([(-(-image[0] // t), -(-image[1] // t)) for t in s.derived["strides"]], image, torch.device("cpu"))


for _contract in (check_backbone, check_neck):
    _contract.include(LEVEL_CHECKS)
for _contract in (check_backbone, check_neck, check_head):
    _contract.include(MODULE_CHECKS)
    add_memory_checks(_contract, _module_step, calls=6)
add_memory_checks(check_anchor_generator, _anchor_call)
