"""Weights that are frozen, and those that join the training later."""

import pytest
from lightning.pytorch.callbacks import BackboneFinetuning, Callback

import settings
from contract.looking import Backboned, check, fit

pytestmark = [
    # A frozen weight has no gradient to grow by, which is said once.
    pytest.mark.filterwarnings("ignore:no gradient for:UserWarning"),
    # Checkpoints are read back without the callback that saved them.
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning"),
]
BACKBONE = ["backbone.0.weight", "backbone.2.weight"]


def frozen():
    model = Backboned()
    model.backbone.requires_grad_(False)
    return model


def test_frozen_weights_are_left_dense(make_method, make_trainer):
    model, method = frozen(), make_method(0.9)
    fit(make_trainer, method, model)
    check(model, method, ["head.weight"])
    assert settings.same_state(model.backbone, frozen().backbone)


def test_frozen_weights_that_are_named_are_masked(make_method, make_trainer):
    model, method = frozen(), make_method(0.9, include=["*.weight"])
    fit(make_trainer, method, model)
    check(model, method, [*BACKBONE, "head.weight"])
    before = frozen()
    for name in BACKBONE:  # and nothing else has happened to them
        living = method.masks[name]
        unmoved = model.get_parameter(name)[living] == before.get_parameter(name)[living]
        # A connection that died and was born again has lost its value, like any other.
        assert bool((unmoved | (model.get_parameter(name)[living] == 0)).all())
        assert bool(unmoved.any())


class Unfreeze(Callback):
    """By hand, in the middle of an epoch: with a group of its own."""

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_step == 7:
            pl_module.backbone.requires_grad_(True)
            trainer.optimizers[0].add_param_group({"params": list(pl_module.backbone.parameters())})


class Join(Callback):
    """By hand, into the group that is there."""

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_step == 7:
            pl_module.backbone.requires_grad_(True)
            trainer.optimizers[0].param_groups[0]["params"].extend(pl_module.backbone.parameters())


def finetuning():
    return BackboneFinetuning(unfreeze_backbone_at_epoch=1, backbone_initial_lr=0.1)


@pytest.mark.parametrize(
    ("make", "unfreeze"),
    [(Backboned, finetuning), (frozen, finetuning), (frozen, Unfreeze), (frozen, Join)],
    ids=["BackboneFinetuning freezes too", "BackboneFinetuning", "a new group", "an old group"],
)
def test_weights_unfrozen_in_the_middle_of_training_stay_exactly_sparse(make_method, make, unfreeze, make_trainer):
    model, before, method = make(), make(), make_method(0.9, include=["*.weight"])
    fit(make_trainer, method, model, unfreeze())
    check(model, method, [*BACKBONE, "head.weight"])
    for name in BACKBONE:  # they have learned
        moved = model.get_parameter(name) != before.get_parameter(name)
        assert bool((moved & method.masks[name]).any())


def test_weights_unfrozen_later_that_nobody_named_stay_dense(make_method, make_trainer):
    model, method = frozen(), make_method(0.9)
    with pytest.warns(UserWarning, match="5,640 weights are trained now and stay dense"):
        fit(make_trainer, method, model, Unfreeze())
    check(model, method, ["head.weight"])
    assert all(bool((model.get_parameter(name) != 0).all()) for name in BACKBONE)
