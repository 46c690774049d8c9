"""Texts in the report: which words are shown, how strongly, and that a page shows what a text holds and runs none of it."""

import numpy as np
import pytest

from lightning_sparse.drawing.style import save, style
from lightning_sparse.report import write
from lightning_sparse.report.word_sheet import draw_words, word_sheet
from lightning_sparse.results.arrays import problem
from lightning_sparse.tables.collect import collect

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def sweep(make_sweep):
    """Two texts, of four and of two words; maps grow by one from word to word, and by ten times the sparsity."""
    folder = make_sweep(methods=("gradual",), levels=(0.5, 0.98), seeds=(0,))
    for name, sparsity in (("dense-0", 0.0), ("gradual-0.5", 0.5), ("gradual-0.98", 0.98)):
        maps = np.arange(1.0, 5.0, dtype=np.float32) + 10 * np.float32(sparsity) + np.zeros((2, 1, 4), np.float32)
        maps[1, 0, 2:] = np.nan
        np.savez(
            folder / f"{name}-s0" / "saliency-0.npz",
            images=np.array([[7, 1, 5, 9], [4, 3, 0, 0]])[:, None, None],
            labels=np.array([1, 0]),
            prediction=np.array([1, 1]),
            confidence=np.array([0.75, 0.5], dtype=np.float32),
            words=np.array([["the", EVIL, "moss", "$x$"], ["small", "fern", "", ""]]),
            unknown=np.array([[False, True, False, False], [False] * 4]),
            class_names=np.array(["plant & co", "<b>act</b>"]),
            gradient=maps,
        )
    return folder


def test_each_word_has_its_share_of_the_largest_number_of_its_text(sweep):
    sheet = word_sheet(collect(sweep), "gradual", "gradient")
    assert [text.label for text in sheet.texts] == ["<b>act</b>", "plant & co"]  # the one that dense has right first
    first = sheet.texts[0].lines
    assert [line.name for line in first] == ["dense", "sparsity 0.5", "sparsity 0.98"]
    assert [[word.text for word in line.words] for line in first] == [["the", EVIL, "moss", "$x$"]] * 3
    assert [word.share for word in first[0].words] == pytest.approx([value / 13.8 for value in (1, 2, 3, 4)])
    assert [word.value for word in first[1].words] == [6, 7, 8, 9]
    assert [word.unknown for word in first[2].words] == [False, True, False, False]
    assert (first[0].says, first[0].right) == ("<b>act</b>, 75 %", True)
    second = sheet.texts[1].lines
    assert [word.text for word in second[0].words] == ["small", "fern"]  # padding is no word
    assert second[2].words[1].share == 1
    assert (second[0].says, second[0].right) == ("✗ <b>act</b>, 50 %", False)


def test_the_page_holds_the_words_and_escapes_them(sweep):
    page = write(collect(sweep)).read_text()
    assert EVIL not in page
    assert "<b>act</b>" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;</span>") == 3
    assert (
        'class="word unknown" style="--share: 0.145" title="&lt;script&gt;alert(1)&lt;/script&gt;: 2, 14 % of' in page
    )
    assert """style="--share: 1.000" title="fern: 11.8, 100 % of the text's largest">fern</span>""" in page
    assert "plant &amp; co" in page
    assert "could not be drawn" not in page
    assert "grow too large" not in page
    assert (sweep / "figures" / "maps_gradual_gradient.svg").exists()


def test_a_job_without_maps_of_these_texts_says_so(sweep):
    (sweep / "gradual-0.5-s0" / "saliency-0.npz").unlink()
    sheet = word_sheet(collect(sweep), "gradual", "gradient")
    assert [(line.words, line.says) for line in (text.lines[1] for text in sheet.texts)] == [([], "done")] * 2


def test_the_figure_breaks_long_texts_and_colours_each_word(sweep, tmp_path):
    path = sweep / "dense-0-s0" / "saliency-0.npz"
    with np.load(path) as found:
        arrays = dict(found)
    arrays["words"] = np.array([["w" * 60, "x" * 30, "y", "z"], ["small", "fern", "", ""]])
    np.savez(path, **arrays)
    with style():
        figure = draw_words(word_sheet(collect(sweep), "gradual", "gradient"))
        save(figure, tmp_path / "words")
    (axes,) = figure.axes
    places = {text.get_text(): text.get_position() for text in axes.texts if text.get_bbox_patch()}
    assert places["x" * 30][0] == places["w" * 60][0]
    assert places["x" * 30][1] == places["w" * 60][1] + 1 == places["y"][1]
    faces = {text.get_text(): text.get_bbox_patch().get_facecolor() for text in axes.texts if text.get_bbox_patch()}
    assert faces["fern"][:3] == pytest.approx(
        (0xE6 / 255, 0x9F / 255, 0)
    )  # the strongest of its text, in the last line
    assert "$x$" in places


def test_arrays_whose_words_do_not_fit_the_maps_are_not_read(sweep):
    path = sweep / "dense-0-s0" / "saliency-0.npz"
    assert problem(path, "saliency") == ""
    with np.load(path) as found:
        arrays = dict(found)
    np.savez(path, **{**arrays, "words": arrays["words"][:, :3]})
    assert problem(path, "saliency") == "words is of another shape or kind"
