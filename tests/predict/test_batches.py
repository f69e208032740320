"""Images of one padded size share a batch, whatever order they come in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from detkit.predict import batches
from detkit.predict.backend import OPENERS, InputRules, open_exported
from detkit.predict.predictor import Predictor
from detkit.predict.views import Views
from tests.predict.blobs import Blobs, painted
from tests.refusals import Refuses

SIZES = [(64, 48), (32, 32), (60, 40), (100, 20), (33, 33), (64, 48), (20, 20), (50, 45), (64, 33), (31, 30)]


def images() -> Any:
    return [painted(w, h, [("red", (k, 2, k + 5, 12)), ("blue", (8, 2, 14, 9))]) for k, (w, h) in enumerate(SIZES)]


@pytest.mark.parametrize("views", [None, Views(tile=32, flip=True, scales=(1, 2))], ids=["whole", "views"])
def test_results_are_those_of_single_images_in_their_order(views: Any) -> None:
    alone = [Predictor(Blobs(), batch_size=1, views=views)(image)[0] for image in images()]
    together = Predictor(Blobs(), batch_size=4, views=views)(images())
    for a, b, image in zip(alone, together, images(), strict=True):
        assert torch.equal(a.boxes, b.boxes)
        assert torch.equal(a.labels, b.labels)
        assert b.source.shape == image.shape


def test_batches_have_one_shape_and_are_as_full_as_they_can_be() -> None:
    backend = Blobs()
    list(Predictor(backend, batch_size=3).stream(images()))
    # Padded to multiples of 16: 4 of 48x64, 4 of 32x32, and 3 alone of their shape.
    assert sorted(backend.shapes) == sorted(
        [(3, 3, 48, 64), (2, 3, 48, 64), (3, 3, 32, 32), (1, 3, 48, 48), (1, 3, 32, 112)]
    )


def test_no_more_images_are_read_ahead_than_four_batches() -> None:
    read = 0

    def endless() -> Iterator[Any]:
        nonlocal read
        while True:
            read += 1
            yield painted(16 * read % 4096 + 16, 16, [])  # no two alike, so that no batch becomes full

    stream = Predictor(Blobs(), batch_size=2).stream(endless())
    for number in range(1, 6):
        next(stream)
        assert read == number + 7


def test_large_images_wait_for_fewer_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MOST_PIXELS", 3000)
    read = []
    stream = Predictor(Blobs(), batch_size=8).stream(read.append(k) or image for k, image in enumerate(images()))
    next(stream)
    assert read == [0]


def test_an_error_of_the_source_comes_after_what_was_finished() -> None:
    def failing() -> Iterator[Any]:
        yield from images()[:1] * 4
        raise OSError("gone")

    stream = Predictor(Blobs(), batch_size=2).stream(failing())
    assert len([next(stream) for _ in range(4)]) == 4
    with pytest.raises(OSError, match="gone"):
        next(stream)


def test_a_predictor_runs_any_backend(refuses: Refuses) -> None:
    predictor = Predictor(Blobs())
    assert predictor.classes.names == ("red", "green", "blue")
    assert predictor.transforms == ()
    with refuses(ValueError):
        predictor.detector  # noqa: B018
    with refuses(ValueError):
        Predictor(Blobs(), classes=["a"])


def open_blobs(path: str, device: str) -> Blobs:
    return Blobs(InputRules(size_divisor=32))


def test_an_exported_file_is_opened_by_its_suffix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPENERS, ".blobs", f"{__name__}:open_blobs")
    monkeypatch.setattr("pkgutil.resolve_name", lambda name: open_blobs)
    predictor = Predictor.from_checkpoint("model.BLOBS", views=Views(flip=True))
    assert len(predictor(np.full((20, 20, 3), 200, np.uint8))[0]) == 3
    assert open_exported("runs/x", "cpu") is None
