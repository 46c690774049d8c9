"""Texts whose words are coloured by what they count for: the dense network, then sparser and sparser networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lightning_sparse.drawing.style import WIDTH, caption
from lightning_sparse.report.contact_sheet import chosen, same_maps
from lightning_sparse.report.gallery import WRONG
from lightning_sparse.results.arrays import Arrays, load
from lightning_sparse.tables.method_names import is_dense, level_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lightning_sparse.results.jobs import Job
    from lightning_sparse.tables.collect import Sweep

_ACROSS = 114  # characters of the figure's width, and where its three columns begin
_WORDS, _SAYS = 16, 88
_HEAT = np.array([0xE6, 0x9F, 0x00]) / 255  # of the palette; black is read well on it


@dataclass(frozen=True)
class Word:
    """One word of a text, its number, the share of that of the text's largest, and whether the vocabulary lacks the word."""

    text: str
    value: float
    share: float
    unknown: bool


@dataclass(frozen=True)
class Line:
    """A text as one network reads it: the network's name, the words, what it predicts; no words if it has no numbers."""

    name: str
    words: list[Word]
    says: str
    right: bool


@dataclass(frozen=True)
class Text:
    """A text's class, and a line for each network."""

    label: str
    lines: list[Line]


@dataclass(frozen=True)
class WordSheet:
    """Some texts, a title and a caption."""

    title: str
    says: str
    texts: list[Text]


def are_texts(sweep: Sweep) -> bool:
    """Whether the sweep's jobs explained texts."""
    return "words" in next((maps for job in sweep.started if (maps := load(job, "saliency"))), {})


def word_sheet(sweep: Sweep, method: str, attribution: str) -> WordSheet | None:
    """Put the maps of one method other than dense side by side, first seed; None if no job of that seed saved maps.

    The texts are chosen as the images of :func:`~lightning_sparse.report.contact_sheet.contact_sheet` are.
    """
    found = same_maps(sweep, method, attribution)
    if found is None:
        return None
    seed, columns = found
    saved = [maps for _, maps in columns if attribution in maps]
    texts = []
    for place in chosen(saved[0]):
        top = max(float(np.nanmax(maps[attribution][place], initial=0)) for maps in saved) or 1.0
        lines = [_line(job, maps, attribution, place, top) for job, maps in columns]
        texts.append(Text(_class(saved[0], saved[0]["labels"][place]), lines))
    says = (
        f"{sweep.name}, seed {seed}. The stronger a word's colour, the more it counts for the score of the true class; the "
        "lines of one text share one scale, from 0. Words underlined with dots are not in the vocabulary: the networks read "
        "all of them as the same unknown word. Behind a line: predicted class and its probability, ✗ where it is wrong."
    )
    return WordSheet(f"{method}: {attribution.replace('_', ' ')}", says, texts)


def draw_words(sheet: WordSheet) -> Figure:
    """Draw a sheet for paper."""
    from matplotlib.figure import Figure

    figure = Figure(layout="constrained")
    axes = figure.subplots()
    axes.axis("off")
    row = 0
    for text in sheet.texts:
        axes.text(0, row, f"class {text.label}", fontsize=7.5, weight="bold", va="center")
        row += 1
        for line in text.lines:
            axes.text(1, row, line.name, fontsize=7, va="center")
            colour = "black" if line.right else WRONG
            axes.text(_SAYS, row, line.says, fontsize=7, va="center", color=colour, in_layout=False)  # of any length
            column = _WORDS
            for word in line.words:
                if column + len(word.text) > _SAYS - 1:
                    row, column = row + 1, _WORDS
                box = {"facecolor": 1 - word.share * (1 - _HEAT), "linewidth": 0, "pad": 1.2}
                axes.text(column, row, word.text, fontsize=7, family="DejaVu Sans Mono", va="center", bbox=box)
                if word.unknown:
                    axes.hlines(
                        row + 0.42, column, column + len(word.text), color="#555555", linestyle=":", linewidth=0.8
                    )
                column += len(word.text) + 1
            row += 1
        row += 1
    figure.set_size_inches(WIDTH, 0.17 * row + 1.0)
    axes.set_xlim(0, _ACROSS)
    axes.set_ylim(row - 1, -1)
    figure.suptitle(sheet.title, fontsize=9.5)
    caption(figure, sheet.says)
    return figure


def _line(job: Job, maps: Arrays, attribution: str, place: int, top: float) -> Line:
    name = "dense" if is_dense(job.method) else level_words(job.sparsity_asked, job.compressed)
    if attribution not in maps or not maps.keys() >= {"words", "unknown"}:
        return Line(name, [], job.status, right=False)
    words = []
    of_place = (maps["words"][place], maps[attribution][place].flatten(), maps["unknown"][place])
    for word, value, unknown in zip(*(array.tolist() for array in of_place), strict=True):
        if word:  # and not padding
            share = min(max(value / top, 0.0), 1.0) if np.isfinite(value) else 0.0
            words.append(Word(word, value, share, unknown))
    right = bool(maps["prediction"][place] == maps["labels"][place])
    says = f"{'' if right else '✗ '}{_class(maps, maps['prediction'][place])}, {100 * maps['confidence'][place]:.0f} %"
    return Line(name, words, says, right)


def _class(maps: Arrays, number: int) -> str:
    names = maps.get("class_names", ())
    return str(names[number]) if 0 <= number < len(names) else str(number)
