"""Every figure of a sweep: drawn, saved, and described for the page. If one fails, the others are still drawn."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lightning_sparse.report.word_sheet import WordSheet
    from lightning_sparse.tables.collect import Sweep


@dataclass(frozen=True)
class Picture:
    """One figure of the report.

    Attributes:
        stem: its path without ``.png`` and ``.svg``.
        says: its caption.
        plot: its :func:`~lightning_sparse.report.plotly_figures.interactive` version, if it has one.
        notes: warnings about single seeds, failed checks and holes.
        problem: why it could not be drawn; empty if it was.
        sheet: of texts, which the page sets as text.
    """

    stem: Path
    says: str = ""
    plot: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()
    problem: str = ""
    sheet: WordSheet | None = None


def draw_all(sweep: Sweep, folder: Path) -> list[Picture]:
    """Draw what the records of one data set and one model allow, and save it as ``<folder>/<name>.png`` and ``.svg``."""
    from lightning_sparse.drawing.style import style
    from lightning_sparse.report.contact_sheet import contact_sheet, saved_attributions
    from lightning_sparse.report.figure_contents import FIGURES
    from lightning_sparse.report.first_layers import first_layers
    from lightning_sparse.report.gallery import forgotten, variable
    from lightning_sparse.report.transfer_map import transfer
    from lightning_sparse.report.word_sheet import are_texts, word_sheet
    from lightning_sparse.tables.method_names import is_control, is_dense

    methods = sorted({job.method for job in sweep.started} - {""})
    dense = [method for method in methods if is_dense(method)]
    pictures: dict[str, Callable[[], Figure | None]] = {
        "vog" if len(dense) == 1 else f"vog_{file_name(method)}": partial(variable, sweep, method) for method in dense
    }
    saved, of_words = saved_attributions(sweep), are_texts(sweep)
    sheets: dict[str, Callable[[], WordSheet | None]] = {}
    for method in methods:
        if is_dense(method) or is_control(method):
            continue
        name = file_name(method)
        pictures[f"transfer_{name}"] = partial(transfer, sweep, method)
        pictures[f"first_layers_{name}"] = partial(first_layers, sweep, method)
        pictures[f"forgotten_{name}"] = partial(forgotten, sweep, method)
        for attribution in saved:
            sheet = f"maps_{name}_{file_name(attribution)}"
            if of_words:
                sheets[sheet] = partial(word_sheet, sweep, method, attribution)
            else:
                pictures[sheet] = partial(contact_sheet, sweep, method, attribution)
    with style():
        drawn = [_guarded(folder / name, _from_numbers, sweep, make) for name, make in FIGURES.items()]
        drawn += [_guarded(folder / name, _of_images, make) for name, make in pictures.items()]
        drawn += [_guarded(folder / name, _of_words, make) for name, make in sheets.items()]
    return [picture for picture in drawn if picture is not None]


def file_name(words: str) -> str:
    """Turn the name of a method, a data set or an attribution into a safe file name.

    Example:
        >>> file_name("../digits, cnn")
        'digits-cnn'
    """
    return re.sub(r"[^\w.=-]+", "-", words).strip("-.") or "unnamed"


def _guarded(stem: Path, make: Callable[..., Picture | None], *arguments: Any) -> Picture | None:
    # Whatever the error is, one picture must not cost the report of hours of training.
    try:
        return make(stem, *arguments)
    except Exception as error:
        problem = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        print(f"figure {stem.name} could not be drawn: {problem}", file=sys.stderr)
        return Picture(stem, problem=problem)


def _from_numbers(stem: Path, sweep: Sweep, make: Callable[[Sweep], Any]) -> Picture | None:
    from lightning_sparse.drawing.style import save
    from lightning_sparse.report.captions import notes
    from lightning_sparse.report.matplotlib_figures import draw
    from lightning_sparse.report.plotly_figures import interactive
    from lightning_sparse.tables.gaps import holes

    contents = make(sweep)
    if contents is None:
        return None
    save(draw(contents, sweep), stem)
    return Picture(stem, contents.caption, interactive(contents, sweep), tuple(notes(contents.shown, holes(sweep))))


def _of_images(stem: Path, make: Callable[[], Figure | None]) -> Picture | None:
    from lightning_sparse.drawing.style import save

    figure = make()
    if figure is None:
        return None
    save(figure, stem)
    return Picture(stem, str(figure.get_label()))


def _of_words(stem: Path, make: Callable[[], WordSheet | None]) -> Picture | None:
    from lightning_sparse.drawing.style import save
    from lightning_sparse.report.word_sheet import draw_words

    sheet = make()
    if sheet is None:
        return None
    save(draw_words(sheet), stem)
    return Picture(stem, sheet.says, sheet=sheet)
