"""A robust accuracy, kept an eps at a time, so that a launch that asks for one more attacks at that one alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lightning_sparse.app.measuring.asked import robust_keys
from lightning_sparse.app.measuring.kinds import Settings, Trained, robustness
from lightning_sparse.results import records
from lightning_sparse.results.jobs import Job
from lightning_sparse.results.records import Measured


def known(job: Job, settings: Settings) -> Measured:
    """What is on disk of the robust accuracy of a job with these settings, at every eps asked for so far.

    Returns:
        As :func:`~lightning_sparse.measure.measure_robustness` returns it; no array if no eps was measured.
    """
    family = robust_keys(settings).model.removesuffix("model")
    closed = {key for key in job.measured() if key.startswith(family)}
    found = []
    for path in job.folder.glob(f"{family}*.npz"):
        if path.stem in closed:
            with np.load(path) as file:
                found.append(dict(file))
    # A kill may have left rows without the line that closes them, and they were measured again: the later ones count.
    told = {(row.metric, row.attack, row.eps): row for row in records.read(job.rows) if row.key in closed}
    rows = list(told.values())
    if not found:
        return Measured(rows)
    found.sort(key=lambda arrays: float(arrays["eps"][0]))
    columns = {name: np.concatenate([arrays[name] for arrays in found], axis=-1) for name in ("survives", "eps")}
    return Measured(rows, {name: found[0][name] for name in ("labels", "correct")} | columns)


def measure_curve(job: Job, trained: Trained, settings: Settings, keys: set[str]) -> Iterator[tuple[str, Measured]]:
    """Measure what is missing of a robust accuracy, in one cascade from the smallest missing eps up.

    Args:
        job: whose it is.
        trained: the model and its data.
        settings: of the robust accuracy, with every eps asked for.
        keys: what is missing.

    Yields:
        Key, and what belongs under it: the checks of the model first, because nothing of an eps may count without them.
    """
    from lightning_sparse.measure.robustness.trust import OF_THE_MODEL

    before, parts = known(job, settings), robust_keys(settings)
    found = robustness(trained, settings, before)
    of_model = [row for row in found.records if row.metric in OF_THE_MODEL]
    had = {(row.metric, row.eps) for row in before.records}
    new = [row for row in of_model if (row.metric, row.eps) not in had]
    if new or parts.model in keys:
        yield parts.model, Measured(new)
    for column, (eps, key) in enumerate(parts.eps.items()):
        if key in keys:
            rows = [row for row in found.records if row.eps == eps and row not in of_model]
            one = {"survives": found.arrays["survives"][:, [column]], "eps": found.arrays["eps"][[column]]}
            yield key, Measured(rows, found.arrays | one)
    if parts.curve in keys:
        yield (
            parts.curve,
            Measured([row for row in found.records if row.metric in ("robust_curve_area", "robust_eps_half")]),
        )
