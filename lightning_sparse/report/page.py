"""The report as one HTML file that opens offline, in any browser, and prints."""

from __future__ import annotations

from base64 import b64encode
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_sparse.report.gaps import holes, warnings
from lightning_sparse.report.headline import headline
from lightning_sparse.report.table import over_seeds, summarise
from lightning_sparse.report.trust import trust_table
from lightning_sparse.report.verdicts import is_worst
from lightning_sparse.report.words import EXPLAINED, NOTHING, SHARES, eps_text, name_of, number

if TYPE_CHECKING:
    import pandas as pd

    from lightning_sparse.report.collect import Sweep

SVG_AT_MOST = 200_000  # bytes: a picture drawn of more points is smaller as a PNG
FIRST = {"robustness", "security_curves", "differences", "saliency"}  # figures that are seen without asking
MAIN = "Accuracy and robustness"
SAME = "same images"
NOT_IN_THE_TABLE = {
    "convergence_delta",
    "randomisation_complexity_rise",
    "dense_agreement_top10",
}  # they are in table.csv


def _main(averages: pd.DataFrame) -> pd.Series[bool]:
    return (averages["metric"] == "clean_accuracy") | is_worst(averages) | (averages["metric"] == "robust_curve_area")


def _saliency(averages: pd.DataFrame) -> pd.Series[bool]:
    chosen = ~averages["attribution"].isin(["", "input", "uniform"]) & ~averages["metric"].isin(NOT_IN_THE_TABLE)
    same = averages["condition"] == SAME
    # Over the same images where that was computed.
    return chosen & (same | ~averages["metric"].isin(set(averages.loc[same, "metric"])))


def _why(averages: pd.DataFrame) -> pd.Series[bool]:
    summed = {"corruption_mean_accuracy", "shift_consistency", "forgotten_share", "vog_forgotten_overlap"}
    return averages["metric"].isin(summed) | averages["metric"].str.startswith(("curvature", "difference"))


def _cost(averages: pd.DataFrame) -> pd.Series[bool]:
    return averages["metric"].str.startswith("cost_")


TABLES = {MAIN: _main, "Saliency": _saliency, "What may explain it": _why, "What it costs": _cost}


def page(sweep: Sweep, parts: dict[str, Sweep], pictures: dict[str, dict[Path, str]]) -> str:
    """Write the page.

    Args:
        sweep: the whole sweep, for the title and the list of jobs.
        parts: its parts by title, as :func:`~lightning_sparse.report.collect.by_subject` returns them.
        pictures: for every part the figures, as file stems (``.png`` and ``.svg`` exist), with what they say in words.

    Returns:
        The HTML, which refers to nothing outside itself.
    """
    from jinja2 import Environment, StrictUndefined

    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    metrics = list(dict.fromkeys(sweep.frame["metric"]))
    return environment.from_string(template).render(
        name=sweep.name,
        sections=[_section(title, part, pictures[title]) for title, part in parts.items()],
        holes=holes(sweep.frame, sweep.jobs).to_dict("records"),
        warnings=warnings(sweep.frame, sweep.jobs, sweep.superseded),
        explained=[(name_of(metric), EXPLAINED[metric]) for metric in EXPLAINED if metric in metrics],
        details=_details(sweep.frame),
        jobs=sweep.jobs.to_dict("records"),
        versions=sorted(set(sweep.jobs["version"]) - {""}),
    )


def _section(title: str, part: Sweep, pictures: dict[Path, str]) -> dict[str, Any]:
    averages = over_seeds(part.frame)
    drawn: dict[str, list[dict[str, Any]]] = {"figures": [], "more": [], "maps": []}
    for stem, says in pictures.items():
        kind = "maps" if stem.name.startswith("maps_") else "figures" if stem.name in FIRST else "more"
        drawn[kind].append(_picture(stem, says))
    return drawn | {
        "title": title,
        "headline": headline(part),
        "subject": sorted({f"{job['data']}, {job['model']}" for job in part.jobs.to_dict("records") if job["data"]}),
        "tables": [table for name in TABLES if (table := _table(name, part, averages))],
        "checks": trust_table(part.frame),
    }


def _table(name: str, part: Sweep, averages: pd.DataFrame) -> dict[str, Any] | None:
    """One table of the page: its columns, what stands over them, and its lines."""
    shown = TABLES[name](averages)
    columns = _columns(averages[shown])
    if not columns and name != MAIN:
        return None
    over = [(over, len(list(group))) for over, group in groupby(column["over"] for column in columns)]
    return {
        "name": name,
        "columns": columns,
        "over": over,
        "lines": _lines(part, averages, columns, holes=name == MAIN),
    }


def _columns(shown: pd.DataFrame) -> list[dict[str, Any]]:
    """The quantities worth a column, in a reader's order."""
    shown = shown.drop_duplicates("chart")
    shown = shown.assign(group=shown["chart"].str.split("/").str[0])
    columns = shown.sort_values(["group", "attribution", "eps", "chart"]).to_dict("records")
    for column in columns:
        unit = ", %" if column["metric"] in SHARES else ""
        if column["eps"] == column["eps"]:
            column["over"], column["name"] = name_of(column["metric"], column["attack"]) + unit, eps_text(column["eps"])
            column["over"] += f" ({column['norm']})" if column["norm"] == "L2" else ""
            column["name"] = f"eps = {column['name']}"
        else:
            column["over"] = column["attribution"].replace("_", " ")
            column["name"] = name_of(column["metric"]) + unit
    return columns  # type: ignore[return-value]


def _lines(part: Sweep, averages: pd.DataFrame, columns: list[dict[str, Any]], *, holes: bool) -> list[dict[str, Any]]:
    lines = []
    for line in summarise(part.frame, part.jobs).to_dict("records"):
        own = averages[(averages["method"] == line["method"]) & (averages["sparsity_asked"] == line["sparsity_asked"])]
        found = {average["chart"]: average for average in own.to_dict("records")}
        cells = [_cell(found.get(column["chart"]), line["seeds"]) for column in columns]
        if holes or any(cell["shown"] != NOTHING for cell in cells):
            lines.append(line | {"cells": cells, "holes": line["holes"] if holes else ""})
    return lines


def _cell(average: dict[Any, Any] | None, seeds: int) -> dict[str, str]:
    if average is None:
        return {"shown": NOTHING, "half": "", "note": "", "distrusted": ""}
    # What is computed from all seeds together has one row for them, and is no hole.
    together = average["metric"].startswith(("forgotten", "vog", "dense_agreement"))
    note = f"{average['seeds']} of {seeds} seeds" if average["seeds"] < seeds and not together else ""
    mean, _, half = number(average["metric"], average["mean"], average["half"]).partition(" ")
    return {"shown": mean, "half": half, "note": note, "distrusted": average["distrusted"]}


def _details(frame: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """How each quantity was computed, in the words of whoever computed it; a few examples where they differ."""
    told: dict[str, dict[str, None]] = {}  # a dict for its order
    for row in frame[frame["detail"] != ""].to_dict("records"):
        told.setdefault(name_of(row["metric"], row["attack"], attribution=row["attribution"]), {})[row["detail"]] = None
    shown = []
    for name, details in told.items():
        more = [f"… and {len(details) - 3} more, in records.csv"] if len(details) > 3 else []
        shown.append((name, [*details][:3] + more))
    return shown


def _picture(stem: Path, says: str) -> dict[str, Any]:
    picture, kind = Path(f"{stem}.svg"), "svg+xml"
    if picture.stat().st_size > SVG_AT_MOST:
        picture, kind = Path(f"{stem}.png"), "png"
    wide = not stem.name.startswith(("transfer_", "maps_"))
    return {
        "wide": wide,
        "source": f"data:image/{kind};base64,{b64encode(picture.read_bytes()).decode()}",
        "says": says,
    }
