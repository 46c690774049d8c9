"""What a message says to write works when it is written."""

import functools
import re
import time

import pytest
import torch
from torch import nn

import settings
from lightning_sparse import (
    ACDC,
    SET,
    BrainDevelopment,
    Curve,
    GradualPruning,
    GraNet,
    IterativePruning,
    LayerRules,
    LotteryTicket,
    Recipe,
    Rewind,
    RigL,
    SparseTraining,
    SparsityError,
    SparsityMonitor,
    Static,
    apportion,
    attach,
    layer_table,
    plot_schedule,
    schedule_table,
    sparsifiable,
    sparsity_of,
    untouched,
)
from lightning_sparse.models import Classifier, lenet5, lenet_300_100

NET = nn.Linear(4, 2)
WEIGHTS, SIZES = {"a": 1.0, "b": 1.0}, {"a": 4, "b": 10}


def sgd():
    return torch.optim.SGD(NET.parameters(), lr=0.1)


def score(layer):
    return layer.weight.abs()


# What is wrong, what the message says, and the same with what it says to write.
ADVICE = [
    (
        lambda: GradualPruning(0.9, end=1.5),
        "end=1.5 .*: write 1.0 for the whole training",
        lambda: GradualPruning(0.9, end=1.0),
    ),
    (lambda: GradualPruning(0.9, end=1.5), "or 2 or more for a step", lambda: GradualPruning(0.9, end=2)),
    (lambda: GradualPruning(0.9, every=1.5), "every=1.5 .*: write 1 for that", lambda: GradualPruning(0.9, every=1)),
    (lambda: GradualPruning(0.9, end=80.0), "write 80 for that many", lambda: GradualPruning(0.9, end=80)),
    (
        lambda: GradualPruning(0.9, end=float("inf")),
        "end=inf .*: write a share such as 0.5",
        lambda: GradualPruning(0.9, end=0.5),
    ),
    (
        lambda: GradualPruning(0.9, end=float("nan")),
        "end=nan .*: write a share such as 0.5",
        lambda: GradualPruning(0.9, end=0.5),
    ),
    (
        lambda: GradualPruning(0.9, every=float("inf")),
        "every=inf .*: write a share",
        lambda: GradualPruning(0.9, every=0.5),
    ),
    (
        lambda: GradualPruning(0.9, begin=0.5, end=0.2),
        "write times in order",
        lambda: GradualPruning(0.9, begin=0.2, end=0.5),
    ),
    (
        lambda: GradualPruning(0.9, begin=500).recipe.resolve(20),
        "write them all as shares, or all as steps up to 20, in order",
        lambda: GradualPruning(0.9, begin=5, end=20).recipe.resolve(20),
    ),
    (lambda: GradualPruning(90), "write 0.9 for 90 percent", lambda: GradualPruning(0.9)),
    (
        lambda: GradualPruning(0.9, criterion="magnitud"),
        "criterion='magnitud' .*'magnitude'",
        lambda: GradualPruning(0.9, criterion="magnitude"),
    ),
    (
        lambda: GradualPruning(0.9, criterion=None),
        "criterion=None is neither a name .* nor a function",
        lambda: GradualPruning(0.9, criterion=score),
    ),
    (
        lambda: Static(0.9, criterion="gradient"),
        "^criterion='gradient' reads .*choose 'magnitude'",
        lambda: Static(0.9, criterion="magnitude"),
    ),
    (
        lambda: SparseTraining(0.9, drop="gradient"),
        "^drop='gradient' reads .* 'random'",
        lambda: SparseTraining(0.9, drop="random"),
    ),
    (lambda: GraNet(0.9, growth="grad"), "growth='grad' .*gradient", lambda: GraNet(0.9, growth="gradient")),
    (lambda: BrainDevelopment(0.9, growth=3), "growth=3 is neither", lambda: BrainDevelopment(0.9, growth=score)),
    (lambda: RigL(0.9, seed=-1), "seed=-1 .*: write 0", lambda: RigL(0.9, seed=0)),
    (
        lambda: RigL(0.9, redistribute="no"),
        "redistribute='no' is neither true nor false",
        lambda: RigL(0.9, redistribute=False),
    ),
    (lambda: LotteryTicket(0.9, reinit="no"), "reinit='no' is neither", lambda: LotteryTicket(0.9, reinit=False)),
    (lambda: SparsityMonitor("no"), "per_layer='no' is neither", lambda: SparsityMonitor(per_layer=False)),
    (
        lambda: LotteryTicket(0.9, trainings=10**6),
        "trainings=1000000 is more than 1000: write 1000",
        lambda: LotteryTicket(0.9, trainings=1000),
    ),
    (
        lambda: IterativePruning(0.9, trainings=10**6),
        "write 1000 or less",
        lambda: IterativePruning(0.9, trainings=1000),
    ),
    (
        lambda: SparseTraining(0.9, rounds=10**7),
        "rounds=10000000 is more than 10000: write",
        lambda: SparseTraining(0.9, rounds=10_000),
    ),
    (
        lambda: SparseTraining(0.9, score_batches=10**9),
        "write 1000000 or less",
        lambda: SparseTraining(0.9, score_batches=10**6),
    ),
    (
        lambda: SparseTraining(0.9, total_steps=10**18),
        "longer than any training",
        lambda: SparseTraining(0.9, total_steps=10**6),
    ),
    (
        lambda: Curve(0.0).stairs(0.5, 0.9, 10**6),
        "count=1000000 is more than 1000 jumps",
        lambda: Curve(0.0).stairs(0.5, 0.9, 1000),
    ),
    (lambda: ACDC(0.9, phase=1e-9), "write a longer phase", lambda: ACDC(0.9, phase=0.05)),
    (
        lambda: SparseTraining(0.9, include=3),
        r"include=3 is not a list: write include=\['pattern'\]",
        lambda: SparseTraining(0.9, include=["pattern"]),
    ),
    (
        lambda: SparseTraining(0.9, include="head.*"),
        r"write include=\['head.\*'\]",
        lambda: SparseTraining(0.9, include=["head.*"]),
    ),
    (
        lambda: SparseTraining(0.9, rewind=3),
        r"write rewind=Rewind\(to=0\)",
        lambda: SparseTraining(0.9, rewind=Rewind(to=0)),
    ),
    (
        lambda: SparseTraining(0.9, loss_fn=3),
        "loss_fn=3 is not a function: write one such as",
        lambda: SparseTraining(0.9, loss_fn=lambda module, batch: module(batch[0]).square().mean()),
    ),
    (lambda: Recipe(0.9), r"write sparsity=Curve\(0.9\)", lambda: Recipe(Curve(0.9))),
    (
        lambda: Recipe(Curve(0.9), turnover=0.3),
        r"write turnover=Curve\(0.3\)",
        lambda: Recipe(Curve(0.9), turnover=Curve(0.3)),
    ),
    (lambda: Curve(0.5, "abc"), r"write Curve\(0.0\).then\(0.5, 0.9\)", lambda: Curve(0.0).then(0.5, 0.9)),
    (lambda: Curve(0.5, (0.5,)), r"holds 0.5, which is no segment: write Curve", lambda: Curve(0.0).then(0.5, 0.9)),
    (
        lambda: Curve(0.0).then(0.5, 0.9, name=3),
        "name=3 of a segment .* write name='prune'",
        lambda: Curve(0.0).then(0.5, 0.9, name="prune"),
    ),
    (
        lambda: LayerRules(sparsity={3: 0.5}),
        r"holds 3, which is no pattern: write one such as {'head.\*': 0.5}",
        lambda: LayerRules(sparsity={"head.*": 0.5}),
    ),
    (
        lambda: attach(3, NET, Recipe(Curve(0.5))),
        r"optimizer=3 .* give torch.optim.SGD\(",
        lambda: attach(sgd(), NET, Recipe(Curve(0.5))),
    ),
    (
        lambda: attach(sgd(), 3, Recipe(Curve(0.5))),
        "model=3 is not a torch.nn.Module: give an object",
        lambda: attach(sgd(), NET, Recipe(Curve(0.5))),
    ),
    (
        lambda: attach(sgd(), NET, 0.9),
        r"give a Recipe\(...\) or",
        lambda: attach(sgd(), NET, GradualPruning(0.9, end=8, every=2)),
    ),
    (
        lambda: attach(sgd(), NET, Recipe(Curve(0.5)), state={}),
        "no state of an engine: give engine.state_dict",
        lambda: attach(sgd(), NET, Recipe(Curve(0.5)), state=attach(sgd(), NET, Recipe(Curve(0.5))).state_dict()),
    ),
    (
        lambda: attach(sgd(), NET, Recipe(Curve(0.5)), batches=3),
        r"write batches=\[batch\]",
        lambda: attach(sgd(), NET, Recipe(Curve(0.5)), batches=[torch.zeros(1, 4)]),
    ),
    (lambda: sparsifiable(nn.Linear), "model=<class .* is not a torch.nn.Module", lambda: sparsifiable(NET)),
    (lambda: sparsity_of(3), "model=3 is not a torch.nn.Module", lambda: sparsity_of(NET)),
    (lambda: untouched("a").__enter__(), "model='a' is not a torch.nn.Module", lambda: untouched(NET)),
    (
        lambda: layer_table({}),
        "masks={} is not a mapping .* write one such as {'weight': tensor}",
        lambda: layer_table({"weight": NET.weight > 0}),
    ),
    (
        lambda: apportion(5, {"a": 1.0}, {"a": 9, "b": 9}),
        "weights=.* is not a mapping with a number for each layer",
        lambda: apportion(5, {"a": 1.0, "b": 1.0}, {"a": 9, "b": 9}),
    ),
    (
        lambda: apportion(5, {"a": float("nan")}, {"a": 9}),
        r"weights\['a'\]=nan .*: write 1.0",
        lambda: apportion(5, {"a": 1.0}, {"a": 9}),
    ),
    (
        lambda: schedule_table(GradualPruning(0.9), most="a"),
        "most='a' .*: write 20",
        lambda: schedule_table(GradualPruning(0.9), most=20),
    ),
    (lambda: lenet_300_100((1, 8, 8), "10"), "classes='10' .*: write 10", lambda: lenet_300_100((1, 8, 8), 10)),
    (lambda: lenet5((1, 8, 8), 10), r"write shape=\(1, 28, 28\)", lambda: lenet5((1, 28, 28), 10)),
    (
        lambda: lenet_300_100((1, 8, 8), 10, width=1e9),
        "write 2.0 to double it",
        lambda: lenet_300_100((1, 8, 8), 10, width=2.0),
    ),
    (
        lambda: Classifier(3, mean=[0.5], std=[0.5]),
        "net=3 is not a torch.nn.Module",
        lambda: Classifier(NET, mean=[0.5], std=[0.5]),
    ),
    (
        lambda: Classifier(NET, mean=0.5, std=[0.5]),
        r"mean=0.5 is not a list .*: write mean=\[0.5\]",
        lambda: Classifier(NET, mean=[0.5], std=[0.5]),
    ),
    (
        lambda: Classifier(NET, mean=[0.5], std=[0]),
        r"std=\[0\] is not a list of numbers above 0.*: write std=\[0.5\]",
        lambda: Classifier(NET, mean=[0.5], std=[0.5]),
    ),
    (
        lambda: Classifier(NET, mean=[0.5], std=[0.5] * 3),
        "write a number for each channel in both",
        lambda: Classifier(NET, mean=[0.5] * 3, std=[0.5] * 3),
    ),
    (
        lambda: Classifier(NET, mean=[0.5], std=[0.5], optimizer="sgd"),
        r"write functools.partial\(torch.optim.SGD",
        lambda: Classifier(NET, mean=[0.5], std=[0.5], optimizer=functools.partial(torch.optim.SGD, lr=0.1)),
    ),
]

ADVICE += [
    (
        lambda: apportion(20, WEIGHTS, SIZES),
        r"living=20 cannot be shared by layers that take from 2 to 14 in all: write living=sum\(most.values\(\)\) or less",
        lambda: apportion(sum(SIZES.values()), WEIGHTS, SIZES),
    ),
    (lambda: apportion(1, WEIGHTS, SIZES), "or a smaller least", lambda: apportion(1, WEIGHTS, SIZES, least=0)),
    (lambda: apportion(5, WEIGHTS, SIZES, -1), "least=-1 .*: write 0", lambda: apportion(5, WEIGHTS, SIZES, 0)),
    (
        lambda: attach(sgd(), NET, RigL(0.5, every=2), total_steps=20, batches=torch.rand(2, 4).numpy()),
        r"is not a list of batches: write batches=\[batch\]",
        lambda: attach(sgd(), NET, RigL(0.5, every=2), total_steps=20, batches=[torch.rand(2, 4).numpy()]),
    ),
    (
        lambda: Recipe(Curve(0.5), birth=torch.rand(2).numpy()),
        "birth=.* is neither a name .*'?magnitude",
        lambda: Recipe(Curve(0.5), birth="magnitude"),
    ),
    (lambda: untouched(NET, "a").__enter__(), "seed='a' is not an integer .*: write 0", lambda: untouched(NET, 0)),
]


@pytest.mark.parametrize(("wrong", "message", "right"), ADVICE)
def test_what_is_said_to_write_works(wrong, message, right):
    begun = time.perf_counter()
    with pytest.raises(SparsityError, match=message):
        wrong()
    assert right() is not None
    assert time.perf_counter() - begun < 5


PLANS = [
    (lambda: GradualPruning(0.9, begin=500, end=10**12), r"write end=20 or less", lambda: GradualPruning(0.9, end=20)),
    (
        lambda: GradualPruning(0.9, every=10**9),
        "in one jump at step 15: .* write every=1",
        lambda: GradualPruning(0.9, every=1),
    ),
    (
        lambda: SparseTraining(Curve(0.0).then(10).then(10, 0.9), rewind=Rewind(to=10**9)),
        r"no weight will be taken back, .* write rewind=Rewind\(to=1\)",
        lambda: SparseTraining(Curve(0.0).then(10).then(10, 0.9), rewind=Rewind(to=1)),
    ),
    (
        lambda: SET(0.5, turnover_until=10**9, every=2),
        "turnover 0 is planned for step 1000000000, .* write 20 or less instead of 1000000000",
        lambda: SET(0.5, turnover_until=20, every=2),
    ),
    (lambda: SET(0.9, every=10**9), "no connection will be replaced .* write every=1", lambda: SET(0.9, every=1)),
]


@pytest.mark.parametrize(("wrong", "message", "right"), PLANS)
def test_plans_that_the_training_cannot_follow_are_said_at_its_start(wrong, message, right, make_trainer):
    class Stops(settings.Module):
        def training_step(self, batch, batch_idx):
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match=message), pytest.raises((SystemExit, KeyboardInterrupt)):
        make_trainer(wrong(), max_epochs=2).fit(Stops(), settings.batches())
    make_trainer(right(), max_epochs=2).fit(settings.Module(), settings.batches())  # warnings are errors


@pytest.mark.parametrize("total", [10**6, 10**9, 10**12])
def test_schedules_of_any_length_are_drawn_and_written_down_in_a_moment(total):
    figure = pytest.importorskip("matplotlib.figure")
    begun = time.perf_counter()
    table = schedule_table(GradualPruning(0.9, every=1), total)
    axes = plot_schedule(GradualPruning(0.9, every=1), total, figure.Figure().subplots())
    assert time.perf_counter() - begun < 20
    assert axes.lines[0].get_ydata()[-1] == pytest.approx(0.1)
    assert re.search(r"\(2\d of about \d+ updates\)$", table)
    assert len(table.splitlines()) < 30


def test_numbers_of_numpy_are_held_as_pythons_own_so_that_checkpoints_load():
    np = pytest.importorskip("numpy")
    recipe = GradualPruning(np.float64(0.9), end=np.float64(0.5), every=np.float64(0.1)).recipe
    assert recipe == GradualPruning(0.9, end=0.5, every=0.1).recipe
    flat = [recipe.every, recipe.sparsity.start, *(x for s in recipe.sparsity.segments for x in (s.end, s.value))]
    assert {type(number) for number in flat} <= {int, float}


def test_a_seed_of_none_is_zero():
    assert RigL(0.9, seed=None).recipe == RigL(0.9, seed=0).recipe
