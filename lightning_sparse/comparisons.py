"""What is computed from several jobs together, once a sweep has ended: rows that no job could write alone.

Every comparison takes the jobs that are done and gives rows, each signed with the job that it is about.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_sparse import __version__
from lightning_sparse.results import records
from lightning_sparse.results.jobs import Job, key_of
from lightning_sparse.results.records import Record

Arrays = Mapping[str, NDArray[Any]]
LEARNED = 0.5


def update(folder: Path, jobs: list[Job]) -> None:
    """Write into a sweep's folder what is computed from its jobs together: rows, and what the report shows of images.

    Whole or not at all, so that nothing doubles and nothing lags. What took seconds to minutes is left as it is where no
    file that it was made from has changed.

    Args:
        folder: the sweep's folder.
        jobs: of the sweep; those that are not done are left out.
    """
    from lightning_sparse.galleries import write_galleries

    path, key = folder / "records.jsonl", _made_from(jobs)
    if key in records.closed(path):
        return
    failed: list[str] = []
    records.write(path, compare(jobs, failed))
    with _losing_nothing_else("gallery", failed):
        write_galleries(folder, jobs)
    if not failed:
        records.append(path, [], closes=key)


def _made_from(jobs: list[Job]) -> str:
    """A key that changes when a file changes that comparisons read; a launch that measures nothing changes none."""
    files = {
        job.run: [
            (path.name, path.stat().st_mtime_ns, path.stat().st_size)
            for path in (job.checkpoint, job.rows, *(job.folder / f"{key}.npz" for key in job.keys))
            if path.exists()
        ]
        for job in jobs
        if job.status == "done"
    }
    return f"together-{key_of([__version__, files])}"


def compare(jobs: list[Job], failed: list[str] | None = None) -> list[Record]:
    """Everything that a sweep's report needs beside the jobs' own rows.

    Args:
        jobs: of one sweep; those that are not done are left out.
        failed: where the names of comparisons go that could not be made.
    """
    done = [job for job in jobs if job.status == "done"]
    from lightning_sparse.transfers import transfers

    rows: list[Record] = []
    for comparison in (same_images, dense_agreement, differences, forgotten_images, transfers):
        with _losing_nothing_else(comparison.__name__.replace("_", " "), failed):
            rows += comparison(done)
    return rows


@contextmanager
def _losing_nothing_else(name: str, failed: list[str] | None) -> Iterator[None]:
    """Say what could not be made and go on: it is of no job, so that no job's numbers may be lost to it."""
    try:
        yield
    except Exception as error:
        print(f"{name}: not made, {type(error).__name__}: {error}", file=sys.stderr)
        if failed is not None:
            failed.append(name)


def same_images(jobs: list[Job]) -> list[Record]:
    """Saliency over the images that all networks of a seed have right, because each network's own images flatter it."""
    from lightning_sparse.measure.explanations.saliency import same_images as right_for_all
    from lightning_sparse.measure.explanations.saliency_rows import records_over

    rows = []
    for group in _groups(jobs, "data", "model", "seed"):
        loaded = [(job, arrays) for job in group if (arrays := load(job, "saliency"))]
        # One network that has learned nothing would leave no image to compare the others on.
        loaded = [
            (job, arrays) for job, arrays in loaded if np.mean(arrays["prediction"] == arrays["labels"]) >= LEARNED
        ]
        for comparable in _on_equal_images(loaded):
            keep = right_for_all([arrays for _, arrays in comparable])
            for job, arrays in comparable:
                found = records_over(arrays, keep, len(comparable))
                said = f"; networks with less than {LEARNED:g} of these images right are left out"
                rows += signed(job, [replace(row, condition="same images", detail=row.detail + said) for row in found])
    return rows


def dense_agreement(jobs: list[Job]) -> list[Record]:
    """Each network's maps against those of the dense network of its seed; and dense against dense, as the ceiling."""
    from lightning_sparse.measure.explanations.agreement import agreement_records

    rows = []
    parents = {job.run: arrays for job in jobs if job.method == "dense" and (arrays := load(job, "saliency"))}
    for job, dense in _pairs_with_dense(jobs):
        mine, theirs = load(job, "saliency"), parents.get(dense.run)
        same = key_of_kind(job, "saliency") == key_of_kind(dense, "saliency")
        if mine and theirs and same and _equal_images(mine, theirs):
            rows += signed(job, _over_methods(agreement_records, mine, theirs))
    for group in _groups([job for job in jobs if job.run in parents], "data", "model"):
        for one, other in pairwise([*group, group[0]] if len(group) > 2 else group):
            mine, theirs = parents[one.run], parents[other.run]
            if _equal_images(mine, theirs):
                found = _over_methods(agreement_records, mine, theirs)
                ceiling = f"two dense networks, seeds {one.seed} and {other.seed}: the ceiling"
                rows += signed(one, [replace(row, detail=f"{row.detail}; {ceiling}") for row in found])
    return rows


def differences(jobs: list[Job]) -> list[Record]:
    """Accuracy, clean and under attack, less that of the dense network of the same seed, on the same images."""
    from lightning_sparse.statistics.paired import mcnemar

    rows = []
    for job, dense in _pairs_with_dense(jobs):
        mine, theirs = load(job, "clean"), load(dense, "clean")
        if mine and theirs and key_of_kind(job, "clean") == key_of_kind(dense, "clean"):
            right = [arrays["prediction"] == arrays["labels"] for arrays in (mine, theirs)]
            rows += signed(job, [_difference("difference_clean_accuracy", mcnemar(*right), len(right[0]))])
        stood, stood_there = survivors(job), survivors(dense)
        worst = [row for one in (job, dense) for row in one.current_rows() if row.attack == "worst" and row.eps]
        for key, eps in sorted(stood.keys() & stood_there.keys(), key=lambda which: which[1]):
            one, other = stood[key, eps], stood_there[key, eps]
            row = _difference("difference_robust_accuracy", mcnemar(one, other), len(one))
            about = [row for row in worst if row.key == key and np.isclose(row.eps or 0.0, eps)]
            trust = next((row.trust for row in about if row.trust.startswith("failed")), "")
            norm = next((row.norm for row in about), "Linf")
            rows += signed(job, [replace(row, norm=norm, eps=eps, trust=trust)])
    return rows


def forgotten_images(jobs: list[Job]) -> list[Record]:
    """What the sparse networks of a method and level get wrong that the dense ones do not, seeds taken together.

    And whether the images with the most variable gradients in the dense training are among them.
    """
    from lightning_sparse.measure.forgetting.forgotten import measure_forgotten, vog_overlap

    rows = []
    for level, dense, (sparse_says, dense_says, labels) in populations(jobs):
        found = measure_forgotten(sparse_says, dense_says, labels)
        rows += signed(level[0], found.records)
        followed = [arrays for job in dense if (arrays := load(job, "vog"))]
        if followed and "places" in followed[0]:
            places = followed[0]["places"]
            same = [arrays["vog_in_class"] for arrays in followed if np.array_equal(arrays["places"], places)]
            overlap = vog_overlap(np.mean(same, axis=0), found.arrays["forgotten"][places])
            rows += signed(level[0], [overlap])
    return rows


def populations(
    jobs: list[Job],
) -> Iterator[tuple[list[Job], list[Job], tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]]:
    """Yield the networks of each method and level, the dense ones beside them, and what both say about all test images.

    Yields:
        Jobs of the level; dense jobs; predictions (K1, n) and (K2, n), and labels (n,).
    """
    for subject in _groups(jobs, "data", "model"):
        says = {job.run: arrays for job in subject if (arrays := load(job, "clean"))}
        subject = [job for job in subject if job.run in says]
        dense = [job for job in subject if job.method == "dense"]
        if not dense:
            continue
        labels = says[dense[0].run]["labels"]
        for level in _groups([job for job in subject if job.method != "dense"], "method", "sparsity_asked"):
            same = [job for job in level if key_of_kind(job, "clean") == key_of_kind(dense[0], "clean")]
            if same:
                predictions = [np.stack([says[job.run]["prediction"] for job in some]) for some in (same, dense)]
                yield same, dense, (predictions[0], predictions[1], labels)


def _groups(jobs: Iterable[Job], *names: str) -> list[list[Job]]:
    groups: dict[Any, list[Job]] = defaultdict(list)
    for job in jobs:
        groups[tuple(getattr(job, name) for name in names)].append(job)
    return list(groups.values())


def _pairs_with_dense(jobs: list[Job]) -> Iterator[tuple[Job, Job]]:
    parents = {(job.data, job.model, job.seed): job for job in jobs if job.method == "dense"}
    for job in jobs:
        parent = parents.get((job.data, job.model, job.seed))
        if parent is not None and parent is not job:
            yield job, parent


def load(job: Job, kind: str) -> Arrays | None:
    """The numbers of single images that a measurement of a job left, or None."""
    path = job.arrays(kind)
    if path is None:
        return None
    with np.load(path) as file:
        return dict(file)


def survivors(job: Job) -> dict[tuple[str, float], NDArray[np.bool_]]:
    """Which images stood, (n,), by key and eps of the robust accuracies last asked for; equal keys are equal images."""
    paths = [job.folder / f"{key}.npz" for key in job.keys if key.startswith("robust-")]
    found: dict[tuple[str, float], NDArray[np.bool_]] = {}
    for path in paths:
        if path.exists():
            with np.load(path) as file:
                columns = zip(file["eps"], file["survives"].T, strict=True)
                found |= {(path.stem, float(eps)): column for eps, column in columns}
    return found


def key_of_kind(job: Job, kind: str) -> str:
    """The key of a job's measurement of this kind: equal keys are equal settings, and so equal images."""
    return next((key for key in job.keys if key.rpartition("-")[0] == kind), "")


def _equal_images(one: Arrays, other: Arrays) -> bool:
    return np.array_equal(one["images"], other["images"])


def _on_equal_images(loaded: list[tuple[Job, Arrays]]) -> list[list[tuple[Job, Arrays]]]:
    """Those measured with other settings have other images, and are compared among themselves."""
    groups: list[list[tuple[Job, Arrays]]] = []
    for job, arrays in loaded:
        group = next((group for group in groups if _equal_images(group[0][1], arrays)), None)
        if group is None:
            groups.append([(job, arrays)])
        else:
            group.append((job, arrays))
    return groups


def _over_methods(compare_maps: Any, mine: Arrays, theirs: Arrays) -> list[Record]:
    from lightning_sparse.measure.explanations.attributions import ATTRIBUTIONS

    shared = [method for method in ATTRIBUTIONS if method in mine and method in theirs]
    return [row for method in shared for row in compare_maps(mine[method], theirs[method], method)]


def _difference(metric: str, found: tuple[float, float, float, float], n: int) -> Record:
    difference, low, high, p = found
    return Record(
        metric, difference, n, low, high, detail=f"less dense of the same seed, same images, McNemar p = {p:.3g}"
    )


def signed(job: Job, rows: list[Record]) -> list[Record]:
    """Sign rows with the job that they are about, and its sparsity."""
    sparsity = next((row.sparsity for row in reversed(records.read(job.rows))), nan)
    return [replace(row, sparsity=sparsity, **job.identity()) for row in rows]
