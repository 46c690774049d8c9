"""A sheet compares maps of the same images, or shows an empty cell."""

import numpy as np

from lightning_sparse.drawing.style import style
from lightning_sparse.report.contact_sheet import contact_sheet
from lightning_sparse.tables.collect import collect


def test_maps_of_other_images_are_not_shown_beside_these(make_sweep):
    folder = make_sweep(methods=("gradual",), levels=(0.5, 0.9), seeds=(0,))
    path = folder / "gradual-0.9-s0" / "saliency-0.npz"
    saved = dict(np.load(path))

    def shown():
        with style():
            figure = contact_sheet(collect(folder), "gradual", "gradient")
        return [len(axes.images) for axes in figure.axes]

    assert set(shown()) == {1}
    np.savez(path, **{**saved, "images": 1 - saved["images"]})
    counts = shown()
    columns = 4  # input, dense, two levels
    assert {count for i, count in enumerate(counts) if i % columns == 3} == {0}
    assert {count for i, count in enumerate(counts) if i % columns != 3} == {1}
