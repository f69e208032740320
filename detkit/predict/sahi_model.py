"""A predictor as a detection model of SAHI (`pip install 'detkit[sahi]'`).

from sahi.predict import get_sliced_prediction
from detkit.predict.sahi_model import DetkitDetectionModel

model = DetkitDetectionModel(model_path="runs/first", confidence_threshold=0.3, device="cpu")
result = get_sliced_prediction("large.jpg", model, slice_height=512, slice_width=512)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detkit.predict.predictor import Predictor

try:
    from sahi.models.base import DetectionModel
    from sahi.prediction import ObjectPrediction
except ImportError as error:
    raise ImportError(f"this module needs the package sahi: pip install 'detkit[sahi]' ({error})") from error


class DetkitDetectionModel(DetectionModel):
    """Runs detkit in SAHI: `model_path` is what `detkit.load` takes, or `model` is a `Predictor`.

    Category ids are the labels 0..K-1. SAHI's `image_size` is refused, as the transforms of the config resize.
    """

    def load_model(self) -> None:
        if self.model_path is None:
            raise ValueError("model_path: give a run folder or a checkpoint, or a Predictor as model")
        overrides = [f"postprocess.score_threshold={min(self.confidence_threshold, 0.999)}"]
        self.set_model(Predictor.from_checkpoint(self.model_path, device=str(self.device), overrides=overrides))

    def set_model(self, model: Predictor, **more: Any) -> None:
        if self.image_size is not None:
            raise ValueError(
                f"image_size={self.image_size}: the transforms of the config resize; set data.val.transforms"
            )
        self.model = model
        if self.category_mapping is None:
            self.category_mapping = {str(k): name for k, name in enumerate(model.classes.names)}

    @property
    def num_categories(self) -> int:
        return len(self.model.classes)

    @property
    def category_names(self) -> list[str]:
        return list(self.model.classes.names)

    @property
    def has_mask(self) -> bool:
        return False

    def perform_inference(self, image: NDArray[np.uint8]) -> None:
        self._original_predictions = self.model(image)

    def perform_batch_inference(self, images: Sequence[NDArray[np.uint8]]) -> None:
        self._batch_images = None  # or SAHI would run them once more, one by one
        self._original_predictions = self.model(list(images))
        self._original_shapes = [image.shape for image in images]

    def _create_object_prediction_list_from_original_predictions(
        self,
        shift_amount_list: list[list[float]] | None = None,
        full_shape_list: list[list[float]] | None = None,
    ) -> None:
        count, names = len(self._original_predictions), self.category_mapping or {}
        shifts = per_image(shift_amount_list, count) or [[0, 0]] * count
        shapes = per_image(full_shape_list, count) or [None] * count
        self._object_prediction_list_per_image = [
            [
                ObjectPrediction(
                    bbox=list(d.box),
                    category_id=d.label,
                    category_name=names[str(d.label)],
                    score=d.score,
                    shift_amount=shift,
                    full_shape=shape,
                )
                for d in detections
                if d.score >= self.confidence_threshold and d.box[0] < d.box[2] and d.box[1] < d.box[3]
            ]
            for detections, shift, shape in zip(self._original_predictions, shifts, shapes, strict=True)
        ]


def per_image(values: Any, count: int) -> list[Any] | None:
    """What SAHI gives for several images, or for one without a list around it, as a list for each image."""
    if values is None or len(values) == 0:
        return None
    nested = [values] if np.ndim(values) == 1 else list(values)
    return nested * count if len(nested) == 1 else nested
