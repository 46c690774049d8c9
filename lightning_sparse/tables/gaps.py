"""What is missing from a sweep, and what makes its numbers hard to compare."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from lightning_sparse.results.jobs import OUT_OF_REACH
from lightning_sparse.results.verdicts import failed_checks
from lightning_sparse.tables.frames import described, is_worst, latest
from lightning_sparse.tables.method_names import base, bits_text, level_words

if TYPE_CHECKING:
    import pandas as pd

    from lightning_sparse.tables.collect import Sweep

EXACT = 1e-3  # more than rounding to whole connections, except in the smallest networks
NEAR = 0.05  # of the bits asked for: knobs are whole numbers, and fine-tuning moves the size
HOLE = ["data", "model", "method", "sparsity_asked", "seed", "status", "error", "folder", "compressed"]


def holes(sweep: Sweep) -> pd.DataFrame:
    """List the jobs that failed, did not end, measured nothing, were never started, or are out of reach, one line each."""
    jobs = sweep.jobs.copy()
    silent = (jobs["status"] == "done") & ~jobs["run"].isin(sweep.frame["run"])
    jobs.loc[silent, ["status", "error"]] = ["empty", "it says done but left no records"]
    jobs.loc[(jobs["status"] == "running") & (jobs["error"] == ""), "error"] = "it is still running, or was killed"
    return jobs.loc[jobs["status"] != "done", HOLE].reset_index(drop=True)


def missed(lines: pd.DataFrame, compressed: Collection[str] = ()) -> pd.Series[bool]:
    """Which lines have another level than was asked for, except small dense networks, which have whole channels.

    Those of ``compressed`` methods may be off by a twentieth of their bits.
    """
    by_bits = lines["method"].isin(compressed)
    allowed = (NEAR * (1 - lines["sparsity_asked"])).where(by_bits, EXACT)
    off = (lines["sparsity"] - lines["sparsity_asked"]).abs() > allowed
    return off & (lines["method"].map(base) != "small_dense")


def out_of_reach(sweep: Sweep) -> list[str]:
    """Say which sizes no network of a technique can have, in a sentence for each technique."""
    jobs = sweep.jobs[sweep.jobs["status"] == OUT_OF_REACH].sort_values("sparsity_asked")
    said = []
    for method, group in jobs.groupby("method"):
        sizes = ", ".join(bits_text(level) for level in group["sparsity_asked"].drop_duplicates())
        said.append(f"{method} cannot reach {sizes} of the bits ({group['error'].iloc[-1]}).")
    return said


def warnings(sweep: Sweep) -> list[str]:
    """What a reader must know before comparing the numbers, in sentences."""
    said = [*sweep.unreadable, *sweep.missing, *out_of_reach(sweep)]
    if sweep.compressed and not sweep.by_bits:
        said.append(
            f"The sparsity given for {', '.join(sorted(sweep.compressed))} is 1 less their bits, as a share of dense "
            "float32: they are compressed, and other networks beside them are sparse."
        )
    if sweep.superseded:
        said.append(
            "Left out, because a newer job of the same method, sparsity and seed was trained with other settings: "
            f"{', '.join(sweep.superseded)}."
        )
    trained = sweep.jobs[(sweep.jobs["training"] != "") & (sweep.jobs["status"] == "done")]
    for (_, _, method, _), group in trained.groupby(["data", "model", "method", "sparsity_asked"], dropna=False):
        if group["training"].nunique() > 1:
            level = level_words(group["sparsity_asked"].iloc[0], method in sweep.compressed)
            said.append(
                f"{method} at {level} is a mean over seeds that were trained with different settings: "
                f"{', '.join(sorted(group['run']))}."
            )
    newest = latest(sweep.frame)
    for run, rows in newest[missed(newest, sweep.compressed)].groupby("run"):
        asked, achieved = rows["sparsity_asked"].iloc[0], rows["sparsity"].iloc[0]
        levels = f"sparsity {asked:g} and has {achieved:.4g}"
        if rows["method"].iloc[0] in sweep.compressed:
            levels = f"{level_words(asked, compressed=True)} and has {bits_text(achieved)}"
        said.append(f"{run} was asked for {levels}: it is drawn where it was asked for.")
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
