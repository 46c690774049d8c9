"""Images that pruning forgets: those that the sparse networks of a level get wrong and the dense ones do not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_sparse import measure
from lightning_sparse.app.comparing.grouping import equal_labels, groups, signed
from lightning_sparse.results.arrays import forgotten_file, key_of_kind, load
from lightning_sparse.results.jobs import Job
from lightning_sparse.results.records import Record
from lightning_sparse.results.unreadable import put_aside

MOST = 500  # images kept of each method


def forgotten_images(jobs: list[Job]) -> list[Record]:
    """Count the images that the networks of a method and level get wrong and the dense ones do not, over all seeds.

    Where the dense trainings were followed, also whether their images with the most variable gradients are among them.
    """
    rows = []
    for level, dense, (sparse_says, dense_says, labels) in populations(jobs):
        found = measure.measure_forgotten(sparse_says, dense_says, labels)
        rows += signed(level[0], found.records)
        followed = [arrays for job in dense if (arrays := load(job, "vog"))]
        if followed and "places" in followed[0]:
            places = followed[0]["places"]
            same = [arrays["vog_in_class"] for arrays in followed if np.array_equal(arrays["places"], places)]
            overlap = measure.vog_overlap(np.mean(same, axis=0), found.arrays["forgotten"][places])
            rows += signed(level[0], [overlap])
    return rows


def populations(
    jobs: list[Job],
) -> Iterator[tuple[list[Job], list[Job], tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]]:
    """Yield the jobs of each method and level, the dense jobs, and both jobs' predictions (jobs, n) and the labels (n,)."""
    for subject in groups(jobs, "data", "model"):
        says = {job.run: arrays for job in subject if (arrays := load(job, "clean"))}
        subject = [job for job in subject if job.run in says]
        dense = [job for job in subject if job.method == "dense"]
        if not dense:
            continue
        dense = [job for job in dense if equal_labels(says[job.run], says[dense[0].run])]
        labels = says[dense[0].run]["labels"]
        for level in groups([job for job in subject if job.method != "dense"], "method", "sparsity_asked"):
            same = [job for job in level if key_of_kind(job, "clean") == key_of_kind(dense[0], "clean")]
            same = [job for job in same if equal_labels(says[job.run], says[dense[0].run])]
            if same:
                predictions = [np.stack([says[job.run]["prediction"] for job in some]) for some in (same, dense)]
                yield same, dense, (predictions[0], predictions[1], labels)


def write_forgotten_images(folder: Path, jobs: list[Job]) -> None:
    """Write ``forgotten/<data>-<model>-<method>.npz`` for the sparsest level of each method.

    Arrays: ``images`` (float16, NCHW), ``labels``, ``dense`` and ``sparse`` (the class that most networks of either kind
    predict), ``sparsity``, and ``networks`` (the number of sparse and of dense ones).
    """
    from lightning_sparse.app.build import stored_data

    for old in (folder / "forgotten").glob("*.npz"):
        put_aside(old) if old.is_dir() else old.unlink()
    done = [job for job in jobs if job.status == "done"]
    levels = sorted(populations(done), key=lambda level: level[0][0].sparsity_asked)
    failed: list[Exception] = []
    sparsest = {(sparse[0].data, sparse[0].model, sparse[0].method): level for level in levels for sparse in level[:1]}
    for subject, (level, dense, (sparse_says, dense_says, labels)) in sparsest.items():
        found = measure.measure_forgotten(sparse_says, dense_says, labels).arrays
        places = np.flatnonzero(found["forgotten"])[:MOST]
        if len(places) == 0:
            continue
        try:
            images, _ = stored_data(level[0]).split("test")
        except Exception as error:  # its configuration cannot be read: the other methods are shown all the same
            failed.append(error)
            continue
        (folder / "forgotten").mkdir(exist_ok=True)
        np.savez_compressed(
            forgotten_file(folder, *subject),
            images=images[places].half().numpy(),
            labels=labels[places],
            dense=found["dense_mode"][places],
            sparse=found["sparse_mode"][places],
            sparsity=np.array(level[0].sparsity_asked),
            networks=np.array([len(level), len(dense)]),
        )
    if failed:
        raise failed[0]
