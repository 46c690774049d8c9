"""Attacks crafted on one network and tried on another: which sparsity levels share their adversarial images."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_sparse import measure
from lightning_sparse.app.comparing.grouping import equal_images, signed
from lightning_sparse.results.arrays import key_of_kind, load, survivors
from lightning_sparse.results.jobs import Job
from lightning_sparse.results.records import Record
from lightning_sparse.results.verdicts import verdict_of

MASKED = 0.002  # a larger share of images that only transferred attacks break says that the own attacks were too weak


def transferred_attacks(jobs: list[Job], failed: list[str] | None = None) -> list[Record]:
    """Try the adversarial images of each job on the networks of the same method, seed, data and model, and on the dense one.

    The networks are built again from the configurations in the jobs' folders, on a GPU where measuring would use one. This
    is a check of trust too: a transferred attack that breaks images which withstood all of the network's own says that
    those were too weak.

    The names of networks that cannot be built are appended to ``failed``.

    Returns:
        Rows ``transfer_accuracy`` of the network attacked, whose ``condition`` names the network that the images were
        crafted on; and a ``trust_transfer`` for each network.
    """
    from lightning_sparse.app.build import stored_model_as_measured

    crafted = {job.run: arrays for job in jobs if job.checkpoint.exists() and (arrays := load(job, "transfer"))}
    rows = []
    for target in [job for job in jobs if job.run in crafted]:
        mine = crafted[target.run]
        sources = [job for job in jobs if job.run in crafted and _related(job, target)]
        sources = [job for job in sources if equal_images(crafted[job.run], mine)]
        images = {_name(job): torch.from_numpy(crafted[job.run]["adversarial"]) for job in sources}
        data = (torch.from_numpy(mine["images"]), torch.from_numpy(mine["labels"]))
        settings: dict[str, Any] = {"eps": float(mine["eps"]), "norm": str(mine["norm"])}
        try:
            model, said = stored_model_as_measured(target)
        except (
            Exception
        ) as error:  # its checkpoint or its configuration cannot be read: the others are tried all the same
            print(f"{target.run}: not attacked by transfer, {type(error).__name__}: {error}", file=sys.stderr)
            if failed is not None:
                failed.append(target.run)
            continue
        found = measure.measure_transfer(images, model, data, **settings)
        transferred = [replace(row, detail=f"{row.detail}; {said}" if said else row.detail) for row in found.records]
        broken = [~found.arrays[_name(job)] for job in sources if job is not target]
        rows += signed(target, [*transferred, *_check(survivors(target), broken, **settings)])
    return rows


def _check(
    stand: dict[tuple[str, float], NDArray[np.bool_]], broken: list[NDArray[np.bool_]], eps: float, norm: str
) -> list[Record]:
    columns = [column for (_, at), column in stand.items() if np.isclose(at, eps)]
    if not columns or not broken:
        return []
    stood = columns[0][: len(broken[0])]
    count, n = int((stood & np.any(broken, axis=0)).sum()), len(stood)
    failed = count / n > MASKED and count > 1
    detail = (
        f"share of {n} images that stood all of the network's own attacks and are broken by one crafted on {len(broken)} "
        f"others; more than {MASKED:g} and more than one image is masking: {'FAILED' if failed else 'passed'}"
    )
    verdict = verdict_of(["transfer"] if failed else [])
    return [Record("trust_transfer", count / n, n, eps=eps, norm=norm, trust=verdict, detail=detail)]


def _related(job: Job, target: Job) -> bool:
    of_job, of_target = ((one.data, one.model, one.seed, key_of_kind(one, "transfer")) for one in (job, target))
    return of_job == of_target and ("dense" in (job.method, target.method) or job.method == target.method)


def _name(job: Job) -> str:
    return "dense" if job.method == "dense" else f"{job.method} {job.sparsity_asked:g}"
