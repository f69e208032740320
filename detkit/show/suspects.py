"""`detkit data check --with RUN`: suspected label errors by a trained detector, as findings with pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from detkit.analyze.label_errors import Suspect, SuspectKind, find_label_errors
from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.classes import adopt_classes
from detkit.data.doctor.findings import Case, Findings, Kind, Mark
from detkit.data.doctor.subject import Split, Subject
from detkit.predict.predictor import Predictor
from detkit.structures import Detections

OWNER = "the run"
"""Whose classes the data must have, in messages."""
LOWEST_SCORE = 0.02
"""Detections below it are no evidence of anything."""
PICTURED = 100
FIX = (
    "look at each picture, and correct the label where the detector is right; most suspects of high weight are errors, "
    "most of low weight are not"
)
TITLES: dict[SuspectKind, str] = {
    "swapped": "suspected label errors: another class than the annotated one is detected",
    "missing": "suspected label errors: an object is detected where there is no box",
    "not found": "suspected label errors: a box is not found by the detector",
}
# A kind each, so that swaps, whose weights are higher as they have two witnesses, do not hide the missing boxes.
LABEL_ERRORS = {
    kind: Kind(f"label-{kind.replace(' ', '-')}", "note", title, FIX, PICTURED) for kind, title in TITLES.items()
}


def open_detector(run: str | Path, datasets: Iterable[DetectionDataset]) -> Predictor:
    """The detector of a run; ValueError if a data set has objects of a class that it does not know."""
    predictor = Predictor.from_checkpoint(run, overrides=[f"postprocess.score_threshold={LOWEST_SCORE}"])
    for dataset in datasets:
        adopt_classes(predictor.classes, dataset.classes, dataset.records, dataset.name, OWNER)
    return predictor


def check_labels(subject: Subject, predictor: Predictor, *, most: int) -> Findings:
    """The likeliest label errors of every split, at most so many of each, by a detector."""
    findings = Findings()
    for split in subject:
        suspects = judge(split, predictor)[:most]
        for kind, heading in LABEL_ERRORS.items():
            findings.add(heading, (case(split, suspect) for suspect in suspects if suspect.kind == kind))
    return findings


def judge(split: Split, predictor: Predictor) -> list[Suspect]:
    """The suspects of a split, likeliest first."""
    check_classes(split.dataset, predictor)
    images = [index for index in range(len(split.dataset)) if index not in split.gathered.scan.bad]
    return find_label_errors(split.dataset, dict(zip(images, detect(split.dataset, images, predictor), strict=True)))


def detect(dataset: DetectionDataset, images: Sequence[int], predictor: Predictor) -> list[Detections]:
    """The detections in some images, with a progress bar on a terminal."""
    from tqdm import tqdm

    from detkit.utils.console import bar_stream

    pictures = (dataset.load_image(index) for index in images)
    stream = (detections for detections, _ in predictor.stream(pictures))
    bar = tqdm(
        stream, total=len(images), desc="judging labels", unit="image", leave=False, disable=None, file=bar_stream()
    )
    return list(bar)


def check_classes(dataset: DetectionDataset, predictor: Predictor) -> None:
    """Gives the data set the classes of the detector, by name."""
    if dataset.classes.names != predictor.classes.names:
        dataset.use_classes(predictor.classes, OWNER)


def case(split: Split, suspect: Suspect) -> Case:
    """One suspect in words and as a picture."""
    words = describe(suspect, split.dataset.classes.names)
    if suspect.row is None:
        picture, number = split.picture(suspect.image), 0
        picture = replace(picture, marks=(*picture.marks, Mark(suspect.box, words)))
    else:
        rows = [row for row in split.rows(suspect.image) if split.truth.trained[row]]
        row = rows[suspect.row]
        number = row - split.rows(suspect.image).start + 1
        picture = split.picture(suspect.image, {row: words})
    text = f"{words} [{', '.join(f'{v:.0f}' for v in suspect.box)}], weight {suspect.weight:.2f}"
    path = split.path(suspect.image)
    return Case(split=split.name, text=text, file=path, box=number, weight=suspect.weight, pictures=(picture,))


def describe(suspect: Suspect, names: Sequence[str]) -> str:
    """`RBC without a box (score 0.84)`, `labelled WBC, looks like RBC (score 0.71)`."""
    label, found = (None if k is None else names[k] for k in (suspect.label, suspect.found))
    if found is None:
        return f"{label} that the detector does not find"
    seen = f"{found} without a box" if label is None else f"labelled {label}, looks like {found}"
    return f"{seen} (score {suspect.score:.2f})"
