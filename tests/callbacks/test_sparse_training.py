import copy
import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from lightning_sparse import BrainDevelopment, GradualPruning, SparseTraining, SparsityError, load_masks
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


def test_every_forward_pass_sees_exact_dead_are_zero(make_method, module, loader, make_trainer):
    callback = make_method(0.9)

    class Watched(module):
        def forward(self, x):
            if self.trainer.training or self.trainer.validating:
                assert callback.engine.clock == 0 or dead_are_zero(self, callback.masks)
                self.seen = getattr(self, "seen", 0) + 1
            return super().forward(x)

    model = Watched()
    make_trainer(callback, num_sanity_val_steps=0).fit(model, loader, loader)
    assert model.seen == 80


def test_the_clock_counts_updates_not_batches(module, loader, make_trainer):
    callback = GradualPruning(0.9)
    make_trainer(callback, accumulate_grad_batches=4).fit(module(), loader)
    assert callback.engine.clock == 4 * 3  # 4 + 4 + a last partial window of 2 batches, four epochs
    assert callback.engine.plan.sparsity.end == round(0.75 * 12)
    assert callback.sparsity == pytest.approx(0.9, abs=1e-3)


def test_clipping_sees_the_norm_of_the_living(module, loader, make_trainer):
    norms = []

    class Clipped(module):
        def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None):
            dead = [self.get_parameter(name).grad[~mask] for name, mask in callback.masks.items()]
            norms.append(max(float(gradient.abs().max()) for gradient in dead))
            self.clip_gradients(optimizer, 0.1, "norm")

    callback = BrainDevelopment(0.9)
    make_trainer(callback).fit(Clipped(), loader)
    assert max(norms) == 0.0
    assert any(update.born for update in callback.history)  # growth had its gradients all the same


def test_sparsity_zero_is_the_run_without_the_callback(module, loader, make_trainer):
    models = []
    for callbacks in ([], [GradualPruning(0.0)]):
        torch.manual_seed(5)
        models.append(module())
        make_trainer(*callbacks).fit(models[-1], DataLoader(loader.dataset, batch_size=64, shuffle=True))
    for a, b in zip(models[0].state_dict().values(), models[1].state_dict().values(), strict=True):
        assert torch.equal(a, b)


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


def test_masks_before_fit_say_when_there_will_be_some():
    with pytest.raises(SparsityError, match="when training starts"):
        _ = GradualPruning(0.9).masks


def test_two_callbacks_on_disjoint_parameters(module, loader, make_trainer):
    body, head = (
        GradualPruning(0.9, include=["body.*.weight"], exclude=["body.1.*"]),
        SparseTraining(0.5, include=["head.weight"]),
    )
    make_trainer(body, head).fit(module(), loader)
    assert list(body.masks) == ["body.0.weight", "body.3.weight"]
    assert (body.sparsity, head.sparsity) == (round(0.9 * 5640) / 5640, 0.5)


def test_manual_optimization_needs_total_steps_for_shares_and_follows_the_owning_optimizer(
    loader, module, make_trainer
):
    class Manual(module):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False
            self.other = nn.Linear(3, 3)

        def training_step(self, batch, batch_idx):
            mine, others = self.optimizers()
            others.zero_grad()
            self.manual_backward(self.other(torch.ones(1, 3)).sum())
            others.step()
            mine.zero_grad()
            self.manual_backward(super().training_step(batch, batch_idx))
            mine.step()

        def configure_optimizers(self):
            mine = torch.optim.SGD([*self.body.parameters(), *self.head.parameters()], lr=0.1)
            return mine, torch.optim.SGD(self.other.parameters(), lr=0.1)

    with pytest.raises(SparsityError, match="total_steps="):
        make_trainer(BrainDevelopment(0.9, exclude=["other.*"])).fit(Manual(), loader)
    callback, model = BrainDevelopment(0.9, exclude=["other.*"], total_steps=40), Manual()
    make_trainer(callback).fit(model, loader)
    assert callback.engine.clock == 40
    assert dead_are_zero(model, callback.masks)
    assert any(update.born for update in callback.history)
    assert not (model.other.weight == 0).any()


class Endless(IterableDataset):
    def __init__(self, dataset):
        self.dataset = dataset

    def __iter__(self):
        return iter(self.dataset)


def test_data_without_a_length_need_steps(digits, module, make_trainer):
    endless = DataLoader(Endless(digits), batch_size=64)
    with pytest.raises(SparsityError, match="max_steps"):
        make_trainer(GradualPruning(0.9)).fit(module(), endless)
    steps, share = GradualPruning(0.9, end=20, every=2), GradualPruning(0.9)
    make_trainer(steps).fit(module(), endless)
    make_trainer(share, max_steps=30).fit(module(), endless)
    assert (steps.engine.plan.sparsity.end, share.engine.plan.sparsity.end) == (20, round(0.75 * 30))


def test_stopping_early_warns_with_achieved_and_asked(module, loader, make_trainer):
    with pytest.warns(UserWarning, match=r"step 40, before step 1000 .*asked 0\.9, achieved 0\.\d+"):
        make_trainer(GradualPruning(0.9, end=1000, every=10)).fit(module(), loader)


def test_the_hook_is_gone_after_fit_and_after_an_exception(module, loader, make_trainer):
    class Failing(module):
        def training_step(self, batch, batch_idx):
            if batch_idx == 3:
                raise RuntimeError("stop")
            return super().training_step(batch, batch_idx)

    for kind, ends in ((module, nullcontext()), (Failing, pytest.raises(RuntimeError, match="stop"))):
        callback = GradualPruning(0.5)
        trainer = make_trainer(callback)
        with ends:
            trainer.fit(kind(), loader)
        assert not trainer.optimizers[0]._optimizer_step_post_hooks
        copy.deepcopy(callback)


def test_bf16_mixed_and_channels_last_keep_exact_dead_are_zero(digits, make_trainer):
    from lightning_sparse.models import Classifier, small_cnn

    model = Classifier(small_cnn((1, 8, 8), 10), mean=[0.3], std=[0.4]).to(memory_format=torch.channels_last)
    images = torch.utils.data.TensorDataset(digits.tensors[0].view(-1, 1, 8, 8), digits.tensors[1])
    callback = BrainDevelopment(0.95)
    make_trainer(callback, precision="bf16-mixed", max_epochs=2).fit(model, DataLoader(images, batch_size=64))
    assert callback.masks.total - callback.masks.living == round(0.95 * callback.masks.total)
    assert dead_are_zero(model, callback.masks)


def test_pytorch_lightning_namespace(module, loader):
    import pytorch_lightning as pl

    class Other(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 10)

        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self.layer(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters())

    callback = GradualPruning(0.9)
    pl.Trainer(max_epochs=2, accelerator="cpu", barebones=True, callbacks=[callback]).fit(Other(), loader)
    assert callback.sparsity == 0.9


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


def test_two_callbacks_on_one_parameter_are_refused(module, loader, make_trainer):
    with pytest.raises(SparsityError, match=r"both want 'head\.weight'"):
        make_trainer(GradualPruning(0.9), SparseTraining(0.5, include=["head.weight"])).fit(module(), loader)


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


def test_a_layer_without_gradient_is_said_once_and_costs_no_training(module, loader, make_trainer):
    class Unused(module):
        def __init__(self):
            super().__init__()
            self.unused = nn.Linear(20, 20)

    callback = BrainDevelopment(0.9)
    with pytest.warns(UserWarning, match=r"no gradient for unused\.weight") as said:
        make_trainer(callback).fit(Unused(), loader)
    assert len([warning for warning in said if "no gradient" in str(warning.message)]) == 1
    assert callback.masks.total - callback.masks.living == round(0.9 * callback.masks.total)
