"""Tables, figures and one HTML page from the records of a sweep; nothing slow is imported before it is needed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_sparse.report.collect import Sweep

__all__ = ["write_report"]


def write_report(folder: str | Path) -> Path:
    """Turn a sweep's folder into its report.

    Written into the folder: ``records.csv`` (every row), ``table.csv`` (one line per method and sparsity),
    ``figures/*.png`` and ``*.svg``, and ``report.html``, one file that opens offline. A sweep whose jobs failed gets
    the same report with its holes shown.

    Args:
        folder: the sweep's folder, which holds the jobs' folders.

    Returns:
        Path of ``report.html``.

    Raises:
        SparsityError: if the folder does not exist or holds no job.
    """
    from lightning_sparse.files import write_whole
    from lightning_sparse.report.collect import by_subject, collect
    from lightning_sparse.report.page import page
    from lightning_sparse.report.table import write_csv

    sweep = collect(folder)
    write_csv(sweep)
    parts = by_subject(sweep)
    figures = sweep.folder / "figures"
    pictures = {title: _draw(part, figures / _file_name(title) if title else figures) for title, part in parts.items()}
    drawn = {stem for of_part in pictures.values() for stem in of_part}
    for old in [*figures.rglob("*.png"), *figures.rglob("*.svg")]:  # of methods that are no longer in the sweep
        if old.with_suffix("") not in drawn:
            old.unlink()
    report = sweep.folder / "report.html"
    write_whole(report, page(sweep, parts, pictures))
    return report


def _draw(sweep: Sweep, folder: Path) -> dict[Path, str]:
    """Draw and save what the records allow; return file stems with the captions."""
    from lightning_sparse.report.contact_sheet import attributions, contact_sheet
    from lightning_sparse.report.figures import robustness, saliency, security_curves
    from lightning_sparse.report.gallery import forgotten, variable
    from lightning_sparse.report.style import CONTROLS, save, style
    from lightning_sparse.report.why import differences, pareto, stability, transfer

    drawn = {}
    with style():
        figures = {"robustness": robustness(sweep), "security_curves": security_curves(sweep)}
        figures |= {"differences": differences(sweep), "stability": stability(sweep)}
        figures |= {"saliency": saliency(sweep), "pareto": pareto(sweep), "vog": variable(sweep)}
        for method in sorted(set(sweep.jobs["method"]) - {"dense", *CONTROLS}):
            figures[f"transfer_{_file_name(method)}"] = transfer(sweep, method)
            figures[f"forgotten_{_file_name(method)}"] = forgotten(sweep, method)
            for attribution in attributions(sweep):
                name = f"maps_{_file_name(method)}_{_file_name(attribution)}"
                figures[name] = contact_sheet(sweep, method, attribution)
        for name, figure in figures.items():
            if figure is not None:
                save(figure, folder / name)
                drawn[folder / name] = str(figure.get_label())
    return drawn


def _file_name(words: str) -> str:
    return re.sub(r"[^\w.=-]+", "-", words).strip("-.") or "unnamed"
