"""Resuming from a checkpoint or in a second fit, and what may not be changed in between."""

import pytest

from lightning_sparse import GradualPruning, SparseTraining, SparsityError, load_masks
from settings import SAFE

# Resuming without the ModelCheckpoint that saved, or with other callbacks, is what some of these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")


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
