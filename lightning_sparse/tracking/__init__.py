"""Weights & Biases: one run per job and one summary run per sweep, offline by default.

A job's run, from before the training to after the measurements::

    run = job_run(name="gradual-0.9-s0", project="digits", group="quick/gradual", config=config, folder="outputs/quick")
    failed = True
    try:
        Trainer(logger=lightning_logger(run) or False).fit(...)
        ...  # measure, which fills the job's folder
        log_job(run, job, masks)
        failed = False
    finally:
        finish(run, failed=failed)

With ``mode="disabled"`` the run is None, which every function accepts, and wandb need not be installed.
"""

from lightning_sparse.tracking.job_log import log_job
from lightning_sparse.tracking.runs import finish, job_run, lightning_logger
from lightning_sparse.tracking.summary import summary_run

__all__ = ["finish", "job_run", "lightning_logger", "log_job", "summary_run"]
