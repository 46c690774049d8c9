"""The filters of the first layer are shown from dense to sparse, and only where a measurement left them."""

import json

import numpy as np

from lightning_sparse.drawing.style import style
from lightning_sparse.report.first_layers import first_layers
from lightning_sparse.tables.collect import collect


def test_a_line_for_each_network_and_a_picture_for_each_unit(make_sweep):
    folder = make_sweep(methods=("gradual",), levels=(0.5, 0.9), seeds=(0, 1))
    assert first_layers(collect(folder), "gradual") is None
    filters = np.random.default_rng(0).normal(size=(5, 3, 4, 6)).astype(np.float32)
    for job in ("dense-0-s0", "gradual-0.9-s0", "gradual-0.9-s1"):
        described = json.loads((folder / job / "job.json").read_text())
        (folder / job / "job.json").write_text(json.dumps(described | {"keys": ["saliency-0", "biases-0"]}))
        np.savez(folder / job / "biases-0.npz", first_layer=filters, translation_error=np.zeros(9))
    with style():
        figure = first_layers(collect(folder), "gradual")
    lines = [axes for axes in figure.axes if axes.get_title(loc="left")]
    assert [axes.get_title(loc="left") for axes in lines] == ["dense", "sparsity 0.9"]
    shown = [axes.images[0].get_array() for axes in figure.axes]
    assert len(shown) == 10
    np.testing.assert_allclose(shown[0], filters[0].sum(0), rtol=1e-6)
