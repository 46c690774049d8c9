"""Strategies that keep a shard of each weight on a rank are refused before anything is spent; the others are not."""

import importlib.util

import pytest
from lightning.pytorch.strategies import (
    DDPStrategy,
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    SingleDeviceStrategy,
)

import settings
from lightning_sparse import SparsityError


def deepspeed():
    """The real strategy where its package is installed; otherwise as much of it as can be made."""
    if importlib.util.find_spec("deepspeed"):
        return DeepSpeedStrategy()
    return DeepSpeedStrategy.__new__(DeepSpeedStrategy)


class Mine(FSDPStrategy):
    """A user's own subclass of one."""


def theirs():
    """The same strategy in Lightning's other namespace, where it is another class."""
    return pytest.importorskip("pytorch_lightning.strategies").FSDPStrategy()


SHARDED = {
    "FSDPStrategy": FSDPStrategy,
    "DeepSpeedStrategy": deepspeed,
    "ModelParallelStrategy": ModelParallelStrategy,
    "FSDPStrategy of one's own": Mine,
    "FSDPStrategy of pytorch_lightning": theirs,
}


class Untouched(settings.Module):
    """A model that must not be looked at: a shard may not even have shapes."""

    def named_parameters(self, *arguments, **keywords):
        raise AssertionError("the weights were looked at before the strategy was")


@pytest.mark.parametrize(("name", "make"), SHARDED.items(), ids=SHARDED)
def test_a_sharded_strategy_is_refused_with_the_reason_and_what_to_use(make_method, name, make, make_trainer):
    method, model = make_method(0.9), Untouched()
    trainer = make_trainer(method)
    # No Trainer on a CPU takes them, so this one is given its strategy afterwards.
    trainer._accelerator_connector.strategy = make()
    with pytest.raises(SparsityError) as refused:
        method.setup(trainer, model, "fit")
    message = str(refused.value)
    assert name.split()[0] in message
    assert "shard of each weight" in message
    assert "strategy='ddp' or 'ddp_spawn', or one device" in message


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_evaluation_under_a_sharded_strategy_is_none_of_our_business(make_method, stage, make_trainer):
    method = make_method(0.9)
    trainer = make_trainer(method)
    trainer._accelerator_connector.strategy = FSDPStrategy()
    method.setup(trainer, settings.Module(), stage)


@pytest.mark.parametrize("make", [DDPStrategy, SingleDeviceStrategy, lambda: DDPStrategy(find_unused_parameters=True)])
def test_whole_weights_on_each_device_are_accepted(make_method, make, make_trainer):
    method = make_method(0.9)
    trainer = make_trainer(method)
    trainer._accelerator_connector.strategy = make()
    method.setup(trainer, settings.Module(), "fit")


def test_what_a_trainer_calls_by_name(make_method, make_trainer):
    for name in ("auto", "ddp", "ddp_spawn", "ddp_find_unused_parameters_true"):
        method = make_method(0.9)
        trainer = make_trainer(method, strategy=name, devices=1)
        method.setup(trainer, settings.Module(), "fit")
    model = settings.Module()
    make_trainer(method, strategy=SingleDeviceStrategy(), max_epochs=1).fit(model, settings.batches())
    assert settings.exact(method.masks, 0.9)
    assert settings.dead_are_zero(model, method.masks)
