import subprocess
import sys

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn
from torch.utils.data import DataLoader

from lightning_sparse import BrainDevelopment, GradualPruning, load_masks
from settings import dead_are_zero

# Resuming without the ModelCheckpoint that saved, or with other callbacks, is what some of these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")


@pytest.mark.parametrize("allocation", ["global", "uniform", "erk"])
@pytest.mark.parametrize("sparsity", [0.9, 0.777])
def test_exactly_the_sparsity_asked_for_on_each_allocation(
    make_method, allocation, sparsity, module, loader, make_trainer
):
    model, callback = module(), make_method(sparsity, allocation=allocation)
    make_trainer(callback).fit(model, loader)
    total = 64 * 60 + 60 * 30 + 30 * 10
    masked = sum(int((~mask).sum()) for mask in callback.masks.values())
    assert list(callback.masks) == ["body.0.weight", "body.3.weight", "head.weight"]
    assert masked == round(sparsity * total)
    assert callback.sparsity == masked / total
    assert dead_are_zero(model, callback.masks)
    assert not (model.body[1].weight == 0).any()  # BatchNorm is left alone


def test_the_checkpoint_is_the_dense_models_and_loads_without_this_library(module, loader, make_trainer, tmp_path):
    model, callback = module(), GradualPruning(0.9)
    trainer = make_trainer(callback)
    trainer.fit(model, loader)
    trainer.save_checkpoint(tmp_path / "c.ckpt", weights_only=False)
    assert list(model.state_dict()) == list(module().state_dict())
    module().load_state_dict(torch.load(tmp_path / "c.ckpt", weights_only=True)["state_dict"], strict=True)
    script = (
        "import sys, torch\n"
        "sys.modules['lightning_sparse'] = None\n"  # importing it would fail
        f"state = torch.load({str(tmp_path / 'c.ckpt')!r}, weights_only=True)['state_dict']\n"
        "head = torch.nn.Linear(30, 10)\n"
        "head.load_state_dict({k[5:]: v for k, v in state.items() if k.startswith('head.')}, strict=True)\n"
        "print(int((head.weight == 0).sum()))\n"
    )
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert int(printed) == int((~callback.masks["head.weight"]).sum())
    loaded = load_masks(tmp_path / "c.ckpt")
    assert loaded.checksum() == callback.masks.checksum()


class Stop(Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        trainer.should_stop = trainer.global_step == 40


def test_stopping_early_warns_with_achieved_and_asked(module, loader, make_trainer):
    with pytest.warns(UserWarning, match=r"step 40, before step 1000 .*asked 0\.9, achieved 0\.\d+"):
        make_trainer(GradualPruning(0.9, end=1000, every=10), Stop(), max_epochs=100).fit(module(), loader)


def test_modules_and_data_made_in_setup(digits, module, make_trainer):
    class Late(module):
        def setup(self, stage):
            self.extra = nn.Linear(10, 10)
            self.data = digits

        def forward(self, x):
            return self.extra(super().forward(x))

        def train_dataloader(self):
            return DataLoader(self.data, batch_size=64)

    callback = GradualPruning(0.9)
    make_trainer(callback).fit(Late())
    assert "extra.weight" in callback.masks
    assert callback.masks.total - callback.masks.living == round(0.9 * callback.masks.total)


def test_lbfgs_sees_exact_zeros_in_every_evaluation(digits, module, make_trainer):
    class Slow(module):
        def configure_optimizers(self):
            return torch.optim.LBFGS(self.parameters(), lr=0.5, max_iter=6)

        def forward(self, x):
            if self.trainer.training:
                assert callback.engine.clock == 0 or dead_are_zero(self, callback.masks)
            return super().forward(x)

    callback = BrainDevelopment(0.9)
    model = Slow()
    make_trainer(callback, max_epochs=2).fit(model, DataLoader(digits, batch_size=64))
    assert callback.engine.clock == 20
    assert callback.masks.total - callback.masks.living == round(0.9 * callback.masks.total)
    assert any(update.born for update in callback.history)


def test_a_layer_without_gradient_is_reported_once_and_stops_no_training(module, loader, make_trainer):
    class Unused(module):
        def __init__(self):
            super().__init__()
            self.unused = nn.Linear(20, 20)

    callback = BrainDevelopment(0.9)
    with pytest.warns(UserWarning, match=r"no gradient for unused\.weight") as said:
        make_trainer(callback).fit(Unused(), loader)
    assert len([warning for warning in said if "no gradient" in str(warning.message)]) == 1
    assert callback.masks.total - callback.masks.living == round(0.9 * callback.masks.total)
