"""What happens when a sweep has ended: models are compared, the report is written, W&B gets its summary run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_sparse import records
from lightning_sparse.jobs import Job, job_files, read_job


def finish(folder: Path, logger: dict[str, Any]) -> None:
    """Write what is computed from all jobs together, and say where it is.

    Args:
        folder: the sweep's folder.
        logger: the choice in the ``logger`` group; ``kind: wandb`` gets a summary run.
    """
    jobs = jobs_in(folder)
    if not jobs:
        return
    # Recomputed whole from what the jobs left, so that it never doubles and never lags.
    rows = dense_agreement(jobs)
    (folder / "records.jsonl").unlink(missing_ok=True)
    records.append(folder / "records.jsonl", rows)

    from lightning_sparse.report import write_report

    page = write_report(folder)
    if logger.get("kind") == "wandb":
        from lightning_sparse.tracking import summary_run

        summary_run(folder, project=logger["project"], mode=logger["mode"])
    failed = [job for job in jobs if job.status != "done"]
    print(f"{len(jobs) - len(failed)} jobs done" + (f", {len(failed)} NOT: see the report" if failed else ""))
    print(f"report: {page.resolve()}", flush=True)


def jobs_in(folder: Path) -> list[Job]:
    """Every job of a sweep that can be read, without those that a newer one supersedes."""
    current, _ = job_files(folder)
    return [job for path in current if (job := read_job(path))]


def dense_agreement(jobs: list[Job]) -> list[records.Record]:
    """Compare each model's saliency maps with those of the dense model of the same data, architecture and seed."""
    import numpy as np

    from lightning_sparse.measure import ATTRIBUTIONS, agreement_record

    done = [job for job in jobs if job.status == "done" and job.maps and (job.folder / job.maps).exists()]
    parents = {(job.data, job.model, job.seed): job for job in done if job.method == "dense"}
    rows = []
    for job in done:
        parent = parents.get((job.data, job.model, job.seed))
        if parent is None or parent is job:
            continue
        sparsity = records.read(job.rows)[-1].sparsity
        with np.load(job.folder / job.maps) as mine, np.load(parent.folder / parent.maps) as dense:
            if not np.array_equal(mine["images"], dense["images"]):
                continue  # measured with other settings: not the same images, so not comparable
            for method in ATTRIBUTIONS:
                if method in mine and method in dense:
                    row = agreement_record(mine[method], dense[method], method)
                    rows.append(replace(row, sparsity=sparsity, **job.identity()))
    return rows
