"""FLOPs and ages that the monitor counts, against a ledger and by hand."""

import csv

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch._dynamo.testing import CompileCounter

import settings
from callbacks.logged import logged, resumed
from lightning_sparse import BrainDevelopment, GradualPruning, SparseTraining, SparsityMonitor

# Several runs share a folder of checkpoints here.
pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning")


class Ledger(Callback):
    """What the monitor should say, worked out from the masks before and after every batch with numpy."""

    def __init__(self, callback, every_gradient=False):
        self.callback, self.every_gradient = callback, every_gradient
        self.rows, self.window, self.dense, self.sparse, self.born, self.step = [], [], 0.0, 0.0, None, 0

    def masks(self):
        return {name: mask.cpu().numpy().copy() for name, mask in self.callback.masks.items()}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if self.born is None:
            self.total = {n: w.numel() for n, w in pl_module.named_parameters() if w.dim() == 2}
            self.before = self.masks()
            self.born = {name: np.where(mask, 0.0, np.nan) for name, mask in self.before.items()}
            self.ever = self.first = self.before
            self.updates = len(self.callback.history)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        for name, total in self.total.items():
            living = self.before[name].sum() if name in self.before else total
            graded = total if self.every_gradient else living
            self.sparse += 2 * len(batch[0]) * (2 * living + graded)
            self.dense += 2 * len(batch[0]) * 3 * total
        self.window.append(len(batch[0]))
        history, after = self.callback.history, self.masks()
        changed = len(history) > self.updates
        if changed:
            if history[-1].born and self.callback.recipe.grow == "gradient":
                dead = sum((~mask).sum() for mask in self.before.values())
                self.sparse += 2 * sum(self.window) * dead
            for name, mask in after.items():
                newborn = mask & np.isnan(self.born[name])
                self.born[name] = np.where(newborn, history[-1].step, np.where(mask, self.born[name], np.nan))
            self.ever = {name: mask | after[name] for name, mask in self.ever.items()}
            self.first = {name: mask & after[name] for name, mask in self.first.items()}
        if changed or batch_idx == 0:
            self.rows.append(self.row(after))
        self.before, self.updates = after, len(history)
        if trainer.global_step != self.step:
            self.step, self.window = trainer.global_step, []

    def row(self, masks):
        births = np.concatenate([born.ravel() for born in self.born.values()])
        ages = self.callback.engine.clock - births[~np.isnan(births)]
        unread = [~mask.any(1) for mask in masks.values()]
        return {
            "age/mean": ages.mean(),
            "age/median": np.median(ages),
            "survivors": sum(mask.sum() for mask in self.first.values()) / len(ages),
            "ever_lived": sum(mask.sum() for mask in self.ever.values()) / len(births),
            "flops/dense": self.dense,
            "flops/sparse": self.sparse,
            "flops/share": self.sparse / self.dense,
            "at least dead": np.concatenate(unread).mean(),
        }


@pytest.mark.parametrize("growth", ["gradient", "random", "momentum"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_ages_and_flops_are_those_of_a_ledger(growth, accumulate, module, make_trainer, tmp_path):
    """Eleven batches an epoch, the last one smaller and the last window of accumulation shorter; one layer is dense."""
    callback = BrainDevelopment(0.9, every=2, growth=growth, exclude=["head.weight"])
    ledger, monitor = Ledger(callback, every_gradient=growth == "momentum"), SparsityMonitor()
    logger = CSVLogger(tmp_path, name="", version="curves")
    trainer = make_trainer(monitor, callback, ledger, logger=logger, accumulate_grad_batches=accumulate)
    trainer.fit(module(), settings.batches(batch_size=60))
    rows = logged(tmp_path)
    assert len(rows) == len(ledger.rows) > 12
    for row, expected in zip(rows, ledger.rows, strict=True):
        least = expected.pop("at least dead")
        assert {name: row[name] for name in expected} == pytest.approx(expected)
        assert 1.0 >= row["dead_units"] >= least
    assert len({row["age/median"] for row in rows}) > 5
    assert rows[-1]["survivors"] < 0.9
    if growth == "gradient":
        assert any(update.born for update in callback.history[1:])
    assert (monitor.flops.dense, monitor.flops.sparse) == pytest.approx((ledger.dense, ledger.sparse))
    with (tmp_path / "curves" / "metrics.csv").open() as file:
        last = list(csv.DictReader(file))[-1]  # what the whole training has cost, logged when it ends
    assert float(last["flops/sparse"]) == pytest.approx(ledger.sparse)
    assert int(last["step"]) == trainer.global_step


def test_sparse_flops_by_hand(module, loader, make_trainer):
    """Static masks: every pass costs a tenth, and BatchNorm and biases nothing."""
    callback, monitor = SparseTraining(0.9, allocation="uniform"), SparsityMonitor()
    make_trainer(callback, monitor, max_epochs=2).fit(module(), loader)
    weights = 64 * 60 + 60 * 30 + 30 * 10
    assert monitor.flops.dense == 3 * 2 * weights * 640 * 2
    assert monitor.flops.sparse == pytest.approx(0.1 * monitor.flops.dense)


def test_rigls_step_before_an_update_by_hand(module, loader, make_trainer):
    """Evci et al. 2020, appendix H: 3 f_S a step, and 2 f_S + f_D in the one whose dense gradient is read."""
    callback = SparseTraining(0.9, turnover=0.3, every=5, allocation="uniform", include=["body.0.weight"])
    monitor = SparsityMonitor()
    make_trainer(callback, monitor, max_epochs=3).fit(module(), loader)
    sparse, dense = 2 * 384 * 64, 2 * 3840 * 64
    others = 3 * 2 * (1800 + 300) * 64
    assert [update.step for update in callback.history] == [0, 5, 10, 15, 20, 25, 30]
    assert monitor.flops.sparse == pytest.approx(30 * others + 24 * 3 * sparse + 6 * (2 * sparse + dense))


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_resumed_monitor_counts_nothing_twice(accumulate, loader, make_trainer, tmp_path):
    def make():
        return BrainDevelopment(0.9, every=2)

    whole, _ = resumed(make, tmp_path, make_trainer, loader, accumulate_grad_batches=accumulate)
    first = torch.load(tmp_path / "epoch=1.ckpt", weights_only=True)["callbacks"]["SparsityMonitor"]
    assert first["flops"]["seen"] == 20 * 64 * 64
    again, _ = resumed(
        make, tmp_path, make_trainer, loader, tmp_path / "epoch=1.ckpt", accumulate_grad_batches=accumulate
    )
    one, two = whole.state_dict(), again.state_dict()
    assert one["flops"] == two["flops"]
    assert one["lifetimes"].keys() == two["lifetimes"].keys()
    for mine, theirs in zip(one["lifetimes"].values(), two["lifetimes"].values(), strict=True):
        assert {key: mine[key] for key in mine if key != "born"} == {
            key: theirs[key] for key in theirs if key != "born"
        }
        for name, planes in mine["born"].items():
            pairs = zip(planes, theirs["born"][name], strict=True)
            assert all(torch.equal(plane["bits"], other["bits"]) for plane, other in pairs)


class Manual(settings.Module):
    """Two backward passes a batch, one step: what accumulation is in manual optimization."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        self.optimizers().zero_grad()
        for half in (slice(0, 32), slice(32, 64)):
            self.manual_backward(nn.functional.cross_entropy(self(batch[0][half]), batch[1][half]))
        self.optimizers().step()


def test_manual_optimization_costs_what_automatic_optimization_does(module, loader, make_trainer):
    def run(kind):
        callback = SparseTraining(0.5, turnover=0.3, every=3, grow="random", allocation="uniform")
        monitor = SparsityMonitor()
        make_trainer(callback, monitor, max_epochs=2).fit(kind(), loader)
        return monitor.flops.dense, monitor.flops.sparse, monitor.ever_lived

    assert run(Manual)[:2] == run(module)[:2]
    assert run(Manual)[2] > 0.6


def test_without_a_sparsity_callback_the_dense_flops_are_logged(module, loader, make_trainer, tmp_path):
    logger = CSVLogger(tmp_path, name="", version="curves")
    make_trainer(SparsityMonitor(), logger=logger, max_epochs=2).fit(module(), loader)
    (first, second) = logged(tmp_path)
    assert first["flops/dense"] == 3 * 2 * 5940 * 64
    assert second["flops/dense"] == 11 * first["flops/dense"]
    assert not {"flops/sparse", "flops/share", "age/mean", "dead_units"} & set(first)


def test_a_layer_that_is_never_called_costs_nothing(loader, make_trainer):
    model = settings.Module()
    model.spare = nn.Linear(5, 5)
    monitor = SparsityMonitor()
    make_trainer(SparseTraining(0.5, exclude=["spare.*"]), monitor, max_epochs=1).fit(model, loader)
    assert monitor.flops.dense == 3 * 2 * 5940 * 640


class Compiled(settings.Module):
    """Compiles a method, so that no compiled module exists."""

    def __init__(self, backend):
        super().__init__()
        self.fast = torch.compile(self.slow, backend=backend)

    def slow(self, x):
        return self.head(self.body(x))

    def forward(self, x):
        return self.fast(x)


class CompiledInPlace(settings.Module):
    def __init__(self, backend):
        super().__init__()
        self.compile(backend=backend)


class CompiledPart(settings.Module):
    def __init__(self, backend):
        super().__init__()
        self.body = torch.compile(self.body, backend=backend)


@pytest.mark.parametrize("kind", [Compiled, CompiledInPlace, CompiledPart])
def test_a_compiled_model_gets_no_further_graph_and_no_flops(kind, loader, make_trainer):
    def graphs(*callbacks):
        torch._dynamo.reset()
        counter = CompileCounter()
        make_trainer(GradualPruning(0.9), *callbacks, max_epochs=1).fit(kind(counter), loader)
        return counter.frame_count

    monitor = SparsityMonitor()
    assert graphs(monitor) == graphs()
    assert monitor.flops.dense == 0.0
    assert monitor.ever_lived == 1.0
