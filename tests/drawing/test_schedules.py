"""Pictures and tables of schedules, read back and compared with the schedules."""

import subprocess
import sys
from itertools import pairwise

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from lightning_sparse import ACDC, SET, BrainDevelopment, GradualPruning, GraNet, OneShot, RigL, Static
from lightning_sparse.drawing.schedules import plot_schedule, schedule_table
from lightning_sparse.engine.recipe import Recipe
from lightning_sparse.engine.schedules import Curve, cubic
from lightning_sparse.errors import SparsityError

METHODS = {
    "static": Static(0.9),
    "one-shot": OneShot(0.9),
    "gradual": GradualPruning(0.9, begin=0.1),
    "SET": SET(0.9),
    "RigL": RigL(0.9),
    "GraNet": GraNet(0.9),
    "AC/DC": ACDC(0.9),
    "brain": BrainDevelopment(0.9, pruning_turnover=0.1),
    "stairs": Recipe(Curve(0.0).stairs(0.8, 0.9, 5, "exponential", name="round")),
}


@pytest.fixture(params=METHODS)
def method(request):
    return METHODS[request.param]


@pytest.fixture
def axes():
    return Figure(layout="constrained").subplots()


def plan_of(method, total):
    return getattr(method, "recipe", method).resolve(total)


def drawn(axes):
    """What the line says at every step: a value holds until the next one."""
    steps, heights = axes.lines[0].get_xydata().T
    assert axes.lines[0].get_drawstyle() == "steps-post"
    return lambda step: heights[np.searchsorted(steps, step, side="right") - 1]


def test_the_line_is_the_density_that_each_update_leaves(method, axes):
    plan = plan_of(method, 600)
    plot_schedule(method, 600, axes)
    line, density = drawn(axes), 1.0
    for step in range(601):
        if plan.due(step):
            density = 1 - plan.sparsity(step)
        assert line(step) == density
    assert axes.get_xlim() == (0, 600)
    assert axes.get_ylabel() == axes.lines[0].get_label() == "density"


def test_a_bar_is_the_turnover_at_an_update(method, axes):
    plan = plan_of(method, 600)
    plot_schedule(method, 600, axes)
    expected = {step: plan.turnover_at(step) for step in range(601) if plan.turnover_at(step) > 0}
    bars = [bar for part in axes.collections if "turnover" in part.get_label() for bar in part.get_segments()]
    assert {x: top for (x, _), (_, top) in bars} == expected
    assert all(below[1] == 0 and below[0] == above[0] for below, above in bars)


def test_by_hand():
    axes = plot_schedule(Recipe(cubic(0.8, end=100), every=50), 200, Figure().subplots())
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[0, 1.0], [50, 0.3], [100, 0.2], [200, 0.2]])


@pytest.mark.parametrize(
    "curve",
    [
        Curve(0.4),
        Curve(0.3).then(0.75, 0.0, "cosine"),
        Curve(1.0).then(0.2, 0.5, "linear").stairs(0.6, 0.1, 4).then(1.0, 0.9, "exponential"),
    ],
)
def test_a_curve_alone_is_drawn_as_it_is(curve, axes):
    assert plot_schedule(curve, 700, axes) is axes
    line, plan = drawn(axes), curve.resolve(700)
    assert all(line(step) == plan(step) for step in range(701))
    assert axes.get_ylabel() == "value"


def test_a_curve_of_a_long_training_is_drawn_at_a_thousand_steps_and_at_every_turn(axes):
    curve = Curve(0.0).then(12_345, 0.5, "linear").then(66_666).then(66_667, 0.9).then(99_999, 0.1)
    plot_schedule(curve, 100_000, axes)
    steps = axes.lines[0].get_xdata()
    assert {0, 12_345, 66_666, 66_667, 100_000} <= set(steps)
    assert len(steps) < 300
    line = drawn(axes)
    assert max(abs(line(step) - curve(step)) for step in range(0, 100_001, 7)) <= 0.5 * 100 / 12_345


def test_phases_are_shaded_in_turn_and_named():
    axes = plot_schedule(METHODS["brain"], 1000, Figure(figsize=(9, 3)).subplots())
    named = {text.get_text(): text.get_position()[0] for text in axes.texts}
    assert named == {"grow": 100, "prune": 425, "turnover": 775, "rest": 950}
    shaded = [(band.get_x(), band.get_x() + band.get_width()) for band in axes.patches]
    assert shaded == [(200, 650), (900, 1000)]


def test_names_stay_inside_their_phases():
    figure = Figure(figsize=(4, 2.5), layout="constrained")
    axes = plot_schedule(METHODS["AC/DC"], 1000, figure.subplots())
    figure.draw_without_rendering()
    ends = [0, 100, *range(150, 751, 50), 850, 1000]
    phases = list(pairwise(ends))
    assert [text.get_text() for text in axes.texts] == ["dense", "dense", "sparse"]  # that have room
    for text in axes.texts:
        box = text.get_window_extent().transformed(axes.transData.inverted())
        begin, end = next((b, e) for b, e in phases if b < text.get_position()[0] < e)
        assert begin <= box.x0 < box.x1 <= end


def test_a_constant_sparsity_lends_its_phases_from_the_turnover():
    axes = plot_schedule(METHODS["SET"], 1000, Figure(figsize=(9, 3)).subplots())
    assert [text.get_text() for text in axes.texts] == ["turnover", "rest"]


def test_line_bars_and_bands_differ_in_grey(axes):
    plot_schedule(METHODS["GraNet"], 1000, axes)
    (bars,) = (part for part in axes.collections if "turnover" in part.get_label())
    colours = [axes.lines[0].get_color(), bars.get_color()[0], axes.patches[0].get_facecolor()]
    greys = [float(np.dot(to_rgb(colour), [0.299, 0.587, 0.114])) for colour in colours]
    assert greys == sorted(greys)
    assert min(np.diff(greys)) > 0.2


def test_a_figure_of_its_own_has_a_legend_and_leaves_the_readers_settings_alone(axes):
    settings = dict(matplotlib.rcParams)
    try:
        own = plot_schedule(METHODS["brain"], 1000)
        assert dict(matplotlib.rcParams) == settings
        assert pyplot.gcf() is own.figure
        (legend,) = own.figure.legends
        assert legend.get_texts()[0].get_text() == "density"
    finally:
        pyplot.close("all")
    with matplotlib.rc_context({"lines.linewidth": 5}):
        plot_schedule(METHODS["brain"], 1000, axes)
    assert axes.lines[0].get_linewidth() == 5
    assert axes.figure.legends == []
    assert pyplot.get_fignums() == []


def test_the_table_has_a_line_for_each_update_and_its_numbers(method):
    plan = plan_of(method, 600)
    text = schedule_table(method, 600, most=None)
    lines = text.splitlines()
    assert len({len(line) for line in lines}) == 1  # aligned
    due = [step for step in range(601) if plan.due(step)]
    assert [int(line.split()[0]) for line in lines[1:]] == due
    for step, line in zip(due, lines[1:], strict=True):
        *_, sparsity, density, turnover = line.split()
        assert float(line.split()[1]) == pytest.approx(step / 6, abs=0.05)
        assert float(sparsity) == pytest.approx(100 * plan.sparsity(step), abs=0.005)
        assert float(density) == pytest.approx(100 - 100 * plan.sparsity(step), abs=0.005)
        assert float(turnover) == pytest.approx(100 * plan.turnover_at(step), abs=0.005)


def test_a_long_table_is_thinned_but_keeps_first_last_and_every_change_of_phase():
    lines = schedule_table(METHODS["brain"], 1000, most=12).splitlines()
    assert lines[-1] == "(12 of 90 updates)"
    steps = [int(line.split()[0]) for line in lines[1:-1]]
    assert len(steps) == 12
    assert steps == sorted(set(steps))
    assert {0, 200, 650, 890} <= set(steps)  # first, prune, turnover, last
    assert max(np.diff(steps)) < 170  # spread over all of it
    assert len(schedule_table(METHODS["brain"], 1000).splitlines()) == 1 + 20 + 1
    assert len(schedule_table(METHODS["AC/DC"], 1000, most=3).splitlines()) == 1 + 15  # each is a change of phase


def test_the_table_by_hand():
    recipe = Recipe(
        Curve(0.5).stairs(80, 0.75, 2, name="prune").then(100, name="the end"), turnover=Curve(0.3), every=60
    )
    assert schedule_table(recipe, 120).splitlines() == [
        "step  training %  phase    sparsity %  density %  turnover %",
        "   0         0.0  prune 0       50.00      50.00        0.00",
        "  40        33.3  prune 1       62.50      37.50        0.00",
        "  60        50.0  prune 1       62.50      37.50       30.00",
        "  80        66.7  the end       75.00      25.00        0.00",
        " 120       100.0  the end       75.00      25.00       30.00",
    ]


def test_no_update_no_line():
    assert schedule_table(Recipe(Curve(0.0)), 100) == "step  training %  phase  sparsity %  density %  turnover %"


def test_without_total_steps_the_schedule_gives_the_length_or_is_refused(axes):
    steps = Recipe(cubic(0.9, begin=100, end=300), every=50)
    assert plot_schedule(steps, None, axes).get_xlim() == (0, 300)
    assert plot_schedule(steps.sparsity, None, axes).get_xlim() == (0, 300)
    assert schedule_table(steps, None) == schedule_table(steps, 300)
    for act in (plot_schedule, schedule_table):
        with pytest.raises(SparsityError, match=r"a share of the training .* pass total_steps="):
            act(GradualPruning(0.9), None)
    with pytest.raises(SparsityError, match=r"a share of the training \(0.5\)"):
        plot_schedule(Curve(0.0).then(0.5, 0.9, "linear"), None, axes)
    with pytest.raises(SparsityError, match="no end of its own: write total_steps=1000"):
        plot_schedule(Curve(0.9), None, axes)


def test_the_recipes_own_length_wins(axes):
    assert plot_schedule(GradualPruning(0.9, total_steps=400), 1000, axes).get_xlim() == (0, 400)
    assert schedule_table(GradualPruning(0.9, total_steps=400)).splitlines()[-2].split()[0] == "300"


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (
            lambda: plot_schedule(RigL(0.9, turnover_until=5000)),
            "before the schedule does, at step 5000: write total_steps=5000",
        ),
        (lambda: schedule_table(Recipe(cubic(0.9, end=300)), 200), "total_steps=200"),
        (lambda: schedule_table(Curve(0.9)), r"write Recipe\(curve\)"),
        (lambda: plot_schedule("cubic"), "schedule='cubic' is no recipe"),
        (lambda: plot_schedule(Curve(0.9), 0), "total_steps=0 is not an integer of at least 1"),
        (lambda: schedule_table(Static(0.9), 0.5), "total_steps=0.5 is not an integer of at least 1"),
    ],
)
def test_what_cannot_be_shown_is_refused_with_what_to_write(act, message):
    with pytest.raises(SparsityError, match=message):
        act()
    assert pyplot.get_fignums() == []


def test_without_matplotlib_there_are_tables_and_a_clear_message(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SparsityError, match=r'matplotlib could not be imported.*"lightning-sparse\[app\]"'):
        plot_schedule(METHODS["brain"])
    assert schedule_table(METHODS["brain"]).startswith("step")


def test_importing_it_imports_neither_matplotlib_nor_lightning():
    code = "import sys, lightning_sparse.drawing.schedules; print(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert "torch" in loaded
    assert not loaded & {"matplotlib", "lightning", "pandas"}
