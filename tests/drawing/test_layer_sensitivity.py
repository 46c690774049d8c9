"""The heat map of the sensitivity of layers, read back from what was drawn."""

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure

from lightning_sparse.drawing.layer_sensitivity import plot_layer_sensitivity
from lightning_sparse.errors import SparsityError
from lightning_sparse.results.records import Measured, Record


def row(condition, change, half=0.01):
    return Record(
        "sensitivity_accuracy_change", change, 500, change - half, change + half, condition=condition, detail="..."
    )


ROWS = [
    row("fc1.weight 0.5", 0.002),
    row("fc1.weight 0.95", -0.015),
    row("fc2.weight 0.5", 0.0002),
    row("fc2.weight 0.95", -0.6),
    row("all layers 0.5", -0.0004),
    row("all layers 0.95", -0.75),
    Record("sensitivity_accuracy", 0.9, 500, condition="fc1.weight 0.5"),
]


def test_every_number_is_where_it_belongs():
    axes = plot_layer_sensitivity(Measured(ROWS), Figure().subplots())
    assert [label.get_text() for label in axes.get_yticklabels()] == ["fc1", "fc2", "all layers"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["50", "95"]
    texts = {text.get_position(): (text.get_text(), text.get_weight(), text.get_color()) for text in axes.texts}
    assert texts == {
        (0, 0): ("+0.2", "normal", "#333333"),
        (1, 0): ("-1.5", "bold", "#333333"),
        (0, 1): ("0", "normal", "#333333"),
        (1, 1): ("-60.0", "bold", "white"),
        (0, 2): ("0", "normal", "#333333"),
        (1, 2): ("-75.0", "bold", "white"),
    }
    (image,) = axes.images
    assert np.allclose(image.get_array(), [[-0.2, 1.5], [-0.02, 60], [0.04, 75]])
    shades = image.cmap(image.norm(image.get_array()))[..., :3].sum(axis=-1)
    assert shades[0, 0] > shades[0, 1] > shades[1, 1]  # darker is worse
    assert shades[0, 0] == shades[1, 0]  # a gain is no loss
    assert shades[1, 1] == shades[2, 1]  # above 50 points all is as bad


def test_a_sparsity_that_one_layer_lacks_stays_blank():
    axes = plot_layer_sensitivity(Measured([*ROWS, row("fc3.weight 0.8", -0.1)]), Figure().subplots())
    assert np.isnan(axes.images[0].get_array().filled(np.nan)).sum() == 5
    assert len(axes.texts) == 7


def test_a_figure_of_its_own_is_as_high_as_its_layers_and_in_the_style():
    before = dict(matplotlib.rcParams)
    few = plot_layer_sensitivity(Measured(ROWS))
    many = plot_layer_sensitivity(Measured([row(f"layer{i}.weight 0.9", -0.1) for i in range(200)]))
    assert dict(matplotlib.rcParams) == before
    assert few.figure.get_figheight() < 2 < many.figure.get_figheight() == 20
    assert not many.texts  # there is no room for numbers
    assert few.figure.axes[1].get_ylabel() == "points of accuracy lost"
    few.figure.canvas.draw()
    box = few.figure.axes[1].yaxis.label.get_window_extent()
    assert 0 <= box.y0 < box.y1 <= few.figure.bbox.height
    pyplot.close("all")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"measured": [1]}, "measured=list holds no sensitivity of layers"),
        ({"axes": 3}, r"axes=3 is no matplotlib Axes: write axes=plt.subplots\(\)\[1\]"),
    ],
)
def test_odd_arguments(arguments, message):
    with pytest.raises(SparsityError, match=message):
        plot_layer_sensitivity(**{"measured": Measured(ROWS)} | arguments)
