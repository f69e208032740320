"""Arguments for parts that have no defaults, by registry and name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from detkit.data.datasets.shapes import ShapesDataset

WITH_WEIGHTS = ("backbones", "necks", "heads")
"""Registries whose parts are modules with weights."""
EXAMPLES: dict[str, dict[str, dict[str, Any]]] = {
    "anchors": {"ExplicitAnchors": {"sizes": [[16.0, 16.0], [32.0, 24.0]]}},
    "assigners": {
        "BestLevelAssigner": {"assigner": {"type": "CentralRegionAssigner", "touch": True}},
        "InsideImageAssigner": {"assigner": {"type": "ATSSAssigner"}},
        "MixtureAssigner": {"assigner": {"type": "MaxIoUAssigner", "positive": 0.1, "negative": 0.1}},
        "WarmupAssigner": {"first": {"type": "ATSSAssigner"}, "then": {"type": "TaskAlignedAssigner"}},
    },
    "auxiliary_losses": {"FirstBoxLoss": {"box": {"type": "GIoULoss"}}},
    "backbones": {
        "CSPDarknet": {"depth": 0.3, "width": 0.125},
        "CSPNeXt": {"depth": 0.3, "width": 0.125},
        "ResNet": {"depth": 18},  # the same code as 50, in less time
        "TimmBackbone": {"name": "resnet10t"},
        "TorchvisionBackbone": {"name": "mobilenet_v3_small"},
        "VGG": {"width": 0.125},
    },
    "box_losses": {
        "FocalerIoULoss": {"base": {"type": "CIoULoss"}},
        "InnerIoULoss": {"base": {"type": "WiseIoULoss"}},  # which keeps a running mean
        "MPDIoULoss": {"height": 480, "width": 640},
    },
    "box_weights": {"WarmupWeight": {"first": {"type": "CenternessWeight"}, "then": {"type": "TargetQualityWeight"}}},
    "class_losses": {"WarmupLoss": {"first": {"type": "SigmoidFocalLoss"}, "then": {"type": "QualityFocalLoss"}}},
    "datasets": {"ShapesDataset": {"num_images": 24}},
    "hooks": {
        "EarlyStopping": {"patience": 1},
        "Freeze": {"parts": ["backbone"], "until": 3},
        "MultiScale": {"every": 1},
        "VisualizePredictions": {"every": 5, "images": 1},
    },
    "transforms": {
        "Mosaic": {"height": 96, "width": 96},
        "RandomCrop": {"height": 64, "width": 64},
        "Resize": {"height": 80, "width": 80},
        "ResizeShortestEdge": {"short": [80]},
        "ScaleJitter": {"height": 96, "width": 96},
    },
}

XML = """<annotation><filename>a.jpg</filename><size><width>60</width><height>40</height><depth>3</depth></size>
<object><name>cat</name><bndbox><xmin>5</xmin><ymin>6</ymin><xmax>30</xmax><ymax>35</ymax></bndbox></object>
</annotation>"""


def files_for(name: str, folder: Path) -> dict[str, Any]:
    """Arguments of a data set that reads files, which are written into `folder`."""
    if name == "CocoDataset":
        ShapesDataset(num_images=4).write_coco(folder / "images", folder / "a.json")
        return {"annotations": str(folder / "a.json"), "images": str(folder / "images")}
    shapes = {"type": "ShapesDataset", "num_images": 4}
    if name == "ConcatDataset":
        return {"datasets": [shapes, {**shapes, "split": "val"}]}
    if name == "SubsetDataset":
        return {"dataset": shapes, "images": ["train_000003.png", "train_000001.png"]}
    if name == "RepeatDataset":
        return {"dataset": shapes, "times": 3}
    if name == "ClassBalancedDataset":
        return {"dataset": shapes, "threshold": 0.6}
    if name in ("VocDataset", "AutoDataset"):
        from PIL import Image

        for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (folder / part).mkdir(parents=True)
        (folder / "Annotations/a.xml").write_text(XML)
        (folder / "ImageSets/Main/train.txt").write_text("a\n")
        Image.new("RGB", (60, 40)).save(folder / "JPEGImages/a.jpg")
        return {"root": str(folder), "split": "train"}
    if name == "YoloDataset":
        write_image(folder / "images/train/a.jpg")
        (folder / "labels/train").mkdir(parents=True)
        (folder / "labels/train/a.txt").write_text("0 0.25 0.5 0.4 0.6\n")
        (folder / "data.yaml").write_text("train: images/train\nnames: [cat, dog]\n")
        return {"data": str(folder / "data.yaml"), "split": "train"}
    if name in ("ParquetDataset", "WebDataset"):
        from detkit.data.writers.shards import write_parquet, write_webdataset

        write = write_parquet if name == "ParquetDataset" else write_webdataset
        nodes = write({"train": ShapesDataset(num_images=4)}, folder / "shards").nodes
        return {key: value for key, value in nodes["train"].items() if key != "type"}
    if name == "CsvDataset":
        write_image(folder / "a.jpg")
        (folder / "a.csv").write_text("filename,class,xmin,ymin,xmax,ymax\na.jpg,cat,5,6,30,35\n")
        return {"annotations": str(folder / "a.csv")}
    if name == "HuggingFaceDataset":
        return saved(folder)
    return exported(name, folder)


def saved(folder: Path) -> dict[str, Any]:
    """The same of a data set that the library `datasets` saved."""
    import importlib

    write_image(folder / "a.jpg")
    library: Any = importlib.import_module("datasets")
    content = {"bytes": (folder / "a.jpg").read_bytes(), "path": "a.jpg"}
    rows = {"image": [content], "objects": [{"bbox": [[5, 6, 25, 29]], "category": ["cat"]}]}
    library.disable_progress_bars()
    library.Dataset.from_dict(rows).save_to_disk(folder / "saved")
    return {"root": str(folder / "saved")}


def write_image(path: Path) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (60, 40)).save(path)


ITEM = {"bbox": [5, 6, 25, 29], "bbox_mode": 1, "category_id": 0}
LABELLED = {"x": 10, "y": 10, "width": 50, "height": 50, "rectanglelabels": ["cat"]}
REGION = {
    "shape_attributes": {"name": "rect", "x": 5, "y": 6, "width": 25, "height": 29},
    "region_attributes": {"class": "cat"},
}
BOX2D = {"x1": 5, "y1": 6, "x2": 30, "y2": 35}
CENTRED = {"label": "cat", "coordinates": {"x": 20, "y": 15, "width": 9, "height": 8}}
JSON_FILES: dict[str, Any] = {
    "CreateMlDataset": [{"image": "a.jpg", "annotations": [CENTRED]}],
    "DatumaroDataset": {
        "categories": {"label": {"labels": [{"name": "cat"}]}},
        "items": [{"id": "a", "annotations": [{"type": "bbox", "label_id": 0, "bbox": [5, 6, 25, 29]}]}],
    },
    "LabelMeDataset": {
        "imagePath": "a.jpg",
        "shapes": [{"label": "cat", "points": [[5, 6], [30, 35]], "shape_type": "rectangle"}],
    },
    "LabelStudioDataset": [
        {"data": {"image": "a.jpg"}, "annotations": [{"result": [{"type": "rectanglelabels", "value": LABELLED}]}]}
    ],
    "ListDataset": [{"file_name": "a.jpg", "annotations": [ITEM]}],
    "ScalabelDataset": [{"name": "a.jpg", "labels": [{"category": "cat", "box2d": BOX2D}]}],
    "ViaDataset": {"a.jpg": {"filename": "a.jpg", "regions": [REGION]}},
}
CVAT = '<annotations><image name="a.jpg"><box label="cat" xtl="5" ytl="6" xbr="30" ybr="35"/></image></annotations>'


def exported(name: str, folder: Path) -> dict[str, Any]:
    """The same of a data set that reads a labelling tool's file, here of the image a.jpg."""
    if name not in (*JSON_FILES, "CvatDataset"):
        return {}
    write_image(folder / "a.jpg")
    file = folder / ("a.xml" if name == "CvatDataset" else "a.json")
    file.write_text(CVAT if name == "CvatDataset" else json.dumps(JSON_FILES[name]))
    return {"root": str(folder)} if name == "LabelMeDataset" else {"annotations": str(file), "images": str(folder)}
