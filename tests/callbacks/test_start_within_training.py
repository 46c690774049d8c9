"""A callback that comes to a training under way: its plan covers the steps that remain."""

import logging

import pytest
from lightning.pytorch.callbacks import GradientAccumulationScheduler, ModelCheckpoint
from torch.utils.data import DataLoader, IterableDataset

from lightning_sparse import GradualPruning, LotteryTicket, OneShot, SparsityError, Static, steps_of_one_training
from settings import SAFE, Module, batches, dead_are_zero, digits, exact, quiet, same_state

# Going on without the ModelCheckpoint that saved, or with other callbacks, is what these tests are about.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended"),
]

# Older ones repeat a batch.
WITHIN = pytest.param(
    27,
    marks=pytest.mark.skipif(
        not hasattr(quiet().fit_loop, "restarted_mid_epoch"), reason="this Lightning does not resume within an epoch"
    ),
)
METHODS = {"gradual": GradualPruning, "one shot": OneShot, "ticket": LotteryTicket, "ticket, rewound to a step": None}
METHODS["ticket, rewound to a step"] = lambda s: LotteryTicket(s, rewind_to=0.2)


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    """Checkpoints of a dense training: its end (40 steps), and within its third epoch (after 27)."""
    folder = tmp_path_factory.mktemp("dense")
    saves = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=9, save_top_k=-1)
    trainer = quiet(saves, max_epochs=4, enable_checkpointing=True)
    trainer.fit(Module(), batches())
    trainer.save_checkpoint(folder / "end.ckpt")
    return {40: folder / "end.ckpt", 27: folder / "step=27.ckpt"}


LENGTHS = {"epochs": ({"max_epochs": 8}, 80), "steps": ({"max_epochs": -1, "max_steps": 75}, 75)}
LENGTHS["both"] = ({"max_epochs": 8, "max_steps": 67}, 67)


@pytest.mark.parametrize(("length", "end"), LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("begin", [40, WITHIN])
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_every_plan_ends_with_the_training_at_its_target(method, begin, length, end, dense):
    callback, module = method(0.9), Module()
    trainer = quiet(callback, **length)
    trainer.fit(module, batches(), ckpt_path=dense[begin], **SAFE)
    assert trainer.global_step == end
    assert callback.engine.clock == end - begin
    assert callback.engine.plan == callback.recipe.resolve(end - begin)
    assert exact(callback.masks, 0.9)
    assert dead_are_zero(module, callback.masks)


def test_it_says_where_it_starts_and_integers_count_from_there(dense, caplog):
    callback = GradualPruning(0.9, begin=10, end=30, every=5)
    with caplog.at_level(logging.INFO, "lightning.pytorch.utilities.rank_zero"):
        quiet(callback, max_epochs=8).fit(Module(), batches(), ckpt_path=dense[40], **SAFE)
    assert [update.step for update in callback.history] == [15, 20, 25, 30]
    said = [record.message for record in caplog.records if "starts at step" in record.message]
    assert said == [
        "GradualPruning starts at step 40 of the training: shares are shares of the 40 steps that remain, and steps count "
        "from here"
    ]
    caplog.clear()
    with caplog.at_level(logging.INFO, "lightning.pytorch.utilities.rank_zero"):
        quiet(GradualPruning(0.9), max_epochs=1).fit(Module(), batches())
    assert "starts at step" not in caplog.text


def test_a_plan_too_long_for_what_remains_is_said(dense):
    with pytest.warns(UserWarning, match="planned for step 60, and this training has 40 steps: write end=40 or less"):
        quiet(GradualPruning(0.9, end=60), max_epochs=8).fit(Module(), batches(), ckpt_path=dense[40], **SAFE)


def test_what_began_within_a_training_resumes_as_if_it_had_never_stopped(dense, tmp_path):
    def run(path, **arguments):
        module, callback = Module(), LotteryTicket(0.9, trainings=3)
        trainer = quiet(callback, **arguments)
        trainer.fit(module, batches(), ckpt_path=path, **SAFE)
        return module, callback, trainer

    whole = run(dense[40], max_epochs=8)

    class Stop(ModelCheckpoint):
        def on_train_epoch_end(self, trainer, *_):
            if trainer.global_step == 60:
                trainer.save_checkpoint(tmp_path / "half.ckpt")
                trainer.should_stop = True

    callback = LotteryTicket(0.9, trainings=3)
    with pytest.warns(UserWarning, match="training stopped at step"):
        quiet(callback, Stop(tmp_path), max_epochs=8, enable_checkpointing=True).fit(
            Module(), batches(), ckpt_path=dense[40], **SAFE
        )
    resumed = run(tmp_path / "half.ckpt", max_epochs=8)  # no warning: the length is what it was
    assert resumed[1].engine.clock == whole[1].engine.clock == 40
    assert resumed[1].engine.plan == whole[1].engine.plan
    assert resumed[1].history == whole[1].history
    assert same_state(resumed[0], whole[0])


def test_a_second_fit_with_a_new_callback_plans_over_what_is_new():
    module, trainer = Module(), quiet(max_epochs=2)
    trainer.fit(module, batches())
    callback = GradualPruning(0.9)
    trainer.callbacks.append(callback)
    trainer.fit_loop.max_epochs = 5
    trainer.fit(module, batches())
    assert callback.engine.clock == 30
    assert callback.engine.plan == callback.recipe.resolve(30)
    assert exact(callback.masks, 0.9)


def test_a_second_fit_with_the_same_callback_keeps_its_steps_and_says_so():
    callback = GradualPruning(0.9)
    module, trainer = Module(), quiet(callback, max_epochs=2)
    trainer.fit(module, batches())
    trainer.fit_loop.max_epochs = 5
    with pytest.warns(UserWarning, match=r"length has changed .* up to step 15"):
        trainer.fit(module, batches())
    assert callback.engine.clock == 50
    assert exact(callback.masks, 0.9)


def test_masks_of_another_training_do_not_come_along(dense):
    callback = GradualPruning(0.9)
    quiet(callback, max_epochs=1).fit(Module(), batches())
    quiet(callback, max_epochs=8).fit(Module(), batches(), ckpt_path=dense[40], **SAFE)
    assert callback.engine.clock == 40
    assert callback.engine.plan == callback.recipe.resolve(40)


def test_a_network_born_sparse_is_pruned_where_the_training_stands(dense):
    callback, module = Static(0.9), Module()
    quiet(callback, max_epochs=5).fit(module, batches(), ckpt_path=dense[40], **SAFE)
    assert [update.step for update in callback.history] == [0]
    assert exact(callback.masks, 0.9)


# Accumulation that changes between epochs: ten batches an epoch, five epochs.
SCHEDULES = {
    "four": ({0: 4}, 15),  # 3 a epoch
    "one, then eight": ({0: 1, 1: 8}, 10 + 4 * 2),
    "from the second on": ({1: 3, 3: 10}, 10 + 2 * 4 + 2),
    "all at once": ({0: 100}, 5),
}


@pytest.mark.parametrize("most", [-1, 4, 13])
@pytest.mark.parametrize(("schedule", "steps"), SCHEDULES.values(), ids=SCHEDULES)
def test_a_schedule_of_accumulation_is_read(schedule, steps, most):
    steps = steps if most == -1 else min(steps, most)
    callback, module = GradualPruning(0.9), Module()
    trainer = quiet(callback, GradientAccumulationScheduler(schedule), max_epochs=5, max_steps=most)
    trainer.fit(module, batches())
    assert trainer.global_step == callback.engine.clock == steps
    assert callback.engine.plan == callback.recipe.resolve(steps)
    assert exact(callback.masks, 0.9)
    assert dead_are_zero(module, callback.masks)


@pytest.mark.parametrize("begin", [40, WITHIN])
def test_the_schedule_of_what_remains(begin, dense):
    callback = GradualPruning(0.9)
    trainer = quiet(callback, GradientAccumulationScheduler({0: 1, 2: 4, 6: 2}), max_epochs=8)
    trainer.fit(Module(), batches(), ckpt_path=dense[begin], **SAFE)
    # Lightning does not ask the scheduler in the epoch that it resumes half-way, whose last three batches are three steps.
    steps = 2 * 3 + 2 * 5 + (0 if begin == 40 else 3 + 3)
    assert trainer.global_step - begin == callback.engine.clock == steps
    assert callback.engine.plan == callback.recipe.resolve(steps)
    assert exact(callback.masks, 0.9)


def test_one_training_of_a_ticket_is_as_long_as_the_schedule_makes_it():
    class Asks(Module):
        def configure_optimizers(self):
            self.steps = steps_of_one_training(self.trainer)
            return super().configure_optimizers()

    module, callback = Asks(), LotteryTicket(0.9, trainings=3)
    quiet(callback, GradientAccumulationScheduler({0: 1, 1: 4}), max_epochs=6).fit(module, batches())
    assert callback.engine.clock == 10 + 5 * 3
    assert module.steps == round(25 / 3)
    assert exact(callback.masks, 0.9)


def test_a_schedule_does_not_give_a_stream_a_length():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(digits())

    def fit(callback):
        quiet(callback, GradientAccumulationScheduler({0: 4}), max_epochs=2).fit(Module(), DataLoader(Stream(), 64))

    with pytest.raises(SparsityError, match="total_steps="):
        fit(GradualPruning(0.9))
    callback = GradualPruning(0.9, total_steps=6)
    fit(callback)
    assert callback.engine.clock == 6
    assert exact(callback.masks, 0.9)
