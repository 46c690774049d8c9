import csv

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from lightning_sparse import BrainDevelopment, GradualPruning, SparseTraining, SparsityMonitor
from settings import SAFE

# Several runs share a folder of checkpoints here.
pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning")


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
        assert last[f"sparsity/{name}"] == pytest.approx(float((~mask).float().mean()))
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
