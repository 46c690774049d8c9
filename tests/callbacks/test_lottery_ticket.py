"""The lottery ticket under a Trainer: weights, learning rates, resume, control."""

import pytest
import torch
from lightning.pytorch import Callback
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, OneCycleLR, StepLR

from lightning_sparse import LotteryTicket, SparsityError, steps_of_one_training
from settings import SAFE, Module, batches, quiet, same_state


class Scheduled(Module):
    kind = "cosine"

    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        steps = steps_of_one_training(self.trainer)
        if self.kind == "epoch":
            return [optimizer], [StepLR(optimizer, 1, gamma=0.1)]
        schedule = (
            CosineAnnealingLR(optimizer, steps) if self.kind == "cosine" else OneCycleLR(optimizer, 0.1, steps + 1)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Watch(Callback):
    def __init__(self):
        self.rates, self.weights, self.memory = [], [], []

    def on_train_batch_start(self, trainer, module, batch, index):
        self.weights.append({name: p.detach().clone() for name, p in module.named_parameters()})

    def on_before_optimizer_step(self, trainer, module, optimizer):
        group = optimizer.param_groups[0]
        self.rates.append((group["lr"], group["momentum"]))
        self.memory.append(len(optimizer.state))


def watched(ticket, kind="cosine", **arguments):
    watch, module = Watch(), Scheduled()
    module.kind = kind
    quiet(ticket, watch, **arguments).fit(module, batches())
    return watch, module


@pytest.mark.parametrize("kind", ["cosine", "onecycle", "epoch"])
def test_every_training_starts_from_the_same_weights_and_learning_rate(kind):
    watch, _ = watched(LotteryTicket(0.91, trainings=4), kind)
    for begin in (10, 20, 30):
        assert watch.rates[begin : begin + 10] == watch.rates[:10]
        assert watch.memory[begin] == 0
        for name, start in watch.weights[0].items():
            now = watch.weights[begin][name]
            alive = now != 0
            assert torch.equal(now[alive], start[alive])
    assert len({rate for rate, _ in watch.rates}) > 1 or kind == "epoch"


def test_each_training_keeps_the_same_share_and_only_what_lived_before():
    ticket = LotteryTicket(1 - 0.8**3, trainings=4)
    watched(ticket)
    assert [update.step for update in ticket.history] == [10, 20, 30]
    total = ticket.masks.total
    assert [round(u.sparsity * total) for u in ticket.history] == [round((1 - 0.8**i) * total) for i in (1, 2, 3)]
    assert all(update.born == 0 for update in ticket.history)


def test_rewinding_to_an_early_step():
    ticket = LotteryTicket(0.9, trainings=3, rewind_to=0.2)
    watch, _ = watched(ticket, max_epochs=26, limit_train_batches=1)  # 10 + 8 + 8
    assert [update.step for update in ticket.history] == [10, 18]
    for begin in (10, 18):
        assert watch.rates[begin : begin + 8] == watch.rates[2:10]
        start, now = watch.weights[2]["body.0.weight"], watch.weights[begin]["body.0.weight"]
        assert torch.equal(now[now != 0], start[now != 0])


def test_the_control_differs_in_the_weights_of_the_last_training_alone():
    ticket, control = LotteryTicket(0.9), LotteryTicket(0.9, reinit=True)
    one, two = watched(ticket)[0], watched(control)[0]
    assert all(torch.equal(ticket.masks[name], control.masks[name]) for name in ticket.masks)
    assert all(torch.equal(one.weights[29][name], two.weights[29][name]) for name in one.weights[0])
    a, b = one.weights[30]["body.0.weight"], two.weights[30]["body.0.weight"]
    assert not torch.isclose(a[a != 0], b[a != 0]).any()


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_a_resumed_ticket_rewinds_to_the_weights_of_the_run_that_began(tmp_path):
    from lightning.pytorch.callbacks import ModelCheckpoint

    whole = Scheduled()
    keep = ModelCheckpoint(tmp_path, every_n_epochs=1, save_top_k=-1, filename="{epoch}")
    quiet(LotteryTicket(0.9), keep, enable_checkpointing=True).fit(whole, batches())
    for epoch in (0, 1, 2):
        module = Scheduled()
        again = ModelCheckpoint(tmp_path, every_n_epochs=1, save_top_k=-1, filename="again-{epoch}")
        trainer = quiet(LotteryTicket(0.9), again, enable_checkpointing=True)
        trainer.fit(module, batches(), ckpt_path=tmp_path / f"epoch={epoch}.ckpt", **SAFE)
        assert same_state(module, whole)


def test_the_length_of_one_training():
    lengths = []

    class Asks(Module):
        def on_fit_start(self):
            lengths.append(steps_of_one_training(self.trainer))

    quiet(LotteryTicket(0.9, trainings=4)).fit(Asks(), batches())
    quiet(max_epochs=1).fit(Asks(), batches())
    assert lengths == [10, 10]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"trainings": 1}, "trainings=1 is not an integer of at least 2"),
        ({"trainings": 2.5}, "trainings=2.5"),
        ({"rewind_to": 1.0}, r"rewind_to=1.0 is not a share in \[0, 1\)"),
        ({"final_sparsity": 1.0}, "final_sparsity=1.0"),
    ],
)
def test_meaningless_arguments_are_refused(arguments, message):
    with pytest.raises(SparsityError, match=message):
        LotteryTicket(**{"final_sparsity": 0.9, **arguments})


def test_a_learning_rate_that_is_a_tensor_is_the_same_at_the_start_of_every_training():
    class TensorRate(Module):
        def configure_optimizers(self):
            optimizer = torch.optim.Adam(self.parameters(), lr=torch.tensor(0.1))
            schedule = LinearLR(optimizer, 1.0, 0.1, total_iters=5)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    class Rates(Callback):
        def __init__(self):
            self.rates = []

        def on_before_optimizer_step(self, trainer, module, optimizer):
            self.rates.append(float(optimizer.param_groups[0]["lr"]))

    seen = Rates()
    quiet(LotteryTicket(0.8, trainings=4), seen, max_epochs=4).fit(TensorRate(), batches())
    assert seen.rates[:10] == seen.rates[10:20] == seen.rates[20:30] == seen.rates[30:]
    assert seen.rates[0] == pytest.approx(0.1)


def test_a_training_without_an_end_has_no_length():
    class Asks(Module):
        def on_fit_start(self):
            steps_of_one_training(self.trainer)

    with pytest.raises(SparsityError, match=r"has no end in steps, .*: give the Trainer max_epochs or max_steps"):
        quiet(max_epochs=-1, max_time="00:00:00:01").fit(Asks(), batches())
