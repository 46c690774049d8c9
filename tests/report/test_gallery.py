"""Which images are shown, and what is written under them."""

import numpy as np
import pytest

from lightning_sparse.drawing.style import save, style
from lightning_sparse.report.gallery import WRONG, gallery, vog_gallery


def texts(figure):
    return [axes.get_xlabel() for axes in figure.axes if axes.images]


def pictures(n, channels=1):
    """The i-th image holds i / n everywhere."""
    return np.broadcast_to((np.arange(n) / n).reshape(n, 1, 1, 1), (n, channels, 4, 4)).astype(np.float16)


def shown(figure, n):
    return [round(float(np.asarray(axes.images[0].get_array()).flat[0]) * n) for axes in figure.axes if axes.images]


def test_only_images_with_two_different_modes_are_shown_with_what_each_side_says():
    labels = np.array([2, 0, 1, 1, 0])
    dense, sparse = np.array([2, 0, -1, 0, 2]), np.array([1, 0, 1, 1, 1])
    with style():
        figure = gallery(pictures(5), labels, dense, sparse, "gradual, sparsity 0.9")
    assert shown(figure, 5) == [4, 3, 0]
    assert texts(figure) == [
        "label 0\n✗ dense 2\n✗ sparse 1",
        "label 1\n✗ dense 0\nsparse 1",
        "label 2\ndense 2\n✗ sparse 1",
    ]
    assert [axes.xaxis.label.get_color() for axes in figure.axes if axes.images] == [WRONG, "black", WRONG]
    assert figure.get_suptitle() == "gradual, sparsity 0.9"
    assert "3 of the 3 images (of 5)" in figure.get_label()
    assert "(1 of the 3)" in figure.get_label()


def test_at_most_four_of_a_class_and_every_class_before_a_second_of_any():
    labels = np.array([0] * 30 + [1] * 3)
    with style():
        figure = gallery(pictures(33), labels, labels, 1 - labels, "few classes")
    assert shown(figure, 33) == [0, 1, 2, 3, 30, 31, 32]
    labels = np.arange(60) % 20
    with style():
        figure = gallery(pictures(60), labels, labels, (labels + 1) % 20, "many classes")
    expected = [i for label in range(20) for i in ([label, label + 20] if label < 4 else [label])]
    assert shown(figure, 60) == expected
    assert len(expected) == 24
    assert "24 of the 60 images" in figure.get_label()


def test_without_forgotten_images_there_is_no_figure():
    labels = np.arange(3)
    assert gallery(pictures(3), labels, labels, np.array([0, 1, -1]), "same") is None


def test_the_highest_and_the_lowest_scores():
    scores = np.linspace(-2, 2, 50)[::-1].copy()
    scores[0] = np.nan
    with style():
        figure = vog_gallery(pictures(50), np.arange(50) % 3, scores)
    assert shown(figure, 50) == [*range(1, 17), *range(34, 50)]
    assert texts(figure)[0] == "class 1\n+1.9"
    assert texts(figure)[-1] == "class 1\n-2.0"
    assert "1 images without a score are left out" in figure.get_label()


@pytest.mark.parametrize("count", [0, 1, 3, 9])
def test_few_images_leave_cells_empty(count):
    scores = np.where(np.arange(9) < count, np.arange(9.0), np.nan)
    with style():
        figure = vog_gallery(pictures(9), np.zeros(9, int), scores)
    assert len(texts(figure)) == 2 * (count // 2)


def test_colour_images_are_drawn_and_saved(tmp_path):
    labels = np.arange(6) % 2
    with style():
        save(gallery(pictures(6, 3), labels, labels, 1 - labels, "colour"), tmp_path / "forgotten")
        save(vog_gallery(pictures(6, 3), labels, np.arange(6.0)), tmp_path / "vog")
    for name in ("forgotten.png", "forgotten.svg", "vog.png", "vog.svg"):
        assert (tmp_path / name).stat().st_size > 1000
