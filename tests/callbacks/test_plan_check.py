"""A plan that this training is too short for is said at the start; what the message says to write is tried."""

import re
import warnings

import pytest
from lightning.pytorch import Callback
from torch.utils.data import DataLoader, IterableDataset

from lightning_sparse import (
    ACDC,
    SET,
    SNFS,
    BrainDevelopment,
    Curve,
    DenseSparseDense,
    GradualPruning,
    GraNet,
    GrowAndPrune,
    LotteryTicket,
    OneShot,
    RigL,
    SparseTraining,
    attach,
)
from settings import digits, exact, quiet


class AtStart(Callback):
    """Notes which warnings had come before the first batch."""

    def __init__(self, caught):
        self.caught, self.said = caught, None

    def on_train_batch_start(self, *_):
        self.said = self.messages() if self.said is None else self.said

    def messages(self):
        return [str(w.message) for w in self.caught if re.search("planned|replaced|training stopped", str(w.message))]


def said(callback, module, loader, **arguments):
    """What is said at the start of a training, after checking that nothing is added later."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        at_start = AtStart(caught)
        quiet(callback, at_start, **arguments).fit(module, loader)
    assert at_start.messages() == at_start.said
    return at_start.said


def advised(message):
    """The argument and the number that a message says to write."""
    name, value = re.search(r"write (\w+)=([\d.]+)", message).groups()
    return {name: int(value)}


LATE = {
    "GradualPruning": (GradualPruning, {"end": 500}, {"end": 40}),
    "OneShot": (OneShot, {"at": 500}, {"at": 40}),
    "GraNet": (GraNet, {"end": 500}, {"end": 40}),
    "BrainDevelopment": (
        BrainDevelopment,
        {"densest_at": 10, "pruned_by": 500, "turnover": 0.0, "turnover_until": 600},
        {"pruned_by": 40},
    ),
    "GrowAndPrune": (GrowAndPrune, {"grown_at": 10, "pruned_by": 500}, {"pruned_by": 40}),
    "ACDC": (ACDC, {"warmup": 10, "phase": 10, "dense_from": 30, "sparse_from": 500}, {"sparse_from": 40}),
    "total_steps": (GradualPruning, {"total_steps": 500}, {"total_steps": 40}),
    "total_steps of a ticket": (LotteryTicket, {"total_steps": 500}, {"total_steps": 40}),
}


@pytest.mark.parametrize(("method", "given", "right"), LATE.values(), ids=LATE)
def test_a_target_after_the_end_is_said_and_the_advice_reaches_it(method, given, right, module, loader):
    callback = method(0.9, **given)
    (message,) = said(callback, module(), loader)
    assert "sparsity 0.9 is planned for step" in message
    assert "this training has 40 steps" in message
    assert advised(message) == right
    assert not exact(callback.masks, 0.9)
    callback = method(0.9, **{**given, **advised(message)})
    assert said(callback, module(), loader) == []
    assert exact(callback.masks, 0.9)


def test_a_last_phase_that_does_not_come(module, loader):
    (message,) = said(DenseSparseDense(0.5, sparse_from=10, dense_from=500), module(), loader)
    callback = DenseSparseDense(0.5, sparse_from=10, **advised(message))
    assert said(callback, module(), loader) == []
    assert callback.sparsity == 0.0


def test_a_curve_of_ones_own_is_told_the_step(module, loader):
    (message,) = said(SparseTraining(Curve(0.0).then(500, 0.9, "linear")), module(), loader)
    assert message.endswith("write 40 or less instead of 500")
    assert said(SparseTraining(Curve(0.0).then(40, 0.9, "linear")), module(), loader) == []


# RigL's turnover has fallen to zero, or to less than a connection of any layer, when its first hundred steps are over.
@pytest.mark.parametrize("steps", [20, 100, 133, 136])
@pytest.mark.parametrize("method", [RigL, SET, SNFS])
def test_turnover_that_never_comes_is_said_and_the_advice_replaces(method, steps, module, loader):
    callback = method(0.9)
    messages, replaced = said(callback, module(), loader, max_epochs=14, max_steps=steps), replacements(callback)
    assert len(messages) == (replaced == 0)
    assert replaced == 0 or (method is not RigL and steps > 100)  # the others' turnover lasts until 0.9 of the training
    for message in messages:
        assert f"in the {steps} steps of this training" in message
        again = method(0.9, **advised(message))
        assert said(again, module(), loader, max_epochs=14, max_steps=steps) == []
        assert replacements(again) > 0
        assert len([update for update in again.history if update.replaced]) > 2 or steps == 20


def replacements(callback):
    return sum(update.replaced for update in callback.history)


def test_a_turnover_too_small_for_a_connection_asks_for_a_larger_one(module, loader):
    (message,) = said(RigL(0.9, turnover=1e-5, every=5), module(), loader)
    assert message.endswith("write a larger turnover, or earlier times for it")
    callback = RigL(0.9, turnover=0.2, every=5)
    assert said(callback, module(), loader) == []
    assert replacements(callback) > 0


def test_turnover_of_channels_counts_channels(module, loader):
    given = {"granularity": "channels", "exclude": ["head.*"], "every": 5, "allocation": "uniform"}
    callback = RigL(0.5, turnover=0.01, **given)  # 0.01 of 30 and 15 channels
    (message,) = said(callback, module(), loader)
    assert replacements(callback) == 0
    assert "write a larger turnover" in message
    callback = RigL(0.5, turnover=0.1, **given)
    assert said(callback, module(), loader) == []
    assert replacements(callback) > 0


class Stream(IterableDataset):
    def __iter__(self):
        return iter(digits())


def test_nothing_is_said_at_the_start_where_the_length_is_not_known(module):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        at_start = AtStart(caught)
        quiet(GradualPruning(0.9, end=500, every=10), at_start, max_epochs=1).fit(module(), DataLoader(Stream(), 64))
    assert at_start.said == []
    assert re.match("training stopped at step 10, before step 500", at_start.messages()[0])


def test_nothing_is_said_of_a_dense_control(module, loader):
    assert said(RigL(0.0), module(), loader) == []


@pytest.mark.parametrize("method", [GradualPruning(0.9, end=500), RigL(0.9)])
def test_nothing_is_said_in_a_trial_run(method, module, loader):
    assert said(method, module(), loader, fast_dev_run=3) == []


def test_the_length_of_a_stream_is_max_steps(module):
    stream = DataLoader(Stream(), 64)
    (message,) = said(GradualPruning(0.9, end=500), module(), stream, max_steps=15, max_epochs=-1)
    assert "has 15 steps: write end=15" in message


def test_attach_says_it_too(module):
    net = module()
    with pytest.warns(UserWarning, match="no connection will be replaced in the 133 steps .* write every=10"):
        attach(net.configure_optimizers(), net, RigL(0.9), total_steps=133)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attach(net.configure_optimizers(), net, RigL(0.9, every=10), total_steps=133)
