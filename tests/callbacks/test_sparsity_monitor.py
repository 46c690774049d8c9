import copy
import csv
import pickle
import warnings

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch._dynamo.testing import CompileCounter

import settings
from lightning_sparse import BrainDevelopment, GradualPruning, SparseTraining, SparsityMonitor
from settings import SAFE

# Several runs share a folder of checkpoints here.
pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning")


def hooks(model):
    """The hooks of the model's modules, and those that torch calls for every module."""
    everywhere = [kind for name, kind in vars(torch.nn.modules.module).items() if name.startswith("_global")]
    kinds = [*everywhere, *(vars(part).get("_forward_hooks") for part in model.modules())]
    return [hook for kind in kinds if isinstance(kind, dict) for hook in kind]


def logged(folder):
    with (folder / "curves" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("sparsity")]
    return [{key: float(value) for key, value in row.items() if value} for row in rows]


@pytest.mark.parametrize("order", [1, -1])
def test_what_is_logged_is_what_the_masks_did(order, module, loader, make_trainer, tmp_path):
    callback, monitor = BrainDevelopment(0.9, every=2), SparsityMonitor()
    logger = CSVLogger(tmp_path, name="", version="curves")
    trainer = make_trainer(*[callback, monitor][::order], logger=logger, log_every_n_steps=1000)
    trainer.fit(module(), loader)
    rows = logged(tmp_path)
    by_step = {row["step"]: row for row in rows}
    for update in callback.history[1:]:
        assert by_step[update.step]["sparsity"] == pytest.approx(update.sparsity)
        assert by_step[update.step]["turnover"] == pytest.approx(update.turnover)
    last = rows[-1]
    for name, mask in callback.masks.items():
        assert last[f"layer_sparsity/{name}"] == pytest.approx(float((~mask).float().mean()))
    assert 0.8 <= last["ever_lived"] <= 1.0
    assert float(trainer.callback_metrics["sparsity"]) == pytest.approx(0.9, abs=1e-3)
    assert "sparsity" in trainer.progress_bar_metrics


def test_ever_lived_counts_each_connection_once(module, loader, make_trainer):
    static, monitor = SparseTraining(0.9), SparsityMonitor()
    make_trainer(static, monitor).fit(module(), loader)
    assert monitor.ever_lived == pytest.approx(0.1, abs=1e-3)
    gradual, monitor = GradualPruning(0.9), SparsityMonitor()
    make_trainer(gradual, monitor).fit(module(), loader)
    assert monitor.ever_lived == 1.0


def test_ever_lived_survives_resume(module, loader, make_trainer, tmp_path):
    def fit(ckpt=None, epochs=4):
        monitor = SparsityMonitor()
        keep = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
        callback = SparseTraining(0.9, turnover=0.3, every=3)
        trainer = make_trainer(callback, monitor, keep, enable_checkpointing=True)
        trainer.fit(module(), loader, ckpt_path=ckpt, **SAFE)
        return monitor.ever_lived

    whole = fit()
    assert whole > 0.2
    assert fit(tmp_path / "epoch=1.ckpt") == whole


def test_without_a_sparsity_callback_it_counts_zeros(module, loader, make_trainer):
    model = module()
    model.head.weight.data[:] = 0.0
    model.head.weight.register_hook(torch.zeros_like)
    model.lr = 0.0
    trainer = make_trainer(SparsityMonitor(), max_epochs=1)
    trainer.fit(model, loader)
    assert float(trainer.callback_metrics["sparsity"]) == pytest.approx(300 / 5940)


def test_model_checkpoint_can_monitor_the_sparsity(module, loader, make_trainer, tmp_path):
    callback = GradualPruning(0.9)
    keep = ModelCheckpoint(tmp_path, filename="{epoch}-{sparsity:.3f}", monitor="sparsity", mode="max", save_top_k=-1)
    make_trainer(callback, SparsityMonitor(), keep, enable_checkpointing=True).fit(module(), loader, loader)
    names = sorted(path.stem for path in tmp_path.glob("*.ckpt"))
    after = {update.step: update.sparsity for update in callback.history}
    for epoch, name in enumerate(names):
        last = max(step for step in after if step <= 10 * (epoch + 1))
        assert name == f"epoch={epoch}-sparsity={after[last]:.3f}"


def test_turnover_is_logged_where_it_happens_and_nowhere_else(module, loader, make_trainer, tmp_path):
    callback = BrainDevelopment(0.9, every=2)
    logger = CSVLogger(tmp_path, name="", version="curves")
    make_trainer(callback, SparsityMonitor(), logger=logger, log_every_n_steps=1000).fit(module(), loader)
    happened = {update.step for update in callback.history if update.replaced}
    assert {row["step"] for row in logged(tmp_path) if row["turnover"] > 0} == happened
    assert happened == set(range(26, 36, 2))


def test_a_second_training_forgets_the_first(module, loader, make_trainer):
    monitor = SparsityMonitor()
    make_trainer(GradualPruning(0.9), monitor).fit(module(), loader)
    make_trainer(SparseTraining(0.9), monitor).fit(module(), loader)
    assert monitor.ever_lived == pytest.approx(0.1, abs=1e-3)


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


def resumed(make, path, make_trainer, loader, ckpt=None, **arguments):
    monitor, callback = SparsityMonitor(), make()
    keep = ModelCheckpoint(path, filename="{epoch}", save_top_k=-1)
    trainer = make_trainer(callback, monitor, keep, enable_checkpointing=True, **arguments)
    trainer.fit(settings.Module(), loader, ckpt_path=ckpt, **SAFE)
    return monitor, trainer


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


def test_a_longer_fit_of_the_same_trainer_goes_on_and_a_new_trainer_begins_anew(module, loader, make_trainer):
    callback, monitor, model = SparseTraining(0.9, turnover=0.3, every=3), SparsityMonitor(), module()
    trainer = make_trainer(callback, monitor, max_epochs=2)
    trainer.fit(model, loader)
    dense, ever = monitor.flops.dense, monitor.ever_lived
    trainer.fit_loop.max_epochs = 4
    trainer.fit(model, loader)
    assert monitor.flops.dense == 2 * dense
    assert monitor.ever_lived > ever
    make_trainer(SparseTraining(0.9), monitor, max_epochs=2).fit(module(), loader)
    assert monitor.flops.dense == dense
    assert monitor.ever_lived == pytest.approx(0.1, abs=1e-3)


def test_a_state_read_for_evaluation_is_not_carried_into_the_next_training(loader, make_trainer, tmp_path):
    monitor, _ = resumed(lambda: SparseTraining(0.9, turnover=0.3, every=3), tmp_path, make_trainer, loader)
    fresh, keep = SparsityMonitor(), ModelCheckpoint(tmp_path, filename="other")
    callback = SparseTraining(0.9, turnover=0.3, every=3)
    other = make_trainer(callback, fresh, keep, max_epochs=1, enable_checkpointing=True)
    other.validate(settings.Module(), loader, ckpt_path=tmp_path / "epoch=3.ckpt", verbose=False, **SAFE)
    assert fresh.flops.dense == monitor.flops.dense
    other.fit(settings.Module(), loader)
    assert fresh.flops.dense == monitor.flops.dense / 4


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


class Dropping(settings.Module):
    """Draws from the global generator at every step."""

    def forward(self, x):
        return self.head(nn.functional.dropout(self.body(x)))


def test_the_monitor_changes_nothing_and_leaves_nothing(loader, make_trainer):
    def run(*callbacks):
        model = Dropping()
        make_trainer(BrainDevelopment(0.9, every=2), *callbacks).fit(model, loader)
        return model, torch.get_rng_state()

    (with_it, state), (without, other) = run(SparsityMonitor()), run()
    assert settings.same_state(with_it, without)
    assert torch.equal(state, other)
    assert not hooks(with_it)


class Breaks(settings.Module):
    def training_step(self, batch, batch_idx):
        self(batch[0])
        raise RuntimeError("planted")


def test_an_error_in_the_first_batch_leaves_no_hook(loader, make_trainer):
    model, monitor = Breaks(), SparsityMonitor()
    with pytest.raises(RuntimeError, match="planted"):
        make_trainer(GradualPruning(0.9), monitor).fit(model, loader)
    assert not hooks(model)


class Copies(Callback):
    """Copies and pickles monitor and module in the middle of the first batch."""

    def __init__(self, monitor):
        self.monitor, self.copies, self.modules = monitor, [], []

    def on_after_backward(self, trainer, pl_module):
        if not self.copies:
            self.copies = [copy.deepcopy(self.monitor), pickle.loads(pickle.dumps(self.monitor))]
            self.modules = [copy.deepcopy(pl_module.body), pickle.loads(pickle.dumps(pl_module.body))]
            self.modules[0](torch.rand(2, 64))  # not the model's own


def test_a_copy_in_the_middle_of_training_watches_nothing_and_knows_what_was_counted(module, loader, make_trainer):
    monitor, model = SparsityMonitor(), module()
    copies = Copies(monitor)
    make_trainer(GradualPruning(0.9), monitor, copies, max_epochs=1).fit(model, loader)
    assert [taken.ever_lived for taken in copies.copies] == [1.0, 1.0]
    assert [taken.flops.dense for taken in copies.copies] == [0.0, 0.0]
    assert not any(hooks(module) for module in copies.modules)
    assert monitor.flops.dense == 3 * 2 * 5940 * 640
    # And the callbacks of a Trainer can be used in another one.
    make_trainer(GradualPruning(0.9), copies.copies[0], max_epochs=1).fit(module(), loader)
    assert copies.copies[0].flops.dense == monitor.flops.dense


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


def by_row(keep):
    """A drop score that keeps the connections of the rows or columns that a function likes best."""

    def score(layer):
        out, into = torch.meshgrid(*[torch.arange(size) for size in layer.weight.shape], indexing="ij")
        return keep[layer.name](out.float(), into.float()) if layer.name in keep else layer.weight.abs()

    return score


def fit_and_catch(callback, make_trainer, loader, tmp_path):
    logger = CSVLogger(tmp_path, name="", version="curves")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make_trainer(callback, SparsityMonitor(), logger=logger, max_epochs=2).fit(settings.Module(), loader)
    texts = [str(one.message) for one in caught]
    return [text for text in texts if "nothing flows" in text or "the same for every input" in text], logged(tmp_path)


def test_a_chain_that_is_cut_is_warned_of_once_for_each_layer(make_trainer, loader, tmp_path):
    """The first layer keeps its last units and the second reads the first ones: no layer is empty, but no signal passes."""
    drop = by_row({"body.0.weight": lambda out, into: out, "body.3.weight": lambda out, into: -into})
    callback = SparseTraining(0.97, allocation="uniform", drop=drop, grow="random", turnover=0.01, every=4)
    texts, rows = fit_and_catch(callback, make_trainer, loader, tmp_path)
    assert [text.split("'")[1] for text in texts] == ["body.0.weight", "body.3.weight", "head.weight"]
    assert all(callback.masks.count(name) > 0 for name in callback.masks)
    assert rows[0]["dead_units"] == 1.0
    assert rows[0]["layer_dead_units/head.weight"] == 1.0


def test_outputs_without_connections_are_warned_of_once(make_trainer, loader, tmp_path):
    drop = by_row({"head.weight": lambda out, into: (7 * into + out) % 11 - 99 * ((out == 3) | (out == 7))})
    callback = SparseTraining(0.5, allocation="uniform", drop=drop, grow="random", turnover=0.01, every=4)
    texts, rows = fit_and_catch(callback, make_trainer, loader, tmp_path)
    assert len(texts) == 1
    assert "2 of the 10 outputs of 'head.weight'" in texts[0]
    assert "(units 3, 7)" in texts[0]
    assert rows[0]["layer_dead_units/head.weight"] == pytest.approx(0.2)
    assert rows[0]["dead_units"] == pytest.approx(2 / 100)


def test_per_layer_numbers_can_be_left_out(module, loader, make_trainer, tmp_path):
    logger = CSVLogger(tmp_path, name="", version="curves")
    make_trainer(GradualPruning(0.9), SparsityMonitor(per_layer=False), logger=logger).fit(module(), loader)
    names = set(logged(tmp_path)[0])
    assert "dead_units" in names
    assert not any(name.endswith(".weight") for name in names)


def test_two_sparsity_callbacks_are_counted_together(module, loader, make_trainer, tmp_path):
    body = SparseTraining(0.8, include=["body.*.weight"], exclude=["body.1.weight"], turnover=0.3, every=4)
    head, monitor = SparseTraining(0.5, include=["head.weight"]), SparsityMonitor()
    logger = CSVLogger(tmp_path, name="", version="curves")
    make_trainer(body, head, monitor, logger=logger, max_epochs=2).fit(module(), loader)
    last = logged(tmp_path)[-1]
    living = body.masks.living + head.masks.living
    assert last["sparsity"] == pytest.approx(1 - living / 5940)
    kept = last["survivors"] * living
    assert kept == pytest.approx(round(kept))
    assert head.masks.living < kept < living
    assert monitor.ever_lived > living / 5940
