"""The report as one HTML file that opens offline, in any browser, and prints."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_sparse.report.embedded import Embedded, plotly_js
from lightning_sparse.report.headline import headline
from lightning_sparse.report.trust_table import trust_table
from lightning_sparse.report.words import NOTHING, eps_text, name_of, number, of_samples, sparsity_text
from lightning_sparse.results.jobs import OUT_OF_REACH
from lightning_sparse.results.launches import launches_in_words
from lightning_sparse.results.quantities import BIASES, COST, MAIN, QUANTITIES, SALIENCY, WHY, WORDS, quantity
from lightning_sparse.tables.configs import job_details, jobs_of
from lightning_sparse.tables.frames import described, lines_of
from lightning_sparse.tables.gaps import holes, missed, warnings
from lightning_sparse.tables.levels import rounded
from lightning_sparse.tables.table import summarise

if TYPE_CHECKING:
    import pandas as pd

    from lightning_sparse.report.all_figures import Picture
    from lightning_sparse.results.quantities import Quantity
    from lightning_sparse.tables.collect import Sweep

# The blocks of the page in a reader's order: a heading, its figures, and the table of its quantities if there are any.
BLOCKS = {
    MAIN: ["robustness"],
    "At every size of the perturbation, and against dense": ["security_curves", "differences"],
    SALIENCY: ["saliency"],
    WORDS: ["language"],
    WHY: ["stability", "sensitivity"],
    BIASES: ["biases"],
    COST: ["pareto", "pareto_time", "pareto_size"],
}


def page(sweep: Sweep, parts: dict[str, Sweep], pictures: dict[str, list[Picture]]) -> str:
    """Make the HTML, which loads nothing from outside, of a sweep, its parts by title, and the pictures of each part."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    measured = set(sweep.frame["metric"])
    known = [known for known in QUANTITIES if _is_measured(known.metric, measured)]
    environment.filters["level"] = sparsity_text
    embedded = Embedded(sweep.folder)
    details = job_details(sweep)
    sections = [_section(title, part, pictures[title], embedded, details) for title, part in parts.items()]
    return environment.get_template("page.html").render(
        name=sweep.name,
        sections=sections,
        launches=launches_in_words(sweep.launches),
        by_bits=sweep.by_bits,
        any_bits=bool(sweep.compressed),
        holes=[hole for hole in holes(sweep).to_dict("records") if hole["status"] != OUT_OF_REACH],
        warnings=warnings(sweep),
        explained=[(name_of(of.metric), of_samples(_meaning(of), sweep.samples)) for of in known if of.says],
        samples=sweep.samples,
        details=_details(sweep.frame),
        jobs=details,
        versions=sorted(set(sweep.jobs["version"]) - {""}),
        plots=embedded.plots,
        plotly=plotly_js() if embedded.plots else "",
    )


def _section(
    title: str, part: Sweep, pictures: list[Picture], embedded: Embedded, details: list[dict[Any, Any]]
) -> dict[str, Any]:
    lines = summarise(part)
    lines = lines.assign(missed=missed(lines, part.compressed), compressed=lines["method"].isin(part.compressed))
    lines = lines.assign(achieved=lines["sparsity"].map(rounded))
    summary = [line | jobs_of(line, details) for line in lines.to_dict("records")]
    figures = {picture.stem.name: picture for picture in pictures}
    blocks = []
    for name, members in BLOCKS.items():
        table = _table(name, part, summary)
        shown = [embedded.figure(figures.pop(member)) for member in members if member in figures]
        if shown or table:
            blocks.append({"name": name, "figures": shown, "table": table})
    of_images = [embedded.figure(picture) for picture in figures.values()]
    return {
        "title": title,
        "headline": headline(part),
        "subject": sorted({f"{job['data']}, {job['model']}" for job in part.jobs.to_dict("records") if job["data"]}),
        "blocks": blocks,
        "checks": trust_table(part.frame, part.compressed),
        "more": [figure for figure in of_images if not figure["name"].startswith("maps_")],
        "maps": [figure for figure in of_images if figure["name"].startswith("maps_")],
    }


def _table(name: str, part: Sweep, summary: list[dict[Any, Any]]) -> dict[str, Any] | None:
    """One table of the page: its columns, the headings over them, and its lines."""
    columns = _columns(_under(name, part.averages))
    if not columns and name != MAIN:
        return None
    over = [(over, len(list(group))) for over, group in groupby(column["over"] for column in columns)]
    lines = []
    for line in summary:
        own = lines_of(part.averages, method=line["method"], sparsity_asked=line["sparsity_asked"])
        found = {average["chart"]: average for average in own.to_dict("records")}
        cells = [_cell(found.get(column["chart"]), line["seeds"]) for column in columns]
        if name == MAIN or any(cell["shown"] != NOTHING for cell in cells):
            lines.append(line | {"cells": cells, "holes": line["holes"] if name == MAIN else ""})
    return {"columns": columns, "over": over, "lines": lines}


def _is_measured(metric: str, measured: set[str]) -> bool:
    """Whether there is a row of a quantity, or of a family of them."""
    return metric in measured or (metric.endswith("_") and any(row.startswith(metric) for row in measured))


def _meaning(of: Quantity) -> str:
    return of.says + (f" {of.better.capitalize()} is better." if of.better else "")


def _under(heading: str, averages: pd.DataFrame) -> pd.DataFrame:
    """The quantities with a column under a heading: the worst case of attacks; over the same images if that is known."""
    chosen = (described(averages, "heading") == heading) & described(averages, "column").astype(bool)
    chosen &= averages["attack"].isin(["", "worst"]) & ~averages["attribution"].isin(["input", "uniform"])
    same = averages["condition"] == "same images"
    return averages[chosen & (same | ~averages["metric"].isin(set(averages.loc[same, "metric"])))]


def _columns(shown: pd.DataFrame) -> list[dict[str, Any]]:
    """One column per chart, in a reader's order."""
    shown = shown.drop_duplicates("chart")
    shown = shown.assign(group=shown["chart"].str.split("/").str[0])
    columns = shown.sort_values(["group", "attribution", "eps", "chart"]).to_dict("records")
    for column in columns:
        unit = ", %" if quantity(column["metric"]).unit == "%" else ""
        if column["eps"] == column["eps"]:
            norm = "" if column["norm"] in ("", "Linf") else f" ({column['norm']})"
            column["over"] = name_of(column["metric"], column["attack"]) + unit + norm
            column["name"] = f"eps = {eps_text(column['eps'])}"
        else:
            column["over"] = column["attribution"].replace("_", " ")
            condition = "" if column["condition"] in ("", "same images") else f", {column['condition']}"
            column["name"] = name_of(column["metric"]) + condition + unit
    return columns  # type: ignore[return-value]


def _cell(average: dict[Any, Any] | None, seeds: int) -> dict[str, Any]:
    if average is None:
        return {"shown": NOTHING, "half": "", "note": "", "distrusted": "", "value": ""}
    together = quantity(average["metric"]).together
    note = f"{average['seeds']} of {seeds} seeds" if average["seeds"] < seeds and not together else ""
    mean, _, half = number(average["metric"], average["mean"], average["half"]).partition(" ")
    value = average["mean"] if average["mean"] == average["mean"] else ""
    return {"shown": mean, "half": half, "note": note, "distrusted": ", ".join(average["distrusted"]), "value": value}


def _details(frame: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """How each quantity was computed, from the rows' details: three examples if they differ."""
    found: dict[str, dict[str, None]] = {}  # a dict for its order
    for row in frame[frame["detail"] != ""].to_dict("records"):
        name = name_of(row["metric"], row["attack"], attribution=row["attribution"])
        found.setdefault(name, {})[row["detail"]] = None
    return [
        (name, [*details][:3] + ([f"… and {len(details) - 3} more, in records.csv"] if len(details) > 3 else []))
        for name, details in found.items()
    ]
