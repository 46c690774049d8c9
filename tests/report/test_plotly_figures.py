"""What plotly is told to draw holds the numbers of the table, and says of every point what a reader must know."""

import math
import warnings

import plotly.graph_objects as go
import pytest

from lightning_sparse.report.figure_contents import FIGURES
from lightning_sparse.report.plotly_figures import interactive
from lightning_sparse.results.records import Record, append
from lightning_sparse.tables.collect import collect

HALF = 4.302652729911275 * 0.01 / math.sqrt(3)  # of three seeds at m - 0.01, m, m + 0.01


def plot(sweep, name):
    return interactive(FIGURES[name](sweep), sweep)


def traces(described, role="mean"):
    """By title of the panel and group, the traces of one role."""
    return {
        (panel["layout"]["title"]["text"], trace["meta"]["group"]): trace
        for row in described["rows"]
        for panel in row["panels"]
        for trace in panel["data"]
        if trace["meta"]["role"] == role
    }


def fail_a_check(folder, run, eps):
    job = {"run": run, "method": "gradual", "data": "digits", "model": "cnn", "seed": 0, "sparsity_asked": 0.9}
    worst = {"attack": "worst", "norm": "Linf", "eps": eps, "trust": "failed: noise", "key": "saliency-0"}
    value = 0.95 - 0.09 - 2 * eps - 0.18 - 0.01
    append(folder / run / "records.jsonl", [Record("robust_accuracy", value, 100, sparsity=0.9, **worst, **job)])


def test_lines_are_the_means_and_bands_the_intervals_worked_out_by_hand(make_sweep):
    folder = make_sweep()
    fail_a_check(folder, "gradual-0.9-s0", 0.1)
    described = plot(collect(folder), "robustness")
    line = traces(described)["robust accuracy, eps = 0.1", "gradual"]
    assert line["x"] == pytest.approx([0.5, 0.1, 0.02])
    expected = [0.95 - 0.1 * s - 0.2 - 0.2 * s for s in (0.5, 0.9, 0.98)]
    assert line["y"] == pytest.approx(expected)
    assert line["meta"]["hollow"] == [False, True, False]
    assert line["marker"]["color"][1] == "#ffffff"
    says = line["text"][1].split("<br>")
    assert says[0] == "<b>gradual</b>, sparsity 0.9 (achieved 0.9)"
    assert says[1:] == [
        "robust accuracy, eps = 0.1: <b>48.0</b> %",
        "95 % interval over 3 seeds: 45.5 to 50.5 %",
        "single seeds: 47.0, 48.0, 49.0",
        "n = 100",
        "✗ not to be trusted: failed noise",
    ]
    assert "✗" not in line["text"][0]
    band = next(
        trace
        for panel in described["rows"][0]["panels"]
        if panel["layout"]["title"]["text"] == "robust accuracy, eps = 0.1"
        for trace in panel["data"]
        if trace["meta"]["group"] == "gradual" and trace.get("fill")
    )
    assert band["y"] == pytest.approx([y + HALF for y in expected] + [y - HALF for y in expected[::-1]])
    dense = traces(described)["robust accuracy, eps = 0.1", "dense"]
    assert dense["y"] == pytest.approx([0.75] * 5)


def test_every_figure_holds_the_numbers_of_over_seeds_and_is_one_that_plotly_knows(make_sweep):
    sweep = collect(make_sweep())
    known = {round(value, 12) for value in sweep.averages["mean"].dropna()}
    for name in ("robustness", "security_curves", "saliency"):
        described = plot(sweep, name)
        for trace in traces(described).values():
            assert {round(y, 12) for y in trace["y"]} <= known
        for panel in (panel for row in described["rows"] for panel in row["panels"]):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # plotly's own; what is tested is that no name or value is refused
                go.Figure(panel)
    curve = traces(plot(sweep, "security_curves"))["brain", "sparsity 0.98"]
    assert curve["x"] == [0.0, 0.05, 0.1, 0.2]
    assert curve["y"][0] == pytest.approx(0.95 - 0.05 * 0.98)


def test_a_point_says_its_exact_sparsity(make_sweep):
    folder = make_sweep(methods=("gradual",), levels=(0.8,), seeds=(0,))
    rows = folder / "gradual-0.8-s0" / "records.jsonl"
    rows.write_text(rows.read_text().replace('"sparsity": 0.8', '"sparsity": 0.7999924530'))
    point = traces(plot(collect(folder), "robustness"))["clean accuracy", "gradual"]["text"][0]
    assert "sparsity 0.8 (achieved 0.799992453)" in point


def test_one_seed_has_no_band_and_says_so(make_sweep):
    described = plot(collect(make_sweep(seeds=(1,))), "robustness")
    assert traces(described, "spread") == {}
    assert all("one seed: no claim" in text for trace in traces(described).values() for text in trace["text"])


def test_controls_are_grey_and_names_are_no_markup(tmp_path, write_job):
    for method, level in (("dense", 0.0), ("static", 0.9), ("<b>bold</b>", 0.9)):
        write_job(tmp_path / "s", method, level, 0, run=f"r{level}{len(method)}")
    described = plot(collect(tmp_path / "s"), "robustness")
    colors = {entry["name"]: entry["light"] for entry in described["legend"]}
    assert colors["static"] == "#777777"
    bold = traces(described)["clean accuracy", "<b>bold</b>"]
    assert bold["text"][0].startswith("<b>&lt;b&gt;bold&lt;/b&gt;</b>, sparsity 0.9")
