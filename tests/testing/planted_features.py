"""Faults against the contracts of backbones, necks, heads and anchor generators."""

from __future__ import annotations

from typing import Any

import torch

from detkit.structures import FeatureShape
from tests.testing.planted import fault


def backwards(levels: dict[str, Any]) -> dict[str, Any]:
    return dict(reversed(levels.items()))


def declare(**shapes: Any) -> Any:
    return lambda self: setattr(self, "out_shapes", {**self.out_shapes, **shapes})


def declare_backwards(self: Any) -> None:
    self.out_shapes = backwards(self.out_shapes)


def crop_to_cells(self: Any, original: Any, images: Any) -> Any:
    return original(images[..., : images.shape[-2] // 16 * 16, : images.shape[-1] // 16 * 16])


def column_by_column(self: Any, original: Any, shapes: Any, *rest: Any) -> Any:
    return [
        b.reshape(h, w, -1, 4).transpose(0, 1).reshape(-1, 4)
        for b, (h, w) in zip(original(shapes, *rest), shapes, strict=True)
    ]


FAULTS = [
    fault(
        "backbones",
        "forward_runs",
        r"forward of \(2, 3, 64, 64\) raises RuntimeError: .* to have 3 channels, but got 2 channels instead",
        inputs=lambda self, t: t[:, :2],
    ),
    fault("necks", "forward_runs", "raises KeyError: 'p9'", forward=lambda self, original, features: features["p9"]),
    fault("heads", "forward_runs", "raises TypeError: list indices", forward=lambda self, original, x: x["c3"]),
    fault(
        "backbones",
        "inputs_stay_as_they_are",
        "the given tensors after and before the forward: output 0 differs by",
        inputs=lambda self, t: t.relu_(),
    ),
    fault(
        "heads",
        "inputs_stay_as_they_are",
        "the given tensors after and before the forward: output 0 differs by",
        inputs=lambda self, t: t.relu_(),
        also=("rows_run_over_cells_row_by_row",),
    ),
    fault(
        "backbones",
        "every_parameter_has_a_layer",
        "layer_names has second.weight in 0 layers, want 1",
        layer_names=lambda self, original: [["first"]],
    ),
    fault(
        "backbones",
        "every_parameter_has_a_layer",
        "layer_names has second.weight in 2 layers, want 1",
        layer_names=lambda self, original: [["first"], ["second"], ["second.weight"]],
    ),
    fault(
        "backbones",
        "every_parameter_has_a_layer",
        r"layer_names has \['third'\], which are no modules or parameters",
        layer_names=lambda self, original: [["first"], ["second"], ["third"]],
    ),
    fault(
        "backbones",
        "declares_its_levels",
        r"strides \[16, 8\] do not go from the finest level",
        init=declare_backwards,
        forward=lambda self, original, images: backwards(original(images)),
    ),
    fault(
        "backbones",
        "declares_its_levels",
        r"out_shapes\['c3'\] is a tuple, not a FeatureShape",
        init=declare(c3=(4, 8)),
        also=("levels_are_as_declared",),
    ),
    fault(
        "backbones",
        "levels_are_as_declared",
        r"level c3 of a 64x64 image is \(4, 8, 8\), by its declaration \(5, 8, 8\)",
        init=declare(c3=FeatureShape(5, 8)),
    ),
    fault(
        "backbones",
        "levels_are_as_declared",
        r"level c3 of a 65x97 image is \(4, 8, 12\), by its declaration \(4, 9, 13\)",
        forward=crop_to_cells,
    ),
    fault(
        "backbones",
        "levels_are_as_declared",
        "^forward gives a list, not a dict of maps by level$",
        forward=lambda self, original, images: list(original(images).values()),
    ),
    fault(
        "necks",
        "declares_its_levels",
        "do not go from the finest level",
        init=declare_backwards,
        forward=lambda self, original, features: backwards(original(features)),
    ),
    fault(
        "necks",
        "levels_are_as_declared",
        r"declares levels \['c3', 'c4', 'c5'\], puts out \['c5', 'c4', 'c3'\]",
        forward=lambda self, original, features: backwards(original(features)),
    ),
    fault(
        "necks",
        "inputs_stay_as_they_are",
        r"the given dict now has levels \['c3', 'c4', 'c5', 'c6'\]",
        forward=lambda self, original, features: original((features.update(c6=features["c5"]), features)[1]),
    ),
    fault(
        "necks",
        "inputs_stay_as_they_are",
        "the given tensors after and before the forward: output 0 differs by",
        inputs=lambda self, t: t.mul_(0.5),
        also=(
            "eval_is_deterministic",
            "eval_looks_at_each_image_alone",
            "state_dict_round_trip",
        ),
    ),
    fault(
        "heads",
        "one_row_for_every_anchor",
        r"logits of level 0 are \(2, 191, 3\), want \(2, 192, 3\)",
        outputs=lambda self, t: t[:, :-1] if t.shape[1] == 8 * 8 * 3 else t,
        also=("takes_other_numbers_of_levels", "serves_the_coder_and_the_quality_loss"),
    ),
    fault(
        "heads",
        "rows_run_over_cells_row_by_row",
        r"logits of cell \(0, 7\) look at cell \([4567], [0123]\) most",
        inputs=lambda self, t: t.transpose(2, 3),
    ),
    fault(
        "heads",
        "starts_at_the_bias_of_the_loss",
        r"mean logits of level 0 at the start are \[.*\], the loss asked for \[-2.0, -3.0, -4.0\]",
        init=lambda self: self.class_out.bias.data.zero_(),
        also=("takes_other_numbers_of_levels",),
    ),
    fault(
        "heads",
        "takes_other_numbers_of_levels",
        "logits of 3 levels, want 5",
        forward=lambda self, original, features: original(features[:3]),
    ),
    fault(
        "heads",
        "takes_other_numbers_of_levels",
        r"a forward over 1 level\(s\) raises IndexError",
        forward=lambda self, original, features: (features[1], original(features))[1],
    ),
    fault(
        "anchors",
        "count_is_as_declared",
        r"level 0 \(33x48 cells\) has \(14255, 4\), want \(14256, 4\)",
        forward=lambda self, original, shapes, image, device: [
            level[: len(level) - image[0] % 2] for level in original(shapes, image, device)
        ],
    ),
    fault(
        "anchors",
        "boxes_are_valid",
        "level 0 is torch.float64, not float32",
        forward=lambda self, original, *given: [level.double() for level in original(*given)],
    ),
    fault(
        "anchors",
        "boxes_are_valid",
        "level 0 has boxes without width or height",
        forward=lambda self, original, *given: [level[:, [2, 3, 0, 1]] for level in original(*given)],
    ),
    fault(
        "anchors",
        "anchors_stand_on_their_cells",
        r"level 0 \(stride 8\) has an anchor .* px off its cell's middle",
        forward=column_by_column,
    ),
    fault(
        "anchors",
        "same_shape_same_anchors",
        "generator moved",
        forward=lambda self, original, *given: (torch.rand(1), original(*given))[1],
    ),
    fault(
        "anchors",
        "same_shape_same_anchors",
        "two calls: output 0 differs by",
        forward=lambda self, original, *given: [level + 0.1 * torch.rand(1) for level in original(*given)],
    ),
]
