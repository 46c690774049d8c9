"""What pruning one layer alone costs, in the report: means worked out by hand, on paper and on the page alike."""

import json
import warnings
from dataclasses import replace

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from torch import nn

from lightning_sparse.measure import measure_sensitivity_of_layers
from lightning_sparse.report import write
from lightning_sparse.report.figure_contents import FIGURES
from lightning_sparse.report.matplotlib_figures import draw
from lightning_sparse.report.plotly_figures import interactive
from lightning_sparse.results.records import Record, append
from lightning_sparse.tables.collect import collect
from report.test_report import check

# Mean over two seeds, and how far each of them is from it: Student's t makes 12.706 times that of it.
CHANGES = {
    "stem.weight 0.5": (0.02, 0.0),
    "stem.weight 0.95": (-0.1, 0.001),
    "body.weight 0.5": (-0.0001, 0.0),
    "body.weight 0.95": (-0.1, 0.01),
    "all layers 0.5": (-0.25, 0.01),
    "all layers 0.95": (-0.75, 0.1),
}
HOW = "not trained; granularity weights; no BatchNorm; eval mode, float32"


def measure(folder, changes, levels=None):
    """Give the jobs of these levels (all if None) rows of these changes, each further down by the job's level."""
    for job in collect(folder).members:
        if levels is not None and job.sparsity_asked not in levels:
            continue
        owner = {name: getattr(job, name) for name in ("run", "method", "data", "model", "seed", "sparsity_asked")}
        owner |= {"sparsity": job.sparsity_asked, "key": "saliency-0", "detail": f"alone by magnitude, {HOW}"}
        rows = [
            Record(
                "sensitivity_accuracy_change",
                mean + (2 * job.seed - 1) * off - 0.1 * job.sparsity_asked,
                200,
                condition=condition,
                **owner,
            )
            for condition, (mean, off) in changes.items()
        ]
        append(folder / job.run / "records.jsonl", rows)
    return folder


@pytest.fixture
def measured(make_sweep):
    return measure(make_sweep(methods=("gradual",), levels=(0.5, 0.9), seeds=(0, 1)), CHANGES)


def test_on_paper_every_mean_is_in_its_place(measured):
    sweep = collect(measured)
    figure = draw(FIGURES["sensitivity"](sweep), sweep)
    heat_map, bar = figure.axes
    assert heat_map.get_title() == "dense"
    assert [label.get_text() for label in heat_map.get_yticklabels()] == ["stem", "body", "all layers"]
    assert [label.get_text() for label in heat_map.get_xticklabels()] == ["50", "95"]
    assert {text.get_position(): (text.get_text(), text.get_weight()) for text in heat_map.texts} == {
        (0, 0): ("+2.0", "bold"),
        (1, 0): ("-10.0", "bold"),  # -11.3 to -8.7
        (0, 1): ("0", "bold"),
        (1, 1): ("-10.0", "normal"),  # -22.7 to +2.7
        (0, 2): ("-25.0", "bold"),
        (1, 2): ("-75.0", "normal"),
    }
    assert bar.get_ylabel() == "points of accuracy lost"
    said = figure.get_label()
    assert said.startswith("quick: digits, cnn; n = 200 test images. A cell: accuracy with this layer alone pruned")
    assert "Means over 2 seeds; bold: the 95 % Student-t interval leaves out 0." in said
    assert said.endswith("Granularity weights; no BatchNorm; eval mode, float32. Sparser networks: records.csv.")


def test_the_page_has_the_same_numbers_in_the_same_shades(measured):
    sweep = collect(measured)
    contents = FIGURES["sensitivity"](sweep)
    described = interactive(contents, sweep)
    assert (described["legend"], described["spreads"], described["columns"]) == ([], False, 1)
    ((panel,),) = [row["panels"] for row in described["rows"]]
    (trace,) = panel["data"]
    assert (trace["x"], trace["y"]) == (["50", "95"], ["stem", "body", "<b>all layers</b>"])
    assert trace["text"] == [["<b>+2.0</b>", "<b>-10.0</b>"], ["<b>0</b>", "-10.0"], ["<b>-25.0</b>", "-75.0"]]
    # (points / 50) ** 0.4; a gain is no loss, and above 50 points all is as bad
    assert trace["z"][0] == pytest.approx([0.0, 0.525306], abs=1e-6)
    assert trace["z"][2] == pytest.approx([0.757858, 1.0], abs=1e-6)
    image = draw(contents, sweep).axes[0].images[0]
    assert np.allclose(image.norm(image.get_array()), trace["z"])
    assert trace["hovertext"][1][1].split("<br>") == [
        "<b>body.weight</b> pruned to 0.95",
        "<b>dense</b>",
        "accuracy, one layer pruned, less unpruned: <b>\N{MINUS SIGN}10.0</b> points",
        "95 % interval over 2 seeds: \N{MINUS SIGN}22.7 to +2.7 points",
        "single seeds: \N{MINUS SIGN}11.0, \N{MINUS SIGN}9.0",
        "n = 200",
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # plotly's own; what is tested is that no name or value is refused
        go.Figure(panel)


def test_without_dense_each_method_has_a_heat_map_of_its_lowest_sparsity(make_sweep):
    folder = make_sweep(methods=("gradual", "brain"), levels=(0.5, 0.9), seeds=(0, 1))
    sweep = collect(measure(folder, CHANGES, levels=(0.5, 0.9)))
    contents = FIGURES["sensitivity"](sweep)
    assert [panel.title for panel in contents.panels] == ["brain 0.5", "gradual 0.5"]
    first, second, _ = draw(contents, sweep).axes
    assert first.texts[0].get_text() == second.texts[0].get_text() == "-3.0"  # 2.0 less 5.0, a tenth of the level
    described = interactive(contents, sweep)
    assert described["columns"] == 2
    assert [panel["layout"]["title"]["text"] for panel in described["rows"][0]["panels"]] == [
        "brain 0.5",
        "gradual 0.5",
    ]


def test_three_heat_maps_leave_the_fourth_place_empty(make_sweep):
    folder = make_sweep(methods=("a", "b", "c"), levels=(0.5,), seeds=(0, 1))
    sweep = collect(measure(folder, CHANGES, levels=(0.5,)))
    *maps, spare, _ = draw(FIGURES["sensitivity"](sweep), sweep).axes
    assert [axes.get_title() for axes in maps] == ["a 0.5", "b 0.5", "c 0.5"]
    assert not spare.get_visible()


def test_what_was_not_measured_is_not_there(make_sweep):
    folder = make_sweep(methods=("gradual",), levels=(0.5,), seeds=(0, 1))
    assert FIGURES["sensitivity"](collect(folder)) is None
    assert "points of accuracy lost" not in check(write(collect(folder))).source
    assert not list(folder.glob("figures/sensitivity.*"))


def test_a_cell_without_a_number_stays_blank(make_sweep):
    folder = make_sweep(methods=(), seeds=(0, 1))
    sweep = collect(measure(folder, CHANGES | {"body.weight 0.5": (float("nan"), 0.0), "head.weight 0.8": (-0.3, 0.0)}))
    (panel,) = interactive(FIGURES["sensitivity"](sweep), sweep)["rows"][0]["panels"]
    (trace,) = panel["data"]
    assert trace["text"][1] == ["", "", "-10.0"]  # of None, plotly would write "null"
    assert trace["z"][1][:2] == [None, None]
    json.dumps(trace, allow_nan=False)
    assert len(draw(FIGURES["sensitivity"](sweep), sweep).axes[0].texts) == 6


def test_what_was_measured_is_what_the_page_shows(make_sweep):
    """A first layer that hands on one pixel in four, and a second one without a weight to spare; one seed."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False), nn.Linear(2, 2, bias=False))
    net[1].weight.data = torch.tensor([[1.0, 0.1, 0.1, 0.1], [0.1, 1.0, 0.1, 0.1]])
    net[2].weight.data = torch.tensor([[3.0, -1.0], [-1.0, 2.0]])
    images, labels = torch.eye(4).view(4, 1, 2, 2)[:2].repeat(10, 1, 1, 1), torch.tensor([0, 1]).repeat(10)
    found = measure_sensitivity_of_layers(net, (images, labels), sparsities=[0.75])
    folder = make_sweep(methods=(), seeds=(0,))
    (job,) = collect(folder).members
    owner = {name: getattr(job, name) for name in ("run", "method", "data", "model", "seed", "sparsity_asked")}
    append(folder / job.run / "records.jsonl", [replace(row, key="saliency-0", **owner) for row in found.records])
    sweep = collect(folder)
    (panel,) = interactive(FIGURES["sensitivity"](sweep), sweep)["rows"][0]["panels"]
    assert panel["data"][0]["y"] == ["1", "2", "<b>all layers</b>"]
    assert panel["data"][0]["text"] == [["0"], ["-50.0"], ["-50.0"]]
    page = check(write(sweep))
    assert "Every cell is one network, one seed: no claim. Granularity weights; no BatchNorm" in page.words
    assert "One seed: no interval and no claim" in page.words
    assert page.words.index("What may explain it") < page.words.index("A cell: accuracy with this layer alone")
    assert {path.name for path in folder.glob("figures/sensitivity.*")} == {"sensitivity.png", "sensitivity.svg"}
