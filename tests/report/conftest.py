"""A sweep's folder written by code, with numbers from a formula, so that a test can work out the means by hand."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lightning_sparse.results.records import Record, append

ATTACKS = ["fgsm", "pgd", "apgd-dlr", "worst"]
EPS = [0.05, 0.1, 0.2]
JITTER = [-0.01, 0.0, 0.01]  # by seed: the mean over three seeds is the formula itself


def clean(method: str, sparsity: float) -> float:
    return 0.95 - {"gradual": 0.10, "brain": 0.05}.get(method, 0.10) * sparsity


def robust(method: str, sparsity: float, eps: float) -> float:
    return clean(method, sparsity) - 2.0 * eps - 0.2 * sparsity


def write_job(sweep: Path, method: str, sparsity: float, seed: int, *, status: str = "done", **changes: object) -> Path:
    """One job's folder; ``changes`` go into job.json, ``saliency=False`` leaves its maps and their rows out."""
    run = str(changes.get("run", f"{method}-{sparsity:g}-s{seed}"))
    with_saliency = changes.pop("saliency", True)
    job = {
        "run": run,
        "method": method,
        "data": "digits",
        "model": "cnn",
        "seed": seed,
        "sparsity_asked": sparsity,
        "version": "0.1.0",
        "status": status,
        "error": "",
        "seconds": 12.5,
        "keys": ["saliency-0"],
    }
    job |= changes
    folder = sweep / run
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(json.dumps(job))
    if status != "done":
        return folder
    owner = {name: job[name] for name in ("run", "method", "data", "model", "seed", "sparsity_asked")}
    owner |= {"sparsity": sparsity, "key": "saliency-0"}
    jitter = JITTER[seed]
    rows = [
        Record("clean_accuracy", clean(method, sparsity) + jitter, 200, detail="argmax of the logits", **owner),
        Record("clean_cross_entropy", 0.2 + jitter, 200, **owner),
    ]
    for eps in EPS:
        for i, attack in enumerate(reversed(ATTACKS)):
            value = max(0.0, robust(method, sparsity, eps) + jitter) + 0.01 * i
            rows.append(Record("robust_accuracy", value, 100, attack=attack, norm="Linf", eps=eps, **owner))
    if with_saliency:
        for attribution in ("gradient", "integrated_gradients"):
            rows.append(Record("gini", 0.5 + 0.1 * sparsity + jitter, 64, attribution=attribution, **owner))
            gap = 0.3 - 0.1 * sparsity + jitter
            rows.append(Record("insertion_deletion_gap", gap, 64, attribution=attribution, **owner))
        _write_maps(folder, seed, sparsity)
        if method != "dense":
            agreement = [
                Record("dense_agreement", 1 - 0.5 * sparsity + jitter, 64, attribution=attribution, **owner)
                for attribution in ("gradient", "integrated_gradients")
            ]
            append(sweep / "records.jsonl", agreement)
    append(folder / "records.jsonl", rows)
    return folder


def _write_maps(folder: Path, seed: int, sparsity: float) -> None:
    images = np.zeros((8, 1, 8, 8), dtype=np.float32)
    for i in range(8):
        images[i, 0, 1:7, 1 + i % 6] = 1.0
    labels = np.array([0, 0, 1, 2, 3, 4, 5, 6])
    prediction = labels.copy()
    if sparsity > 0.9:
        prediction[2] = 7
    draw = np.random.default_rng(seed + round(1000 * sparsity))
    maps = {
        name: (images[:, 0] + draw.normal(scale=0.1 + 0.4 * sparsity, size=(8, 8, 8))).astype(np.float32)
        for name in ("gradient", "integrated_gradients")
    }
    confidence = np.linspace(0.6, 0.99, 8, dtype=np.float32)
    np.savez(
        folder / "saliency-0.npz", images=images, labels=labels, prediction=prediction, confidence=confidence, **maps
    )


@pytest.fixture(name="write_job", scope="session")
def _write_job() -> Callable[..., Path]:
    """:func:`write_job` for tests, which cannot import this file."""
    return write_job


@pytest.fixture
def make_sweep(tmp_path: Path) -> Callable[..., Path]:
    """Write a sweep of dense, gradual and brain jobs; return its folder."""

    def make(
        methods: tuple[str, ...] = ("gradual", "brain"),
        levels: tuple[float, ...] = (0.5, 0.9, 0.98),
        seeds: tuple[int, ...] = (0, 1, 2),
    ) -> Path:
        folder = tmp_path / "quick"
        for seed in seeds:
            write_job(folder, "dense", 0.0, seed)
            for method in methods:
                for level in levels:
                    write_job(folder, method, level, seed)
        return folder

    return make
