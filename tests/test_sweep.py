"""What a sweep computes from all its jobs, on folders written by hand."""

import numpy as np
import pytest

from lightning_sparse import records
from lightning_sparse.jobs import Job
from lightning_sparse.records import Record
from lightning_sparse.sweep import dense_agreement, jobs_in


def job(folder, method, seed, images, maps, status="done"):
    where = folder / f"{method}-{seed}"
    made = Job(where.name, method, "digits", "net", seed, 0.9, status, maps="saliency.npz", folder=where)
    made.save()
    records.append(made.rows, [Record("clean_accuracy", 0.9, 10, sparsity=0.9, **made.identity())])
    np.savez(made.folder / "saliency.npz", images=images, gradient=maps)
    return made


def test_agreement_pairs_each_model_with_the_dense_one_of_its_seed(tmp_path):
    rng = np.random.default_rng(0)
    images, maps = rng.random((6, 1, 4, 4)), rng.random((6, 4, 4))
    job(tmp_path, "dense", 0, images, maps)
    job(tmp_path, "dense", 1, images, -maps + 1)
    job(tmp_path, "gradual", 0, images, maps * 3 + 1)  # the same order of pixels
    job(tmp_path, "brain", 1, images, maps)  # the reverse order
    job(tmp_path, "gradual", 2, images, maps)  # no dense model of this seed
    job(tmp_path, "brain", 0, images + 1, maps)  # other images
    job(tmp_path, "late", 0, images, maps, status="failed")
    found = {row.run: row for row in dense_agreement(jobs_in(tmp_path))}
    assert set(found) == {"gradual-0", "brain-1"}
    assert found["gradual-0"].value == pytest.approx(1.0)
    assert found["brain-1"].value == pytest.approx(-1.0)
    assert (found["brain-1"].sparsity, found["brain-1"].seed, found["brain-1"].n) == (0.9, 1, 6)
