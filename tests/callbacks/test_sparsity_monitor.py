"""None"""

import copy
import pickle
import warnings

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import nn

import settings
from callbacks.logged import logged, resumed
from lightning_sparse import BrainDevelopment, GradualPruning, SparseTraining, SparsityMonitor
from settings import SAFE

# Several runs share a folder of checkpoints here.
pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning")


def hooks(model):
    """The hooks of the model's modules, and those that torch calls for every module."""
    everywhere = [kind for name, kind in vars(torch.nn.modules.module).items() if name.startswith("_global")]
    kinds = [*everywhere, *(vars(part).get("_forward_hooks") for part in model.modules())]
    return [hook for kind in kinds if isinstance(kind, dict) for hook in kind]


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
