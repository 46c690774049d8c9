"""Log a job's measurements to its run: numbers, images and files."""

from __future__ import annotations

from math import isnan
from typing import TYPE_CHECKING, Any

from lightning_sparse.tracking.runs import on_axis

if TYPE_CHECKING:
    from wandb import Run

    from lightning_sparse.engine.masks import Masks
    from lightning_sparse.results.jobs import Job


def log_job(run: Run | None, job: Job, masks: Masks | None = None) -> None:
    """Log everything in a job's folder of the measurements last asked for.

    One point on its axis holds the numbers, ``adversarial/eps=...`` (image, adversarial image, difference) and
    ``maps/<attribution>`` (image, map; of texts their words, coloured), each of the first of up to six classes. NaN is left
    out, and of two rows of one chart the later counts. Two artifacts hold the masks and ``records.jsonl``.

    Args:
        run: the job's run; None does nothing.
        job: the job.
        masks: of the trained model; None for a dense one.
    """
    if run is None:
        return
    from lightning_sparse.tracking.artifacts import keep, masks_file

    records = job.current_rows()
    values = {record.chart: record.value for record in records}
    point = {chart: value for chart, value in values.items() if not isnan(value)}
    if point:
        point |= on_axis(records[-1].sparsity, job.compressed)
        # In one call, because W&B drops values that are logged at another step than their axis.
        run.log({**point, **_images(job)})
        run.summary.update(point)
    keep(run, "records", [job.rows])
    if masks is not None:
        keep(run, "masks", [masks_file(run, masks)])


def _images(job: Job) -> dict[str, Any]:
    import wandb

    from lightning_sparse.results.arrays import attributions, load
    from lightning_sparse.tracking.coloured_texts import coloured_texts
    from lightning_sparse.tracking.pictures import adversarial_pictures, chosen, images, map_pictures

    texts = load(job, "saliency")
    if texts and "words" in texts:
        return {f"maps/{name}": wandb.Html(coloured_texts(texts, name)) for name in attributions(texts)}
    crafted, explained = chosen(job, "transfer"), chosen(job, "saliency")
    shown = {f"maps/{name}": images(map_pictures(explained, name)) for name in attributions(explained)}
    if crafted:
        shown[f"adversarial/eps={float(crafted['eps']):.4g}"] = images(adversarial_pictures(crafted))
    return shown
