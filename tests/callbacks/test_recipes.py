"""The ready-made methods: their curves, and what they refuse."""

import pytest

from lightning_sparse import BrainDevelopment, GradualPruning, SparseTraining, SparsityError


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
        (lambda: GradualPruning(0.9, include="head.*"), r"include=\['pattern'"),
        (lambda: BrainDevelopment(0.9, sparsity_at_densest=0.8), "nothing would grow"),
        (lambda: BrainDevelopment(0.1), "nothing would be pruned"),
        (lambda: BrainDevelopment(0.9, densest_at=0.7), "densest_at=0.7 is after pruned_by=0.65"),
        (lambda: BrainDevelopment(0.9, turnover=1.4), "turnover=1.4"),
        (lambda: BrainDevelopment(0.9, growth="gradent"), "did you mean 'gradient'"),
        (lambda: SparseTraining(1.0), "sparsity=1.0"),
        (lambda: SparseTraining(0.9, drop="gradient"), "none before the first step"),
        (lambda: BrainDevelopment(0.9, criterion="gradient"), "choose 'magnitude' or 'random'"),
        (lambda: GradualPruning(0.9, seed="x"), "write seed=0"),
        (lambda: GradualPruning(0.9, include=[1]), r"include=\['pattern'"),
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
