"""Two callbacks that cannot be together are refused in our words, before any step, wherever they were given."""

import copy
import pickle

import pytest
import torch

import settings
from lightning_sparse import (
    GradualPruning,
    RandomState,
    RigL,
    RobustnessMonitor,
    SparseTraining,
    SparsityError,
    SparsityMonitor,
    VarianceOfGradients,
)

IMAGES = (torch.rand(8, 64), torch.arange(8))
PRUNING = GradualPruning(0.5)
MONITOR = SparsityMonitor()


class FromModel(settings.Module):
    given = ()

    def configure_callbacks(self):
        return list(self.given)

    def training_step(self, batch, batch_idx):
        raise AssertionError("it should have been refused before")


@pytest.mark.parametrize(
    ("two", "message"),
    [
        ((GradualPruning(0.5), GradualPruning(0.9)), "hold GradualPruning and GradualPruning: both want the same"),
        ((GradualPruning(0.5), RigL(0.9)), "hold GradualPruning and RigL: .* include=.* and exclude="),
        ((PRUNING, PRUNING), "hold the same GradualPruning twice: leave it out once"),
        (
            (GradualPruning(0.5, include=["body.0.*"]), RigL(0.9)),
            r"both want 'body.0.weight' \(GradualPruning and RigL\): give each parameter to one of them",
        ),
        ((SparsityMonitor(), SparsityMonitor(per_layer=False)), "hold SparsityMonitor and SparsityMonitor: one does"),
        ((MONITOR, MONITOR), "hold the same SparsityMonitor twice"),
        ((RandomState(), RandomState()), "hold RandomState and RandomState"),
        (
            (VarianceOfGradients(IMAGES), VarianceOfGradients(IMAGES)),
            "VarianceOfGradients and VarianceOfGradients: one",
        ),
        ((RobustnessMonitor(0.1), RobustnessMonitor(0.2)), r"several radii of one norm, eps=\[0.1, 0.2\]"),
    ],
)
@pytest.mark.parametrize("by_model", [False, True])
def test_two_of_a_kind_are_refused(two, message, by_model, loader, make_trainer):
    model, given = FromModel(), () if by_model else two
    model.given = two if by_model else ()
    with pytest.raises(SparsityError, match=message):
        make_trainer(*given).fit(model, loader)


def test_the_advice_works(loader, make_trainer):
    one, other = GradualPruning(0.5, include=["body.0.weight"]), RigL(0.9, exclude=["body.0.*"], every=2)
    make_trainer(one, other, SparsityMonitor(), RandomState()).fit(settings.Module(), loader)
    assert one.sparsity == pytest.approx(0.5, abs=1e-3)
    assert other.sparsity == pytest.approx(0.9, abs=1e-3)


def test_a_checkpoint_has_plain_keys_and_is_found_by_the_callbacks_key(loader, make_trainer, tmp_path):
    callback, monitor = SparseTraining(0.5), SparsityMonitor()
    trainer = make_trainer(callback, monitor, RandomState())
    trainer.fit(settings.Module(), loader)
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    saved = torch.load(tmp_path / "end.ckpt", weights_only=True)["callbacks"]
    assert {type(key) for key in saved} == {str}
    assert saved[callback.state_key]["clock"] == callback.engine.clock
    assert set(saved[monitor.state_key]["lifetimes"]) == {callback.state_key}
    assert callback.state_key == "lightning_sparse[include=None, exclude=None]"
    assert copy.copy(callback).state_key == str(callback.state_key)
    assert pickle.loads(pickle.dumps(monitor)).state_key == "SparsityMonitor"
