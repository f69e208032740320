"""What a user writes against `import detkit`, all of it: `mypy --strict` checks it, and test_api.py runs its functions.

It stands for scripts outside the project: nothing but `detkit` itself, torch and numpy is imported.
"""

from pathlib import Path

import numpy as np
import torch

import detkit


def build_and_train(config: str, output: Path) -> detkit.Run:
    """A training with overrides, and what a run tells."""
    run: detkit.Run = detkit.train(
        config, output=output, overrides={"train.iterations": 2, "optimizer": {"lr": 1e-4}}, overwrite=True
    )
    ap50: float | None = run.result.ap50
    assert run.result["ap50"] == ap50
    steps: list[int] = [int(entry["step"]) for entry in run.metrics()]
    assert steps == list(range(1, run.result.step + 1))
    picture: Path = run.plot()
    assert picture.is_file()
    assert run.checkpoint("best").step == run.checkpoint("last").step
    return run


def predict(predictor: detkit.Predictor, photo: Path) -> list[str]:
    """Every kind of image, and all that detections can do."""
    names: list[str] = []
    array = np.zeros((64, 64, 3), dtype=np.uint8)
    for found in predictor([photo, str(photo), array, array / 255, torch.zeros(3, 64, 64), torch.zeros(2, 3, 64, 64)]):
        names += found.names
        best: detkit.Detections = found[found.scores > 0.6][:3]
        assert len(best.boxes) == len(best)
        for detection in best:
            x1, y1, x2, y2 = detection.box
            print(detection.name, detection.score, x2 - x1, y2 - y1)
        print(best.draw(min_score=0.5).size, best.to_coco(image_id=1), best.path)
        print(best.to_pandas(), len(best.to_supervision()))
    (one,) = predictor(photo)
    print(one[0].label if len(one) else "nothing")
    return names


def evaluate(run: detkit.Run, data: Path) -> dict[str, float | None]:
    """Data sets by path, and figures of a run, a predictor and a detector on them."""
    dataset = detkit.datasets.load(data, class_names=["cat"])
    result: detkit.CocoResult = detkit.evaluate(run, dataset)
    same: detkit.CocoResult = detkit.evaluate(run.predictor(), data)
    assert (result.ap, result.ap50) == (same.ap, same.ap50)
    return {name: figures["ap"] for name, figures in result.per_class.items()}


def own_loop(config: str, data: Path) -> int:
    """A training loop of one's own."""
    dataset = detkit.datasets.load(data)
    model: detkit.DenseDetector = detkit.build(config, num_classes=len(dataset.classes), overrides=["seed=1"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    batches = detkit.datasets.batches(dataset, batch_size=2, transforms=[{"type": "RandomHorizontalFlip"}])
    for _, batch in zip(range(2), batches):  # noqa: B905  # the batches never end
        losses = model.loss(model(batch.images, batch.sizes), batch.targets)
        divisors = model.end_step(losses.normalizers, model.take_accumulated())
        optimizer.zero_grad()
        losses.over(divisors).backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        optimizer.step()
    with torch.inference_mode():
        return len(model.eval().detect(model(batch.images, batch.sizes), batch.sizes))


def look_up() -> list[str]:
    """Parts, a config of one's own, and the version."""
    print(detkit.explain("SigmoidFocalLoss"), detkit.__version__)
    return detkit.list_parts("backbones")


def configs(file: str) -> detkit.Config:
    """A config as a mapping over a base, and as an object."""
    model = detkit.build({"_base_": file, "neck": {"channels": 32}}, num_classes=3, backbone_weights=False)
    assert model.config is not None
    return model.config
