"""Going on: from a checkpoint, in a second fit, and what may not be changed on the way."""

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_sparse import GradualPruning, SparseTraining, SparsityError, load_masks
from settings import SAFE

# Resuming without the ModelCheckpoint that saved, or with other callbacks, is what some of these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")


def test_resumed_at_an_epochs_end_equals_uninterrupted_bit_for_bit(make_method, module, loader, make_trainer, tmp_path):
    whole, one = module(), make_method(0.9)
    make_trainer(one).fit(whole, loader)

    keep = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1, every_n_epochs=1)
    make_trainer(make_method(0.9), keep, enable_checkpointing=True).fit(module(), loader)
    resumed, two = module(seed=9), make_method(0.9)
    make_trainer(two).fit(resumed, loader, ckpt_path=tmp_path / "epoch=1.ckpt", **SAFE)
    assert two.masks.checksum() == one.masks.checksum()
    assert two.history == one.history
    for a, b in zip(resumed.state_dict().values(), whole.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.fixture
def checkpoint(module, loader, make_trainer, tmp_path):
    trainer = make_trainer(GradualPruning(0.9), max_epochs=4, limit_train_batches=5)
    trainer.fit(module(), loader)
    trainer.save_checkpoint(tmp_path / "end.ckpt", weights_only=False)
    return tmp_path / "end.ckpt"


def test_a_longer_training_keeps_the_resolved_steps_and_says_so(checkpoint, module, loader, make_trainer):
    callback = GradualPruning(0.9)
    with pytest.warns(UserWarning, match="length has changed"):
        make_trainer(callback, max_epochs=8, limit_train_batches=5).fit(module(), loader, ckpt_path=checkpoint, **SAFE)
    assert callback.engine.plan.sparsity.end == 15
    assert callback.engine.clock == 40


@pytest.mark.parametrize("changed", [GradualPruning(0.8), GradualPruning(0.9, exclude=["head.*"]), SparseTraining(0.9)])
def test_changed_arguments_on_resume_are_an_error(changed, checkpoint, module, loader, make_trainer):
    with pytest.raises(SparsityError, match=r"resume with the same|same include"):
        make_trainer(changed, max_epochs=6).fit(module(), loader, ckpt_path=checkpoint, **SAFE)


def test_validate_reads_the_masks_from_a_checkpoint(checkpoint, module, loader, make_trainer):
    callback = GradualPruning(0.9)
    make_trainer(callback).validate(module(), loader, ckpt_path=checkpoint, verbose=False, **SAFE)
    assert callback.sparsity == pytest.approx(0.9, abs=1e-3)


def test_resuming_a_finished_training_keeps_its_masks(checkpoint, module, loader, make_trainer, tmp_path):
    callback = GradualPruning(0.9)
    trainer = make_trainer(callback, max_epochs=4, limit_train_batches=5)
    trainer.fit(module(), loader, ckpt_path=checkpoint, **SAFE)
    assert callback.sparsity == pytest.approx(0.9, abs=1e-3)
    trainer.save_checkpoint(tmp_path / "again.ckpt", weights_only=False)
    assert load_masks(tmp_path / "again.ckpt").checksum() == load_masks(checkpoint).checksum()


def test_a_fresh_fit_after_test_starts_anew(checkpoint, module, loader, make_trainer):
    callback = GradualPruning(0.9)
    make_trainer(callback).validate(module(), loader, ckpt_path=checkpoint, verbose=False, **SAFE)
    make_trainer(callback, max_epochs=1).fit(module(), loader)
    assert callback.engine.clock == 10
    assert callback.history[0].step < 5


def test_a_second_fit_of_one_trainer_goes_on_and_one_of_a_new_trainer_starts_anew(module, loader, make_trainer):
    model, callback = module(), GradualPruning(0.9)
    trainer = make_trainer(callback, max_epochs=2)
    trainer.fit(model, loader)
    masks = callback.masks.checksum()
    trainer.fit_loop.max_epochs = 4
    with pytest.warns(UserWarning, match="length has changed"):
        trainer.fit(model, loader)
    assert callback.engine.clock == 40
    assert callback.masks.checksum() == masks
    assert all((model.get_parameter(name)[~mask] == 0).all() for name, mask in callback.masks.items())
    make_trainer(callback, max_epochs=1).fit(module(), loader)
    assert callback.engine.clock == 10
