"""Tables, figures and one HTML page from the records of a sweep; slow imports wait until they are needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_sparse.tables.collect import Sweep


def write(sweep: Sweep) -> Path:
    """Write a sweep's report into its ``folder`` and return the path of ``report.html``, one file that opens offline.

    Beside it go ``records.csv`` (every row), ``table.csv`` (one line per method and sparsity), ``figures/*.png`` and
    ``*.svg``. A sweep whose jobs failed, or that still runs, gets the same report with its holes shown.
    """
    from lightning_sparse.report.all_figures import draw_all, file_name
    from lightning_sparse.report.page import page
    from lightning_sparse.results.files import write_whole
    from lightning_sparse.tables.collect import by_subject
    from lightning_sparse.tables.table import write_csv

    write_csv(sweep)
    parts = by_subject(sweep)
    figures = sweep.folder / "figures"
    pictures = {
        title: draw_all(part, figures / file_name(title) if title else figures) for title, part in parts.items()
    }
    drawn = {picture.stem for of_part in pictures.values() for picture in of_part if not picture.problem}
    for old in [*figures.rglob("*.png"), *figures.rglob("*.svg")]:  # of methods that are no longer in the sweep
        if old.with_suffix("") not in drawn:
            old.unlink(missing_ok=True)
    report = sweep.folder / "report.html"
    write_whole(report, page(sweep, parts, pictures))
    return report
