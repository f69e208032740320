"""One run of a bench, in a separate process: `python -m detkit.compare.cell CONFIG --seed S --output DIR`.

Trains as `detkit train` does, and writes what the bench needs besides: at the start start.json, at the end
detections.npz, matches.npz, diagnosis.json and, last, cell.json with the status and the hash of every file.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn

from detkit.checkpoint import saved_steps
from detkit.compare.cell_folder import CELL, DETECTIONS, DIAGNOSIS, DIVERGED, FINISHED, MATCHES, START, read_json
from detkit.compare.diagnosis import diagnose
from detkit.compare.hashes import arrays_hash, images_hash, truth_hash, validation_hash
from detkit.compare.integrity import with_hashes
from detkit.config import Config, load_config
from detkit.data.build import usable_dataset
from detkit.data.datasets.base import DetectionDataset, Subset
from detkit.data.loader import TrainBatches, build_train_loader
from detkit.distributed.coordinator import Coordinator
from detkit.distributed.process_info import ProcessInfo
from detkit.evaluate.coco import ground_truth_from
from detkit.evaluate.loop import collect
from detkit.evaluate.matches import match, save_matches
from detkit.runs.folder import RESULT, init_run_folder, write_json
from detkit.runs.log import run_log
from detkit.runs.metrics import TRAIN_TIME
from detkit.runs.run import Run
from detkit.structures import Batch
from detkit.train.assemble import Session
from detkit.train.non_finite import NonFiniteLossError
from detkit.train.random import seed_everything
from detkit.train.run import run_session
from detkit.train.torch_setup import set_up_torch
from detkit.utils.exit_codes import ExitCode
from detkit.utils.types import Tree

log = logging.getLogger("detkit")

HASHED_BATCHES = 2
HELD_OUT = 5
"""One in so many training images validates a tuning trial."""


def run_cell(config: Config, folder: Path, allow: Sequence[str] = (), *, trial: bool = False) -> int:
    """Trains, or resumes an interrupted training; returns the exit code.

    allow: as for `detkit train --allow`. trial: a short run for tuning, on the held-out split and without the files of
    a bench.
    """
    resume = bool(saved_steps(folder)) and (trial or has_start(folder))
    for name in (CELL, RESULT, DETECTIONS, MATCHES, DIAGNOSIS):
        (folder / name).unlink(missing_ok=True)  # the end is made again from the checkpoint, as it may be edited
    init_run_folder(folder, resume=resume, overwrite=not resume)
    with run_log(folder):
        session = make_session(config, folder, resume=resume, held_out=trial, allow=allow)
        if not (resume or trial):
            write_json(folder / START, describe_start(session))
        try:
            code = run_session(session)
        except NonFiniteLossError as error:
            log.error("%s", error)
            write_json(folder / CELL, with_hashes({"status": DIVERGED, "error": str(error)}, folder))
            return ExitCode.DIVERGED
        if code == 0 and not trial:
            finish(session)
    return code


def has_start(folder: Path) -> bool:
    try:
        return read_json(folder / START) is not None
    except (OSError, ValueError):
        return False


def make_session(
    config: Config, folder: Path, *, resume: bool, held_out: bool = False, allow: Sequence[str] = ()
) -> Session:
    """The session of a run in one process. held_out: trains on a part of the training data, validates on the rest."""
    device, alone = set_up_torch(config.options("train")), Coordinator(ProcessInfo())
    data_sets = hold_out(usable_dataset(config, "train", early=True)) if held_out else None
    return Session(config, folder, resume=resume, coordinator=alone, device=device, data_sets=data_sets, allow=allow)


def hold_out(dataset: DetectionDataset) -> tuple[DetectionDataset, DetectionDataset]:
    """Splits a data set into four fifths and the last fifth of a fixed shuffle."""
    order = np.random.default_rng(0).permutation(len(dataset)).tolist()
    cut = len(order) - max(1, len(order) // HELD_OUT)
    kept, held = sorted(order[:cut]), sorted(order[cut:])
    return Subset(dataset, kept, f"{dataset.name}, kept"), Subset(dataset, held, f"{dataset.name}, held out")


def finish(session: Session) -> None:
    """Writes detections, matches, diagnosis and, last of all, cell.json."""
    folder, detector = session.folder, session.trainer.model
    options = session.config.options("evaluator")
    evaluator = collect(detector, session.val_set, session.val_loader, options, progress=False)
    detections = evaluator.sorted()
    np.savez_compressed(folder / DETECTIONS, **detections._asdict())
    save_matches(folder / MATCHES, match(evaluator.truth, detections, len(session.classes), options))
    if not detector.class_loss.joint:  # which has no loss of single anchors to diagnose
        write_json(folder / DIAGNOSIS, diagnose(detector, session.val_loader, evaluator.truth, detections))
    run = Run(folder)
    cost = {"seconds_per_step": seconds_per_step(run.metrics())}
    cost |= {key: run.result[key] for key in ("peak_memory_mb", "train_seconds")}
    images = {"validation": validation_hash(session.val_set), "training_images": images_hash(session.train_set)}
    write_json(folder / CELL, with_hashes({"status": FINISHED, "error": None, "cost": cost, **images}, folder))


def seconds_per_step(steps: Sequence[Tree]) -> float | None:
    """Median over the steps of a run, without the first tenth; None with fewer than two steps."""
    at = [(line["step"], line[TRAIN_TIME]) for line in steps]
    taken = [b[1] - a[1] for a, b in pairwise(at) if b[0] == a[0] + 1 and b[1] >= a[1]]
    taken = taken[len(taken) // 10 :]
    return float(np.median(taken)) if taken else None


def describe_start(session: Session) -> Tree:
    """Hashes of initial weights, order, first batches and data; the first gradients. Leaves the session unchanged."""
    config, detector = session.config, session.detector
    batches = first_batches(session)
    return {
        "seed": config.seed,
        "weights": {name: [list(p.shape), arrays_hash(p.detach().cpu())] for name, p in detector.named_parameters()},
        "order": order_hash(session),
        "images": arrays_hash(
            *(x for b in batches for x in (b.images, b.sizes, *(y for t in b.targets for y in (t.boxes, t.labels))))
        ),
        "classes": list(session.classes.names),
        "data": [session.train_set.records.content_hash(), session.val_set.records.content_hash()],
        "training_images": images_hash(session.train_set),
        "truth": truth_hash(ground_truth_from(session.val_set)),
        "validation": validation_hash(session.val_set),
        "step0": first_step(session, batches[0]),
        "train": session.train_set.summary(),
        "val": session.val_set.summary(),
    }


def first_batches(session: Session) -> list[Batch]:
    """The first batches of the run, loaded a second time in this process."""
    in_process, seed = replace(session.loader_options, num_workers=0), session.config.seed
    transforms, micro_batches = session.transforms("train"), session.options.accumulate
    loader = build_train_loader(session.train_set, transforms, in_process, seed=seed, micro_batches=micro_batches)
    return list(islice(loader, HASHED_BATCHES))


def order_hash(session: Session) -> str:
    """Hash of the image at every position of the complete training."""
    batches = TrainBatches(
        length=len(session.train_set), batch_size=session.loader_options.batch_size, seed=session.config.seed,
        start_step=0, rank=0, world_size=1, micro_batches=1, layout=session.train_set.layout,
    )  # fmt: skip
    steps = islice(batches, session.options.iterations)
    return arrays_hash(np.array([key for step in steps for key in step], dtype=np.int64))


def first_step(session: Session, batch: Batch) -> Tree:
    """Gradient norms of both losses on backbone and neck, which they share, and the mean class score.

    Computed on a copy of the detector in training mode, with each loss divided as in training. All terms of a joint
    loss count as class loss.
    """
    seed_everything(session.config.seed, 0, 0)
    detector = copy.deepcopy(session.detector).train()
    batch = batch.to(session.trainer.device)
    pred = detector(batch.images, batch.sizes)
    losses = detector.loss(pred, batch.targets)
    counts = {name: numbers.double() for name, numbers in losses.normalizers.items()}
    divisors = detector.end_step(counts, [x.double() for x in detector.take_accumulated()])
    shared = [p for part in (detector.backbone, detector.neck) for p in part.parameters() if p.requires_grad]
    joint = detector.class_loss.joint
    norms = {"class": 0.0, "box": 0.0}
    for name, terms in (
        ("class", list(losses.terms) if joint else ["classification"]),
        ("box", [] if joint else ["box"]),
    ):
        if not terms:
            continue
        loss = torch.stack([losses.terms[term] / divisors[losses.divisor_of(term)] for term in terms]).sum()
        gradients = torch.autograd.grad(loss, shared, retain_graph=True, allow_unused=True)
        norms[name] = float(nn.utils.get_total_norm([g for g in gradients if g is not None]))
    scores = detector.class_loss.scores(pred.logits.detach().float())
    return {
        "grad_norm_class": norms["class"],
        "grad_norm_box": norms["box"],
        "ratio": norms["box"] / norms["class"] if norms["class"] else None,
        "foreground_probability": float(scores.mean()),
    }


def measure(config: Config, folder: Path, steps: int = 6) -> dict[str, float]:
    """Seconds of a training step (without the first two) and of an evaluation, to estimate the time of a bench."""
    folder.mkdir(parents=True, exist_ok=True)
    session = make_session(config, folder, resume=False)
    taken = []
    for _ in range(steps):
        started = time.perf_counter()
        session.trainer.train_step()
        taken.append(time.perf_counter() - started)
    detector = session.trainer.model.eval()
    started, images = time.perf_counter(), 0
    for batch in islice(session.val_loader, 2):
        with torch.inference_mode():
            detector.detect(detector(batch.images.to(session.trainer.device), batch.sizes), batch.sizes)
        images += len(batch)
    each = (time.perf_counter() - started) / max(images, 1)
    return {"step": float(np.median(taken[2:])), "evaluation": each * len(session.val_set)}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="detkit.compare.cell")
    parser.add_argument("config")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--measure", action="store_true", help="time a few steps and print JSON")
    parser.add_argument("--trial", action="store_true", help="train and validate on parts of the training data")
    parser.add_argument("--allow", action="append", default=[], help="as of detkit train")
    args, overrides = parser.parse_known_args(argv)
    config = load_config(args.config, [f"seed={args.seed}", *overrides])
    if args.measure:
        print(json.dumps(measure(config, args.output)))
        return 0
    try:
        return run_cell(config, args.output, args.allow, trial=args.trial)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.WRONG_INPUT


if __name__ == "__main__":
    sys.exit(main())
