"""The images that a report shows: those that pruning forgets, written beside the jobs once a sweep has ended."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lightning_sparse.app.comparing.forgotten_images import populations
from lightning_sparse.results.arrays import forgotten_file
from lightning_sparse.results.jobs import Job

MOST = 500  # images kept of each level


def write_galleries(folder: Path, jobs: list[Job]) -> None:
    """Write ``forgotten/<data>-<model>-<method>.npz`` for the sparsest level of each method.

    Arrays: ``images`` (float16, NCHW), ``labels``, ``dense`` and ``sparse`` (what most networks of either kind say),
    ``sparsity``, and ``networks`` (how many sparse and how many dense ones).

    Args:
        folder: the sweep's folder.
        jobs: of the sweep; those that are not done are left out.
    """
    from lightning_sparse.app.build import stored_data
    from lightning_sparse.measure.forgetting.forgotten import measure_forgotten

    for old in (folder / "forgotten").glob("*.npz"):
        old.unlink()
    levels = sorted(
        populations([job for job in jobs if job.status == "done"]), key=lambda level: level[0][0].sparsity_asked
    )
    sparsest = {(sparse[0].data, sparse[0].model, sparse[0].method): level for level in levels for sparse in level[:1]}
    for subject, (level, dense, (sparse_says, dense_says, labels)) in sparsest.items():
        found = measure_forgotten(sparse_says, dense_says, labels).arrays
        places = np.flatnonzero(found["forgotten"])[:MOST]
        if len(places) == 0:
            continue
        images, _ = stored_data(level[0]).split("test")
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
