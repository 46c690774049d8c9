"""Each steered network against the one whose images were chosen at random: is a score worth more than fewer images are?"""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf

from lightning_sparse.app.build import stored_config
from lightning_sparse.app.comparing.grouping import signed
from lightning_sparse.app.comparing.paired_with_dense import clean_difference
from lightning_sparse.app.hydra_parts import job_from
from lightning_sparse.results.jobs import Job
from lightning_sparse.results.records import Record

RANDOM = "random"


def steered(jobs: list[Job]) -> list[Record]:
    """Clean accuracy less that of the job which differs in nothing but that it was steered by a random score."""
    by_run, rows = {job.run: job for job in jobs}, []
    for job in jobs:
        try:
            config: Any = stored_config(job)
            hydra: Any = OmegaConf.load(job.folder / ".hydra" / "hydra.yaml")
        except Exception:  # it cannot be read: the other jobs are compared all the same
            continue
        if config.get("steering", {}).get("score") in (None, RANDOM):
            continue
        at_random: Any = OmegaConf.merge(config, {"steering": {"score": RANDOM}})
        control = by_run.get(job_from(at_random, {**hydra.hydra.runtime.choices, "steering": RANDOM}).run)
        if control is not None:
            rows += signed(job, clean_difference(job, control, "difference_random_steering", "steered at random"))
    return rows
