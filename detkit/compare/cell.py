"""One run of a bench, in a process of its own: `python -m detkit.compare.cell CONFIG --seed S --output DIR`.

Trains as `detkit train` does, and writes what the bench needs: start.json, what the run began with (hashes of weights
and images, the first gradients); detections.npz; matches.npz, which detections are right; diagnosis.json, where the
loss comes from; and last cell.json, the status of the run and the hash of every file.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import sys
import time
from collections.abc import Sequence
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from detkit.checkpoint import saved_steps
from detkit.compare.cell_folder import CELL, DETECTIONS, DIAGNOSIS, DIVERGED, FINISHED, MATCHES, START, read_json
from detkit.compare.diagnosis import diagnose
from detkit.compare.hashes import arrays_hash, images_hash, truth_hash, validation_hash
from detkit.compare.integrity import with_hashes
from detkit.compare.matches import match, save_matches
from detkit.config import Config, load_config
from detkit.data.build import usable_dataset
from detkit.data.datasets.base import DetectionDataset, Subset
from detkit.data.loader import LoaderOptions, build_train_loader
from detkit.data.seeding import at_position
from detkit.distributed.coordinator import Coordinator
from detkit.distributed.process_info import ProcessInfo
from detkit.evaluate.coco import ground_truth_from
from detkit.evaluate.loop import collect
from detkit.runs.folder import RESULT, init_run_folder, write_json
from detkit.runs.log import run_log
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


def run_cell(config: Config, folder: Path, allow: Sequence[str] = ()) -> int:
    """Trains, or resumes an interrupted training; returns the exit code. allow: as for `detkit train --allow`."""
    resume = bool(saved_steps(folder)) and has_start(folder)
    for name in (CELL, RESULT, DETECTIONS, MATCHES, DIAGNOSIS):
        (folder / name).unlink(missing_ok=True)  # the end is made again from the checkpoint, as it may be edited
    init_run_folder(folder, resume=resume, overwrite=not resume)
    with run_log(folder):
        session = make_session(config, folder, resume=resume, allow=allow)
        if not resume:
            write_json(folder / START, describe_start(session))
        try:
            code = run_session(session)
        except NonFiniteLossError as error:
            log.error("%s", error)
            write_end(folder, {"status": DIVERGED, "error": str(error)})
            return ExitCode.DIVERGED
        if code == 0:
            finish(session)
    return code


def has_start(folder: Path) -> bool:
    """Whether start.json exists and is readable."""
    try:
        return read_json(folder / START) is not None
    except (OSError, ValueError):
        return False


def write_end(folder: Path, content: Tree) -> None:
    """Writes cell.json: how the run ended, and the hashes of its files."""
    write_json(folder / CELL, with_hashes(content, folder))


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


def run_trial(config: Config, folder: Path) -> int:
    """A short run for tuning: an ordinary training on the held-out split, without the files of a bench."""
    resume = bool(saved_steps(folder))
    init_run_folder(folder, resume=resume, overwrite=not resume)
    with run_log(folder):
        try:
            return run_session(make_session(config, folder, resume=resume, held_out=True))
        except NonFiniteLossError as error:
            log.error("%s", error)
            write_json(folder / CELL, {"status": DIVERGED, "error": str(error)})
            return ExitCode.DIVERGED


def finish(session: Session) -> None:
    """Writes detections, matches, diagnosis and, last of all, cell.json."""
    folder, detector = session.folder, session.trainer.model
    options = session.config.options("evaluator")
    evaluator = collect(detector, session.val_set, session.val_loader, options, progress=False)
    detections = evaluator.sorted()
    np.savez_compressed(folder / DETECTIONS, **detections._asdict())
    save_matches(folder / MATCHES, match(evaluator.truth, detections, len(session.classes), options))
    write_json(folder / DIAGNOSIS, diagnose(detector, session.val_loader, evaluator.truth, detections))
    result = Run(folder).result
    cost = {
        "seconds_per_step": seconds_per_step(Run(folder).metrics()),
        "peak_memory_mb": result["peak_memory_mb"],
        "train_seconds": result["train_seconds"],
    }
    images = {"validation": validation_hash(session.val_set), "training_images": images_hash(session.train_set)}
    write_end(folder, {"status": FINISHED, "error": None, "cost": cost, **images})


def seconds_per_step(steps: Sequence[Tree]) -> float | None:
    """Median over the steps of a run, without the first tenth; None with fewer than two steps."""
    at = [(line["step"], line["train_seconds"]) for line in steps]
    taken = [b[1] - a[1] for a, b in pairwise(at) if b[0] == a[0] + 1 and b[1] >= a[1]]
    taken = taken[len(taken) // 10 :]
    return float(np.median(taken)) if taken else None


# ---- what a run begins with


def describe_start(session: Session) -> Tree:
    """Hashes of initial weights, order, first batches and data; the first gradients. Leaves the session unchanged."""
    config, detector = session.config, session.detector
    batches = first_batches(session)
    return {
        "seed": config.seed,
        "weights": {name: [list(p.shape), tensors_hash(p)] for name, p in detector.named_parameters()},
        "order": order_hash(session),
        "images": tensors_hash(*(x for batch in batches for x in tensors_of(batch))),
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
    options: LoaderOptions = session.loader_options
    in_process = LoaderOptions(
        batch_size=options.batch_size, num_workers=0, size_divisor=options.size_divisor, pad_to=options.pad_to
    )
    loader = build_train_loader(
        session.train_set, session.transforms("train"), in_process, seed=session.config.seed,
        micro_batches=session.options.accumulate,
    )  # fmt: skip
    return list(islice(loader, HASHED_BATCHES))


def tensors_of(batch: Batch) -> list[Tensor]:
    """All tensors of a batch that a network or loss can see."""
    return [batch.images, batch.sizes, *(x for t in batch.targets for x in (t.boxes, t.labels))]


def order_hash(session: Session) -> str:
    """Hash of the image at every position of the whole training."""
    count = session.options.iterations * session.loader_options.batch_size
    length = len(session.train_set)
    order = np.array([at_position(session.config.seed, i, length) for i in range(count)], dtype=np.int64)
    return arrays_hash(order)


def tensors_hash(*tensors: Tensor) -> str:
    """Hash of the tensors' bytes."""
    return arrays_hash(*(tensor.detach().cpu().numpy() for tensor in tensors))


def first_step(session: Session, batch: Batch) -> Tree:
    """Gradient norms of both losses on backbone and neck, which they share, and the mean class score.

    Computed on a copy of the detector in training mode, with each loss divided as in training.
    """
    seed_everything(session.config.seed, 0, 0)
    detector = copy.deepcopy(session.detector).train()
    batch = batch.to(session.trainer.device)
    pred = detector(batch.images, batch.sizes)
    losses = detector.loss(pred, batch.targets)
    divisor = detector.end_step(losses.normalizer.double(), [x.double() for x in detector.take_accumulated()])
    shared = [p for part in (detector.backbone, detector.neck) for p in part.parameters() if p.requires_grad]
    norms = {}
    for name, loss in (("class", losses.classification), ("box", losses.box)):
        gradients = torch.autograd.grad(loss / divisor, shared, retain_graph=True, allow_unused=True)
        norms[name] = float(nn.utils.get_total_norm([g for g in gradients if g is not None]))
    scores = detector.class_loss.scores(pred.logits.detach().float())
    return {
        "grad_norm_class": norms["class"],
        "grad_norm_box": norms["box"],
        "ratio": norms["box"] / norms["class"] if norms["class"] else None,
        "foreground_probability": float(scores.mean()),
    }


# ---- how long a run will take


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
    """The process of a cell."""
    parser = argparse.ArgumentParser(prog="detkit.compare.cell")
    parser.add_argument("config")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--measure", action="store_true", help="time a few steps and print JSON")
    parser.add_argument(
        "--trial", action="store_true", help="train on a part of the training data, validate on the rest"
    )
    parser.add_argument("--allow", action="append", default=[], help="as of detkit train")
    args, overrides = parser.parse_known_args(argv)
    config = load_config(args.config, [f"seed={args.seed}", *overrides])
    if args.measure:
        print(json.dumps(measure(config, args.output)))
        return 0
    try:
        return run_trial(config, args.output) if args.trial else run_cell(config, args.output, args.allow)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.WRONG_INPUT


if __name__ == "__main__":
    sys.exit(main())
