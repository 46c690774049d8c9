"""The dense network that a compressed one begins with, where its sweep has trained it already."""

from __future__ import annotations

from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from lightning_sparse.app.compression import is_narrow
from lightning_sparse.app.hydra_parts import job_from
from lightning_sparse.results.files import write_whole
from lightning_sparse.results.jobs import Job


def take_dense(config: DictConfig, job: Job) -> None:
    """Copy what ``compression=none`` of the same settings and seed has trained: the training would end in the same network.

    Nothing happens where that job has no trained network, or one of another version, and where this job has begun to train.
    A copy that cannot be read is put aside by :func:`~lightning_sparse.app.train.train`, which then trains.
    """
    if not job.compressed or is_narrow(config) or job.checkpoint.exists() or job.half_done.exists():
        return
    without: Any = OmegaConf.merge(config, {"compression": {"steps": []}, "bits": None})
    dense = job_from(without, HydraConfig.get().runtime.choices).stored()
    if dense is None or dense.version != job.version:
        return
    try:
        content = dense.checkpoint.read_bytes()
    except FileNotFoundError:  # still being trained
        return
    job.save(objective=dense.objective)
    write_whole(job.checkpoint, content)  # last, so that where there is a checkpoint, the objective is known
