"""The table of a sweep, one line per method and sparsity, and its CSV files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_sparse.results.files import write_whole
from lightning_sparse.tables.averages import LINE
from lightning_sparse.tables.frames import lines_of
from lightning_sparse.tables.gaps import holes
from lightning_sparse.tables.method_names import is_dense

if TYPE_CHECKING:
    import pandas as pd

    from lightning_sparse.tables.collect import Sweep


def summarise(sweep: Sweep) -> pd.DataFrame:
    """Make the table of a sweep: one line per method and sparsity, also where every job failed; dense first.

    Returns:
        Columns ``data``, ``model``, ``method``, ``sparsity_asked``, ``density``, ``sparsity`` (achieved, NaN if nothing was
        measured), ``seeds`` (how many were measured), then for every quantity its mean over seeds and, as ``"<chart> ±"``,
        the half width of its 95 % Student-t interval, and last ``holes``: the missing jobs in words.
    """
    import pandas as pd

    gaps, frame = holes(sweep), sweep.frame
    keys = pd.concat([part[LINE] for part in (frame, sweep.jobs)]).drop_duplicates()
    keys = keys.assign(order=[not is_dense(method) for method in keys["method"]])
    keys = keys.sort_values(["data", "model", "order", "method", LINE[-1]])
    averages = sweep.averages
    lines = []
    for key in keys[LINE].itertuples(index=False):
        at: dict[str, Any] = dict(zip(LINE, key, strict=True))
        measured = lines_of(frame, **at)
        line = at | {"density": round(1 - at["sparsity_asked"], 9), "sparsity": measured["sparsity"].mean()}
        line["seeds"] = measured["seed"].nunique()
        for average in lines_of(averages, **at).to_dict("records"):
            line[average["chart"]] = average["mean"]
            line[average["chart"] + " ±"] = average["half"]
        line["holes"] = "; ".join(
            f"seed {gap['seed']} {gap['status']}: {gap['error']}" for gap in lines_of(gaps, **at).to_dict("records")
        )
        lines.append(line)
    charts = [name for chart in _in_order(averages) for name in (chart, f"{chart} ±")]
    return pd.DataFrame(lines, columns=[*LINE, "density", "sparsity", "seeds", *charts, "holes"])


def write_csv(sweep: Sweep) -> None:
    """Write every row to ``records.csv`` and the table to ``table.csv`` in the sweep's folder.

    Where all levels are of bits, the table says bits: ``bits_asked`` and ``bits`` (achieved), as shares of dense float32.
    """
    write_whole(sweep.folder / "records.csv", sweep.frame.to_csv(index=False))
    table = summarise(sweep)
    if sweep.by_bits:
        table = table.drop(columns="sparsity_asked").assign(sparsity=1 - table["sparsity"])
        table = table.rename(columns={"density": "bits_asked", "sparsity": "bits"})
    write_whole(sweep.folder / "table.csv", table.to_csv(index=False))


def _in_order(averages: pd.DataFrame) -> list[str]:
    """Charts by group and attribution, attacks with the worst case first."""
    known = averages.drop_duplicates("chart")
    known = known.assign(group=known["chart"].str.split("/").str[0], rank=known["attack"] != "worst")
    return list(known.sort_values(["group", "attribution", "rank", "attack", "eps", "chart"])["chart"])
