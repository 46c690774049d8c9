"""The ready-made methods: their curves, and what they refuse."""

import math

import pytest

from lightning_sparse import (
    ACDC,
    SET,
    SNFS,
    SNIP,
    BrainDevelopment,
    DenseSparseDense,
    GradualPruning,
    GraNet,
    GraSP,
    GrowAndPrune,
    LotteryTicket,
    OneShot,
    RigL,
    SparseTraining,
    SparsityError,
    Static,
    SynFlow,
)


def test_gradual_pruning_follows_zhu_and_gupta_at_every_update(module, loader, make_trainer):
    callback = GradualPruning(0.9, initial_sparsity=0.2, begin=5, end=30, every=4)
    make_trainer(callback).fit(module(), loader)
    steps = [update.step for update in callback.history]
    assert steps == [0, 9, 13, 17, 21, 25, 29, 30]
    total = callback.masks.total
    for update in callback.history:
        progress = max(update.step - 5, 0) / 25
        asked = 0.9 + (0.2 - 0.9) * (1 - progress) ** 3
        assert update.asked == pytest.approx(asked)
        assert round(update.sparsity * total) == round(asked * total)
        assert update.born == 0


def test_brain_development_is_born_sparse_grows_prunes_and_turns_over(module, loader, make_trainer):
    callback = BrainDevelopment(0.9, turnover=0.4, every=1)
    make_trainer(callback, max_epochs=10).fit(module(), loader)
    history = {update.step: update for update in callback.history}
    total = callback.masks.total
    assert round(history[0].sparsity * total) == round(0.7 * total)
    assert round(history[20].sparsity * total) == round(0.2 * total)
    assert round(history[65].sparsity * total) == round(0.9 * total)
    assert all(history[step].born > history[step].died for step in range(1, 20))
    assert all(history[step].died > history[step].born for step in range(21, 60))
    for step in range(66, 90):
        assert history[step].sparsity == history[65].sparsity
        assert history[step].died == history[step].born == history[step].replaced
        assert history[step].turnover == pytest.approx(0.4, abs=0.01)
    assert max(history) == 89  # then it rests
    assert [history[step].phase for step in (5, 30, 70)] == ["grow", "prune", "turnover"]


@pytest.mark.parametrize("growth", ["gradient", "momentum", "random"])
def test_growth_by_gradient_momentum_or_at_random(growth, module, loader, make_trainer):
    callback = BrainDevelopment(0.9, growth=growth)
    make_trainer(callback).fit(module(), loader)
    assert sum(update.born for update in callback.history) > 1000


# The phases of a training of 1000 steps: where each begins, by hand from the docstrings.
PHASES = [
    (Static(0.9), {0: ""}),
    (SNIP(0.9), {0: ""}),
    (OneShot(0.9, at=0.3), {0: "dense", 300: "sparse"}),
    (OneShot(0.9, at=0), {0: ""}),
    (GradualPruning(0.9, begin=0.1), {0: "before", 100: "prune", 750: "rest"}),
    (RigL(0.9), {0: ""}),
    (GraNet(0.9), {0: "prune", 700: "rest"}),
    (DenseSparseDense(0.5), {0: "dense", 400: "sparse", 700: "dense again"}),
    (LotteryTicket(0.9, trainings=3), {0: "training 1", 333: "training 2", 667: "training 3"}),
    (LotteryTicket(0.9, trainings=3, rewind_to=0.25), {0: "training 1", 400: "training 2", 700: "training 3"}),
    (GrowAndPrune(0.9), {0: "grow", 300: "prune", 750: "rest"}),
    (BrainDevelopment(0.9), {0: "grow", 200: "prune", 650: "turnover", 900: "rest"}),
    (BrainDevelopment(0.9, turnover=0.0), {0: "grow", 200: "prune", 650: "rest"}),
]


@pytest.mark.parametrize(("method", "phases"), PHASES, ids=lambda value: type(value).__name__)
def test_phases_bear_names_and_begin_where_the_docstring_says(method, phases):
    curve = method.recipe.resolve(1000).sparsity
    names = [curve.phase(step) for step in range(1001)]
    assert {step: names[step] for step in range(1001) if step == 0 or names[step] != names[step - 1]} == phases


def test_ac_dc_is_sparse_in_the_epochs_in_which_peste_et_al_are():
    """Of 100 epochs on ImageNet: ten dense, then five and five, dense from 75, sparse from 85."""
    curve = ACDC(0.9).recipe.resolve(1000).sparsity
    sparse = {step // 10 for step in range(1000) if curve(step) == 0.9}
    assert sparse == {epoch for begin in range(10, 75, 10) for epoch in range(begin, begin + 5)} | {*range(85, 100)}
    assert {curve(step) for step in range(1001)} == {0.0, 0.9}


def test_a_lottery_ticket_loses_the_same_share_of_the_living_each_time():
    curve = LotteryTicket(1 - 0.8**10, trainings=11).recipe.resolve(1100).sparsity
    assert [curve(100 * i) for i in range(11)] == [pytest.approx(1 - 0.8**i) for i in range(11)]


@pytest.mark.parametrize(
    ("method", "first", "until", "updates"),
    [
        (SET(0.9, turnover=0.2), lambda step: 0.2, 900, range(100, 900, 100)),
        (RigL(0.9), lambda step: 0.15 * (1 + math.cos(math.pi * step / 750)), 750, range(100, 750, 100)),
        (SNFS(0.9), lambda step: 0.25 * (1 + math.cos(math.pi * step / 900)), 900, range(100, 900, 100)),
        (GraNet(0.9), lambda step: 0.25 * (1 + math.cos(math.pi * step / 700)), 700, range(10, 700, 10)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_turnover_falls_as_the_papers_say_and_ends_in_time(method, first, until, updates):
    plan = method.recipe.resolve(1000)
    assert [step for step in range(1001) if plan.turnover_at(step)] == [*updates]
    assert all(plan.turnover_at(step) == pytest.approx(first(step)) for step in updates)
    assert not any(plan.turnover_at(step) for step in range(until, 1001))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GradualPruning(1.5), r"final_sparsity=1.5 is not a share in \[0, 1\)"),
        (lambda: GradualPruning(90), "write 0.9 for 90 percent"),
        (lambda: GradualPruning("0.9"), "is not a number"),
        (lambda: GradualPruning(1.0), "final_sparsity=1.0"),
        (lambda: GradualPruning(0.9, initial_sparsity=0.95), "is above final_sparsity"),
        (lambda: GradualPruning(0.9, begin=0.8, end=0.5), "begin=0.8 is after end=0.5"),
        (lambda: GradualPruning(0.9, begin=800, end=500), "begin=800 is after end=500"),
        (lambda: GradualPruning(0.9, end=1), "write 1.0 for the whole training"),
        (lambda: GradualPruning(0.9, criterion="magnitud"), "did you mean 'magnitude'"),
        (lambda: GradualPruning(0.9, allocation="globl"), "did you mean 'global'"),
        (lambda: GradualPruning(0.9, include="head.*"), r"include=\['head"),
        (
            lambda: BrainDevelopment(0.9, sparsity_at_densest=0.8),
            "sparsity_at_densest=0.8 is above birth_sparsity=0.7: write sparsity_at_densest=0.7 or less",
        ),
        (
            lambda: BrainDevelopment(0.1),
            "sparsity_at_densest=0.2 is above final_sparsity=0.1: write sparsity_at_densest=0.1 or less",
        ),
        (lambda: BrainDevelopment(0.9, densest_at=0.7), "densest_at=0.7 is after pruned_by=0.65"),
        (lambda: BrainDevelopment(0.9, turnover=1.4), "turnover=1.4"),
        (lambda: BrainDevelopment(0.9, growth="gradent"), "did you mean 'gradient'"),
        (lambda: SparseTraining(1.0), "sparsity=1.0"),
        (lambda: SparseTraining(0.9, drop="gradient"), "none before the first step"),
        (lambda: BrainDevelopment(0.9, criterion="gradient"), "choose 'magnitude' or 'random'"),
        (lambda: GradualPruning(0.9, seed="x"), "seed=.x. is not an integer in .*: write 0"),
        (lambda: GradualPruning(0.9, include=[1]), r"include=\['pattern"),
        (lambda: Static(90), "final_sparsity=90 .*write 0.9 for 90 percent"),
        (
            lambda: Static(0.9, criterion="fisher"),
            "criterion='fisher' reads gradients, and there are none before the first",
        ),
        (lambda: Static(0.9, allocation="ekr"), "allocation='ekr' does not exist: did you mean 'erk'"),
        (lambda: OneShot(1.0), r"final_sparsity=1.0 is not a share in \[0, 1\)"),
        (lambda: OneShot(0.9, at=1), "at=1 is optimizer step 1: write 1.0 for the whole training, or 2 or more"),
        (lambda: OneShot(0.9, at=50.0), "at=50.0 .*write 50 for that many optimizer steps"),
        (lambda: OneShot(0.9, at=True), "at=True is not a time"),
        (lambda: OneShot(0.9, at=0, criterion="gradient"), "choose 'magnitude' or 'random', or start at sparsity 0"),
        (lambda: OneShot(0.9, criterion="fischer"), "did you mean 'fisher'"),
        (lambda: SNIP(1.0), "final_sparsity=1.0"),
        (lambda: SNIP(0.9, rounds=0), "rounds=0 is not an integer of at least 1: write"),
        (lambda: SNIP(0.9, rounds=2.0), "rounds=2.0 is not an integer of at least 1: write"),
        (lambda: SNIP(0.9, score_batches=0), "score_batches=0 is not an integer of at least 1: write"),
        (lambda: GraSP(-0.1), "final_sparsity=-0.1"),
        (lambda: GraSP(0.9, score_batches="2"), "score_batches='2' is not an integer of at least 1: write"),
        (lambda: SynFlow(1), "final_sparsity=1 "),
        (lambda: SynFlow(0.99, rounds=True), "rounds=True is not an integer of at least 1: write"),
        (lambda: SET(0.9, turnover=30), "turnover=30 .*write 0.3 for 30 percent"),
        (lambda: SET(0.9, turnover_until=1), "turnover_until=1 is optimizer step 1: write 1.0"),
        (lambda: SET(0.9, every=0), "every=0 steps is not an interval: write 1"),
        (lambda: RigL(1.0), "final_sparsity=1.0"),
        (lambda: RigL(0.9, turnover=-0.1), "turnover=-0.1"),
        (lambda: RigL(0.9, turnover_until=750.0), "turnover_until=750.0 .*write 750 for that many optimizer steps"),
        (lambda: RigL(0.9, every=-5), "every=-5 is negative"),
        (lambda: SNFS(2), "final_sparsity=2"),
        (lambda: SNFS(0.9, turnover="0.5"), "turnover='0.5' is not a number"),
        (lambda: SNFS(0.9, turnover_until="all"), "turnover_until='all' is not a time"),
        (lambda: GraNet(0.0), "initial_sparsity=0.5 is above final_sparsity=0.0: write initial_sparsity=0.0 or less"),
        (lambda: GraNet(0.9, initial_sparsity=1.0), "initial_sparsity=1.0"),
        (lambda: GraNet(0.9, end=1), "end=1 is optimizer step 1"),
        (lambda: GraNet(0.9, turnover=2), "turnover=2"),
        (lambda: GraNet(0.9, turnover_until=7.0), "turnover_until=7.0 .*write 7"),
        (lambda: GraNet(0.9, growth="gradent"), "did you mean 'gradient'"),
        (lambda: ACDC(1.0), "final_sparsity=1.0"),
        (lambda: ACDC(0.9, warmup=1), "warmup=1 is optimizer step 1"),
        (lambda: ACDC(0.9, phase=0.0), "phase=0.0, .*more than a thousand phases; write a longer phase"),
        (lambda: ACDC(0.9, phase=5), "phase=5, .*mix steps and shares: write them all as"),
        (lambda: ACDC(0.9, warmup=0.8), "warmup=0.8 is after dense_from=0.75: write times in order"),
        (lambda: ACDC(0.9, sparse_from=0.5), "dense_from=0.75 is after sparse_from=0.5: write times in order"),
        (lambda: DenseSparseDense(50), "sparsity=50 .*write 0.5 for 50 percent"),
        (lambda: DenseSparseDense(sparse_from=0.8), "sparse_from=0.8 is after dense_from=0.7: write times in order"),
        (lambda: DenseSparseDense(dense_from=1.2), "dense_from=1.2"),
        (
            lambda: GrowAndPrune(0.4),
            "sparsity_at_densest=0.5 is above final_sparsity=0.4: write sparsity_at_densest=0.4 or less",
        ),
        (lambda: GrowAndPrune(0.9, seed_sparsity=0.3), "sparsity_at_densest=0.5 is above seed_sparsity=0.3"),
        (lambda: GrowAndPrune(0.9, seed_sparsity=1.0), "seed_sparsity=1.0"),
        (lambda: GrowAndPrune(0.9, grown_at=1), "grown_at=1 is optimizer step 1"),
        (lambda: GrowAndPrune(0.9, grown_at=0.8), "0.8.*write times in order"),
        (lambda: GrowAndPrune(0.9, pruned_by=7.5), "pruned_by=7.5"),
        (lambda: BrainDevelopment(0.9, pruning_turnover=1.5), "pruning_turnover=1.5"),
        (lambda: LotteryTicket(0.9, trainings=1), "trainings=1 is not an integer of at least 2: write 2 or more"),
        (lambda: LotteryTicket(0.9, rewind_to=1.0), r"rewind_to=1.0 is not a share in \[0, 1\)"),
        (lambda: SynFlow(0.9, granularity="3:2"), "granularity='3:2'"),
        (lambda: ACDC(0.9, total_steps=0), "total_steps=0 is not an integer of at least 1: write"),
        (lambda: SNFS(0.9, seed=1.5), "seed=1.5 is not an integer in .*: write 0"),
    ],
)
def test_bad_input_is_refused_with_what_to_write(make, message):
    with pytest.raises(SparsityError, match=message):
        make()


def test_what_does_not_fit_the_model_is_refused_before_training(module, loader, make_trainer):
    class Untrained(module):
        def training_step(self, batch, batch_idx):
            raise AssertionError("training has started")

    with pytest.raises(SparsityError, match="matches no parameter"):
        make_trainer(GradualPruning(0.9, include=["hed.*"])).fit(Untrained(), loader)
    with pytest.raises(SparsityError, match="for 3 layers"):
        make_trainer(GradualPruning(0.9999)).fit(Untrained(), loader)
    with pytest.raises(SparsityError, match="go backwards"):
        make_trainer(GradualPruning(0.9, begin=35, end=0.5)).fit(Untrained(), loader)


def test_repr_of_the_plan_ablations_are_arguments():
    no_birth = BrainDevelopment(0.9, birth_sparsity=0.2).recipe.resolve(1000)
    assert [no_birth.sparsity(step) for step in (0, 100, 200)] == [0.2, 0.2, 0.2]
    no_growth = BrainDevelopment(0.9, sparsity_at_densest=0.7).recipe.resolve(1000)
    assert no_growth.sparsity(200) == 0.7
    no_turnover = BrainDevelopment(0.9, turnover=0.0).recipe.resolve(1000)
    assert not any(no_turnover.due(step) for step in range(651, 1001))
