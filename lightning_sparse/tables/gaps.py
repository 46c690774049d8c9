"""What is missing from a sweep, and what makes its numbers hard to compare."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_sparse.results.verdicts import failed_checks
from lightning_sparse.tables.frames import described, is_worst, latest
from lightning_sparse.tables.method_names import base

if TYPE_CHECKING:
    import pandas as pd

    from lightning_sparse.tables.collect import Sweep

EXACT = 1e-3  # more than rounding to whole connections, except in the smallest networks
HOLE = ["data", "model", "method", "sparsity_asked", "seed", "status", "error", "folder"]


def holes(sweep: Sweep) -> pd.DataFrame:
    """List the jobs that failed, did not end, measured nothing, or were never started, one line each."""
    jobs = sweep.jobs.copy()
    silent = (jobs["status"] == "done") & ~jobs["run"].isin(sweep.frame["run"])
    jobs.loc[silent, ["status", "error"]] = ["empty", "it says done but left no records"]
    jobs.loc[(jobs["status"] == "running") & (jobs["error"] == ""), "error"] = "it is still running, or was killed"
    return jobs.loc[jobs["status"] != "done", HOLE].reset_index(drop=True)


def missed(lines: pd.DataFrame) -> pd.Series[bool]:
    """Which lines have another sparsity than was asked for, except small dense networks, which have whole channels."""
    off = (lines["sparsity"] - lines["sparsity_asked"]).abs() > EXACT
    return off & (lines["method"].map(base) != "small_dense")


def warnings(sweep: Sweep) -> list[str]:
    """What a reader must know before comparing the numbers, in sentences."""
    said = [*sweep.unreadable, *sweep.missing]
    if sweep.superseded:
        said.append(
            "Left out, because a newer job of the same method, sparsity and seed was trained with other settings: "
            f"{', '.join(sweep.superseded)}."
        )
    trained = sweep.jobs[(sweep.jobs["training"] != "") & (sweep.jobs["status"] == "done")]
    for (_, _, method, asked), group in trained.groupby(["data", "model", "method", "sparsity_asked"], dropna=False):
        if group["training"].nunique() > 1:
            said.append(
                f"{method} at sparsity {asked:g} is a mean over seeds that were trained with different settings: "
                f"{', '.join(sorted(group['run']))}."
            )
    newest = latest(sweep.frame)
    for run, rows in newest[missed(newest)].groupby("run"):
        asked, achieved = rows["sparsity_asked"].iloc[0], rows["sparsity"].iloc[0]
        said.append(
            f"{run} was asked for sparsity {asked:g} and has {achieved:.4g}: it is drawn where it was asked for."
        )
    said += _distrusted(newest)
    same = described(newest, "same_images").astype(bool)
    # A sparse network is compared with dense on the same images and settings, or not at all.
    for column, what in (("n", "numbers of images"), ("key", "settings")):
        # Maps are undefined for some images of some networks, as their details say, so n may differ there.
        comparable = newest if column == "key" else newest[same]
        kinds = comparable.groupby(["data", "chart"])[column].nunique()
        mixed = sorted(set(kinds[kinds > 1].index.get_level_values("chart")))
        if mixed:
            said.append(f"Jobs were measured with different {what}: {', '.join(mixed)}.")
    for chart, group in newest[newest["value"].isna() & (same | (newest["attribution"] != ""))].groupby("chart"):
        said.append(f"{chart} is undefined for {', '.join(sorted(set(group['run'])))}: left out of the means.")
    return said


def _distrusted(newest: pd.DataFrame) -> list[str]:
    """Name the networks whose robust accuracy failed a check, check by check."""
    worst = newest[is_worst(newest)]
    runs: dict[str, set[str]] = {}
    for run, verdict in zip(worst["run"], worst["trust"], strict=True):
        for check in failed_checks([verdict]):
            runs.setdefault(check, set()).add(run)
    return [
        f"Do not trust the robust accuracy of these, for they failed the check of {check}: {', '.join(sorted(failed))}."
        for check, failed in sorted(runs.items())
    ]
